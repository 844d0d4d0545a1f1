"""A disk that is full, and has room again: what the gateway writes is told of, and no request is lost by it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.layout import GATEWAY
from gateway.errors import StartError
from gateway.store.embedded import EmbeddedStore
from gateway.telemetry import access_log
from gateway.telemetry.access_log import AccessLog
from tests.integration.gateways import Backend, Gateway, running
from tests.telemetry.test_access_log import LINE

FULL = "No space left on device"


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
    return found


@contextmanager
def filled(disk: Path, *, but: int = 0) -> Iterator[None]:
    """Nothing more can be written there, or `but` bytes; pages count whole."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
        if but:
            file.truncate(file.tell() - but)
        yield
    ballast.unlink()


def metric(gateway: Gateway, name: str) -> float:
    text = gateway.admin("/metrics")[1].decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def records(path: Path) -> list[dict[str, Any]]:
    """Every line of an access log; each must be whole."""
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


# -- the access log -----------------------------------------------------------------------------------------------


def test_lines_wait_for_room_and_none_is_torn(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    place = disk("size=256k")
    path = place / "access.log"
    with running(tmp_path, f"access_log: {{path: {path}}}\n", workers=2) as gateway:
        assert gateway.ask("/before")[0] == 200
        until(lambda: path.exists() and path.stat().st_size)
        with filled(place, but=8192):
            for number in range(100):  # 40 KB: some fit, one does not quite
                assert gateway.ask(f"/{number}")[0] == 200
            until(lambda: FULL in gateway.log())
            time.sleep(0.5)  # some more tries
            records(path)  # whole, while the disk is full
            said = [line for line in gateway.log().splitlines() if "access_log.path" in line]
            assert 1 <= len(said) <= 2  # one for each worker
            assert all(f"cannot write '{path}'" in line and line.endswith(FULL) for line in said)
        assert gateway.ask("/after")[0] == 200
        until(lambda: len(records(path)) == 102)
        assert {each["target"] for each in records(path)} == {"/before", "/after", *(f"/{n}" for n in range(100))}
        again = [line for line in gateway.log().splitlines() if "is written again; 0 lines are lost" in line]
        assert len(again) == len(said)
        assert metric(gateway, "gateway_access_log_dropped_total") == 0
    assert len(records(path)) == 102


def test_what_cannot_wait_any_longer_is_counted(
    tmp_path: Path, disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access_log, "CAPACITY", 10)
    monkeypatch.setattr(access_log, "FLUSH", 0.005)
    place = disk("size=64k")
    log = AccessLog(str(place / "access.log"))
    with filled(place):
        log.write(LINE)
        until(lambda: FULL in caplog.text)
        for _ in range(15):
            log.write(LINE)
        assert log.dropped == 5
    until(lambda: "is written again; 5 lines are lost" in caplog.text)
    until(lambda: len(records(place / "access.log")) == 11)
    with filled(place):
        for _ in range(30):  # more than the file's last page holds
            log.write(LINE)
            time.sleep(0.001)
        log.close()
    assert log.dropped > 5
    assert log.dropped + len(records(place / "access.log")) == 1 + 15 + 30
    assert caplog.text.count(FULL) == 1  # what comes and goes is told once a minute


def test_a_log_that_cannot_even_be_made_is_made_when_there_is_room(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    place = disk("size=64k,nr_inodes=4")
    others = [place / str(number) for number in range(3)]
    for each in others:
        each.touch()
    path = place / "access.log"
    with running(tmp_path, f"access_log: {{path: {path}}}\n") as gateway:
        assert gateway.ask("/1")[0] == 200
        until(lambda: f"cannot write '{path}'" in gateway.log())
        others[0].unlink()
        until(lambda: path.exists() and len(records(path)) == 1)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


# -- what operators said of breakers -------------------------------------------------------------------------------


def force(gateway: Gateway, state: str) -> int:
    body = json.dumps({"pool": "p", "backend": f"127.0.0.1:{gateway.backend.port}", "state": state}).encode()
    return gateway.admin("/breakers", body, {"content-type": "application/json"})[0]


def test_an_order_holds_and_is_kept_when_there_is_room(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    place = disk("size=64k")
    path = place / "state.json"
    with running(tmp_path, admin=f", state_file: {path}") as gateway:
        before = path.read_bytes()
        with filled(place):
            for state in ("open", "closed", "open"):
                assert force(gateway, state) == 200
            assert gateway.ask("/")[0] == 503
            assert (path.read_bytes(), sorted(os.listdir(place))) == (before, ["ballast", "state.json"])
            assert gateway.log().count(FULL) == 1
            assert metric(gateway, "gateway_state_file_failures_total") >= 3
        until(lambda: f"'{path}' is written again" in gateway.log())
        ((key, kept),) = json.loads(path.read_text())["breakers"].items()
        assert (key.endswith(str(gateway.backend.port)), kept["state"]) == (True, "open")


def test_a_gateway_starts_on_a_full_disk_and_knows_what_was_said(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    place = disk("size=64k")
    path = place / "state.json"
    with running(tmp_path, admin=f", state_file: {path}") as gateway:
        assert force(gateway, "open") == 200
        gateway.child.stop(10)
        with filled(place):
            gateway.start()
            assert gateway.ask("/")[0] == 503
            assert "so a restart will not know" in gateway.log()
            assert sorted(os.listdir(place)) == ["ballast", "state.json"]


# -- the operator's log, and commands ------------------------------------------------------------------------------


def test_a_gateway_serves_although_its_own_log_cannot_be_written(tmp_path: Path, disk: Callable[[str], Path]) -> None:
    place = disk("size=64k")
    backend = Backend()
    gateway = Gateway(tmp_path, backend)
    with (place / "log").open("wb") as log, filled(place):
        process = subprocess.Popen([str(GATEWAY), "run", "-c", str(gateway.path)], stdout=log, stderr=log)
        try:
            until(lambda: gateway_answers(gateway))
            assert gateway.ask("/")[0] == 200
            assert gateway.admin("/reload", b"")[0] == 200
            assert gateway.ask("/")[0] == 200
            os.truncate(place / "ballast", 0)
            assert gateway.admin("/reload", b"")[0] == 200
            until(lambda: "generation 3 is in force" in (place / "log").read_text())
        finally:
            process.terminate()
            process.wait(30)
            backend.close()
    assert "Traceback" not in (place / "log").read_text()


def gateway_answers(gateway: Gateway) -> bool:
    try:
        return gateway.admin("/readyz")[0] == 200
    except OSError:
        return False


def test_an_embedded_store_that_has_no_place_for_its_socket_says_so(
    disk: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk("size=64k,nr_inodes=1")))
    with pytest.raises(StartError, match=f"the embedded store .* has no directory for its socket: {FULL}"):
        EmbeddedStore()


@pytest.mark.parametrize("there", [False, True])
def test_init_leaves_what_was_there(disk: Callable[[str], Path], there: bool) -> None:
    place = disk("size=64k")
    path = place / "gateway.yaml"
    if there:
        path.write_text("mine: 1\n")
    with filled(place):
        done = subprocess.run([str(GATEWAY), "init", "--force", str(path)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (1, f"gateway init: '{path}' cannot be written: {FULL}\n")
        assert sorted(os.listdir(place)) == sorted(["ballast", "gateway.yaml"] if there else ["ballast"])
    if there:
        assert path.read_text() == "mine: 1\n"
    done = subprocess.run([str(GATEWAY), "init", "--force", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.match("# Sluicegate configuration", path.read_text())
