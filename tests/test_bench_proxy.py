"""The benchmark's own arithmetic and housekeeping; the peers themselves are proved in every run, before it measures."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests import bench_proxy, bench_report
from loadtests.measure import Measured, Measurement
from loadtests.peers import PEERS, processes
from loadtests.peers.base import Endpoint
from loadtests.peers.envoy import config
from loadtests.peers.processes import NotUp, Process, cpu_seconds, free_ports, tree


def rounds(peer: str, *proxy_us: float, service: float = 0.0) -> Measured:
    roles = {"ratelimit": service, "store": 15.0} if service else {}
    measurements = [
        Measurement({"proxy": each, **roles}, 1000.0, 1.0 if service else 0.0, 900, 2000) for each in proxy_us
    ]
    return Measured(peer, "GET", measurements)


def result(*measured: Measured) -> dict[str, object]:
    return bench_report.as_dict(measured, {"caddy": "not here"}, 64, 3.0)


def test_ratios_are_of_medians_and_their_spread_is_of_rounds() -> None:
    printed = result(rounds("sluicegate", 60, 50, 55), rounds("envoy", 60, 40, 50))
    bar = bench_report.as_dict([rounds("sluicegate", 60, 50, 55), rounds("envoy", 60, 40, 50)], {}, 64, 3.0)["bars"][0]
    assert bar == {
        "scenario": "GET", "of": "sluicegate", "to": "envoy", "most": 1.0, "holds": False, "ratio": 1.1,
        "min": 1.0, "max": 1.25,
    }  # fmt: skip
    text = bench_report.text(printed)
    assert "bar MISSED: GET: sluicegate to envoy <= 1x: 1.10x (1.00-1.25)" in text
    assert "not measured: caddy: not here" in text
    assert "bar not measured: GET: sluicegate to envoy+ratelimit <= 0.2x" in text


def test_a_limiter_counts_with_its_service_and_without_the_store() -> None:
    printed = result(rounds("sluicegate", 36), rounds("envoy+ratelimit", 100, service=80))
    text = bench_report.text(printed)
    assert "bar holds: GET: sluicegate to envoy+ratelimit <= 0.2x: 0.20x" in text
    assert "ratelimit 80.0 us, store 15.0 us, 1.00 commands a request" in text


def test_the_link_is_held_against_peers_with_the_same_origin() -> None:
    printed = result(rounds("sluicegate@link", 30), rounds("envoy", 10), rounds("envoy@go", 40))
    text = bench_report.text(printed)
    assert "bar holds: GET: sluicegate@link to envoy@go <= 0.8x: 0.75x" in text
    for subject, peer, _, _ in bench_report.BARS:
        assert PEERS[subject].origin == PEERS[peer].origin
    assert {bench_report.reference_of(name) for name in PEERS} == {"envoy", "envoy@go"}


def test_a_process_is_measured_and_ended_with_its_children(tmp_path: Path) -> None:
    child = "import time; time.sleep(60)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    process = Process("parent", [sys.executable, "-c", code], tmp_path)
    for _ in range(500):
        if len(tree(process.pid)) == 2:
            break
        time.sleep(0.01)
    pids = tree(process.pid)
    assert len(pids) == 2
    process.stop()
    assert not any(Path(f"/proc/{pid}/stat").exists() and _alive(pid) for pid in pids)
    assert sum(map(cpu_seconds, pids)) >= 0.0


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_program_that_does_not_come_up_shows_its_log(tmp_path: Path) -> None:
    process = Process("broken", [sys.executable, "-c", "print('no such option'); raise SystemExit(3)"], tmp_path)
    with pytest.raises(NotUp, match=r"broken ended with status 3:\nno such option"):
        process.wait_for_port(free_ports(1)[0])
    process.stop()


def test_cpu_seconds_follow_work() -> None:
    before = cpu_seconds(os.getpid())
    end = time.process_time() + 0.05
    while time.process_time() < end:
        pass
    assert 0.03 <= cpu_seconds(os.getpid()) - before < 5


def test_free_ports_are_different_and_free() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as each:
            each.bind(("127.0.0.1", port))


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LAST_PORT", processes.FIRST_PORT + 40)
    mine = free_ports(10)
    assert not set(mine) & set(free_ports(10))
    ask = f"from loadtests.peers import processes as p; p.LAST_PORT = {processes.LAST_PORT}; print(p.free_ports(41))"
    others = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout
    assert others.startswith("[") and not set(mine) & set(json.loads(others))


def test_every_peer_says_what_it_does_and_whether_it_can() -> None:
    for name, peer in PEERS.items():
        one = peer()
        assert one.name == name
        assert one.does
        assert one.available() is None or one.available()


def test_envoy_asks_the_service_only_when_there_is_one() -> None:
    plain, limited = config(1, Endpoint(2), None), config(1, Endpoint(2), Endpoint(3))
    assert "ratelimit" not in str(plain)
    assert "envoy.filters.http.ratelimit" in str(limited)


def test_a_wrong_command_line_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench_proxy.main(["--peers", "envoy,squid"]) == 2
    assert "unknown peers ['squid']" in capsys.readouterr().err


def test_the_post_is_the_size_it_is_said_to_be() -> None:
    assert 2800 <= len(bench_proxy.SCENARIOS[1].body) <= 3000
