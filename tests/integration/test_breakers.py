"""Breakers in a real gateway: the operator's word on all workers, hints between gateways, breakers of single models."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from demo.layout import GATEWAY
from tests.conftest import Valkey
from tests.integration.gateways import Gateway, running


class Scripted:
    """A backend that answers 500 where `bad` is in the path, and remembers what came."""

    def __init__(self) -> None:
        self.bad = "never"
        self.paths: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                outer.paths.append(self.path)
                self.send_response(500 if outer.bad in self.path else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def pair() -> Iterator[list[Scripted]]:
    backends = [Scripted(), Scripted()]
    yield backends
    for each in backends:
        each.close()


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
    return found


def serve(gateway: Gateway, backends: list[Scripted], breaker: str = "{failures: 3}", extra: str = "") -> None:
    """Puts the backends in the place of the gateway's own."""
    urls = ", ".join(f'{{url: "http://127.0.0.1:{each.port}"}}' for each in backends)
    text = gateway.text.replace(
        f'backends: [{{url: "http://127.0.0.1:{gateway.backend.port}"}}]}}}}',
        f"backends: [{urls}], balance: weighted-round-robin, breaker: {breaker}{extra}}}}}",
    )
    assert text != gateway.text
    gateway.path.write_text(text)
    assert gateway.admin("/reload", b"")[0] == 200


def breaker(gateway: Gateway, backend: Scripted) -> dict[str, Any]:
    all_of_them = json.loads(gateway.admin("/breakers")[1])
    return next(each for each in all_of_them if each["backend"] == f"127.0.0.1:{backend.port}")


def say(gateway: Gateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(GATEWAY), "breaker", *arguments, "-c", str(gateway.path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_an_operators_word_reaches_all_workers_and_outlasts_reloads_and_workers(
    tmp_path: Path, pair: list[Scripted]
) -> None:
    first, second = pair
    with running(tmp_path, workers=2) as gateway:
        serve(gateway, pair)
        name = f"p/127.0.0.1:{first.port}"
        done = say(gateway, "open", name)
        assert done.returncode == 0, done.stderr
        assert "FORCED open" in done.stdout
        assert breaker(gateway, first)["states"] == {"open": 2}
        assert all(gateway.ask("/", b"x")[0] == 200 for _ in range(20))
        assert (len(first.paths), len(second.paths)) == (0, 20)
        assert gateway.admin("/reload", b"")[0] == 200
        victim = gateway.status()["workers"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        until(lambda: breaker(gateway, first)["states"] == {"open": 2})
        assert all(gateway.ask("/", b"x")[0] == 200 for _ in range(20))
        assert first.paths == []
        assert say(gateway, "list").stdout.count("FORCED open") == 1
        assert say(gateway, "auto", name).returncode == 0
        until(lambda: gateway.ask("/", b"x")[0] == 200 and first.paths)
        until(lambda: gateway.ask("/", b"x") and breaker(gateway, first)["states"] == {"closed": 2})
        metric = f'gateway_breaker_forced_workers{{pool="p",backend="127.0.0.1:{first.port}",state="open"}} 0'
        until(lambda: metric.encode() in gateway.admin("/metrics")[1])


def test_a_new_worker_knows_it_before_its_first_request(tmp_path: Path, pair: list[Scripted]) -> None:
    """The one worker is killed again and again under load: not one request comes to the backend that is held."""
    first, second = pair
    with running(tmp_path) as gateway:
        serve(gateway, pair)
        assert say(gateway, "open", f"p/127.0.0.1:{first.port}", "--for", "1h").returncode == 0
        done = threading.Event()

        def press() -> None:
            while not done.is_set():
                with contextlib.suppress(OSError):  # nobody listens for a moment
                    gateway.ask("/", b"x")

        threads = [threading.Thread(target=press, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(3):
            (worker,) = gateway.status()["workers"]
            os.kill(worker["pid"], signal.SIGKILL)
            until(lambda old=worker["pid"]: gateway.status()["workers"][0]["pid"] != old)
            answered = len(second.paths)
            until(lambda answered=answered: len(second.paths) > answered + 20)
        done.set()
        for thread in threads:
            thread.join(10)
        assert first.paths == []
        assert breaker(gateway, first)["forced"] == "open"


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_with_a_state_file_it_outlasts_the_gateway(tmp_path: Path, pair: list[Scripted], how: signal.Signals) -> None:
    first, _ = pair
    urls = ", ".join(f'{{url: "http://127.0.0.1:{each.port}"}}' for each in pair)
    with running(tmp_path) as gateway:
        gateway.child.stop(10)
        state = tmp_path / "state.json"
        text = gateway.text.replace('admin: {listen: "', f'admin: {{state_file: {state}, listen: "')
        text = text.replace(f'[{{url: "http://127.0.0.1:{gateway.backend.port}"}}]', f"[{urls}]")
        gateway.path.write_text(text)
        gateway.start()
        assert say(gateway, "open", f"p/127.0.0.1:{first.port}", "--for", "1h").returncode == 0
        gateway.child.signal(how)
        until(lambda: not gateway.child.alive, 15)
        gateway.start()
        assert all(gateway.ask("/", b"x")[0] == 200 for _ in range(20))
        assert first.paths == []
        about = breaker(gateway, first)
        assert about["forced"] == "open"
        assert 3500 < about["forced_for_s"] < 3600
        assert "is still forced: open" in gateway.log()
        assert say(gateway, "auto", f"p/127.0.0.1:{first.port}").returncode == 0
        assert json.loads(state.read_text()) == {"version": 1, "breakers": {}}


def test_without_one_it_is_said_what_is_lost(tmp_path: Path, pair: list[Scripted]) -> None:
    with running(tmp_path) as gateway:
        serve(gateway, pair)
        assert say(gateway, "open", f"p/127.0.0.1:{pair[0].port}").returncode == 0
        gateway.child.stop(10)
        lost = f"admin.state_file is off: breakers forced p/127.0.0.1:{pair[0].port} open"
        assert f"forgotten with this gateway, for {lost}" in gateway.log()


def test_a_pool_that_is_held_as_a_whole_says_when_it_is_back(tmp_path: Path, pair: list[Scripted]) -> None:
    with running(tmp_path) as gateway:
        serve(gateway, pair)
        for each, time_ in zip(pair, ("1h", "20s"), strict=True):
            assert say(gateway, "open", f"p/127.0.0.1:{each.port}", "--for", time_).returncode == 0
        status, _, headers = gateway.ask_all("/", b"x", None)
        assert status == 503
        assert 15 <= int(headers["retry-after"]) <= 20
        assert say(gateway, "open", f"p/127.0.0.1:{pair[1].port}").returncode == 0
        assert gateway.ask_all("/", b"x", None)[2]["retry-after"] == "30"
        assert pair[0].paths == pair[1].paths == []


def test_for_a_time_and_forced_closed(tmp_path: Path, pair: list[Scripted]) -> None:
    first, _ = pair
    first.bad = "/"
    with running(tmp_path) as gateway:
        serve(gateway, pair)
        name = f"p/127.0.0.1:{first.port}"
        assert say(gateway, "close", name, "--for", "1s").returncode == 0
        statuses = [gateway.ask("/", b"x")[0] for _ in range(20)]
        assert statuses.count(500) == 10
        assert breaker(gateway, first)["states"] == {"closed": 1}
        until(lambda: gateway.ask("/", b"x") and breaker(gateway, first)["states"] == {"open": 1}, 5)
        assert breaker(gateway, first)["tripped"] == {"failures": 1}


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["open", "p/nobody"], 1, "there is no backend of 'p' named 'nobody'"),
        (["open", "q/x"], 1, "there is no pool named 'q'; known: p"),
        (["open", "p"], 2, "open wants POOL/BACKEND"),
        (["open"], 2, "open wants POOL/BACKEND"),
        (["list", "p/x"], 2, "list takes no backend and no time"),
        (["open", "p/x", "--for", "soon"], 2, "--for must be a time above 0s"),
    ],
)
def test_words_that_mean_nothing(tmp_path: Path, arguments: list[str], status: int, says: str) -> None:
    with running(tmp_path) as gateway:
        done = say(gateway, *arguments)
        assert (done.returncode, done.stdout) == (status, "")
        assert says in done.stderr
        for body in (b"", b"[]", b"{}", b'{"pool": "p", "backend": 1, "state": "open"}', b'{"pool": "p", "extra": 1}'):
            assert gateway.admin("/breakers", body)[0] == 400


def test_a_trip_makes_another_gateway_probe(tmp_path: Path, pair: list[Scripted]) -> None:
    first, _ = pair
    store = Valkey(tmp_path)
    store.start()
    extra = f"store: {{url: 'unix://{store.path}', timeout: 5s, connect_timeout: 10s}}\n"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    try:
        with running(tmp_path / "a", extra) as a, running(tmp_path / "b", extra) as b:
            for each in (a, b):
                serve(each, pair)
                until(lambda each=each: all(w["fleet"]["connected"] for w in each.status()["workers"]))
            first.bad = "/"
            for _ in range(6):
                a.ask("/", b"x")
            assert breaker(a, first)["tripped"] == {"failures": 1}
            until(lambda: breaker(b, first)["doubted"] == {"hint": 1}, 2)
            seen = len(first.paths)
            until(lambda: b.ask("/", b"x") and breaker(b, first)["states"] == {"open": 1})
            assert len(first.paths) - seen <= 1, "one failure was enough"
            assert breaker(a, first)["doubted"] == {}, "and it is not told back"
            until(lambda: b"gateway_breaker_hints_told_total 1" in a.admin("/metrics")[1])
    finally:
        store.kill()


def test_a_model_that_fails_takes_only_itself_out(tmp_path: Path, pair: list[Scripted]) -> None:
    first, second = pair
    first.bad = "/v1/models/bad"
    with running(tmp_path) as gateway:
        serve(gateway, pair, "{failures: 3, per: model, open_for: 1m}")
        for _ in range(10):
            gateway.ask("/v1/models/bad:predict", b"x")
        assert all(gateway.ask("/v1/models/bad:predict", b"x")[0] == 200 for _ in range(10))
        before = len(first.paths)
        assert all(gateway.ask("/v1/models/good:predict", b"x")[0] == 200 for _ in range(10))
        assert len(first.paths) - before == 5, "its other model is served as before"
        about = breaker(gateway, first)
        assert (about["states"], about["models"]) == ({"closed": 1}, {"bad": 1})
        assert breaker(gateway, second)["models"] == {}


def test_a_pool_of_one_is_back_at_once(tmp_path: Path, pair: list[Scripted]) -> None:
    """Nobody is protected by waiting when there is nobody else."""
    first, _ = pair
    first.bad = "/"
    with running(tmp_path) as gateway:
        serve(gateway, [first], "{failures: 3, open_for: 1m}")
        until(lambda: gateway.ask("/", b"x") and breaker(gateway, first)["states"] == {"open": 1})
        first.bad = "never"
        began = time.monotonic()
        until(lambda: gateway.ask("/", b"x")[0] == 200)
        assert time.monotonic() - began < 5
