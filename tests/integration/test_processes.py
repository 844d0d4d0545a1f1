"""The gateway as processes: starting, failing to start, losing a worker, reloading, stopping."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from demo.layout import GATEWAY
from loadtests.peers.processes import free_ports
from tests.integration.gateways import Backend, Gateway, descendants, running


def until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def gone(pids: set[int]) -> bool:
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_serves_on_both_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: str) -> None:
    monkeypatch.setenv("GATEWAY_LOOP", loop)
    with running(tmp_path, workers=2) as gateway:
        status, body, headers = gateway.ask_all("/echo?x=1", b"hello", {"X-Api-Key-Not": "1"})
        assert (status, body) == (200, b"hello")
        assert headers["ratelimit-policy"] == '"per-client";q=1000;w=1'
        path, sent, _ = gateway.backend.seen[-1]
        assert path == "/echo?x=1"
        assert sent["x-forwarded-for"] == "127.0.0.1"
        assert sent["x-request-id"] == headers["x-request-id"]
        assert sent["x-request-timeout"].endswith("ms")
        assert all(worker["store"] == "shared" for worker in gateway.status()["workers"])


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    backend = Backend()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        gateway = Gateway(tmp_path, backend)
        port = taken.getsockname()[1]
        gateway.path.write_text(gateway.text.replace(str(gateway.port), str(port)))
        command = [str(GATEWAY), "run", "-c", str(gateway.path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    backend.close()
    assert done.returncode == 1
    assert done.stderr == f"gateway: 127.0.0.1:{port} is already in use; stop what listens there or change `listen`\n"


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as gateway:
        victim = gateway.status()["workers"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        assert until(lambda: all(w.get("generation") == 1 and w["pid"] != victim for w in gateway.status()["workers"]))
        assert gateway.status()["workers"][0]["restarts"] == 1
        assert all(gateway.ask("/")[0] == 200 for _ in range(20))
        assert b"gateway_worker_restarts_total 1" in gateway.admin("/metrics")[1]


def test_a_hung_worker_is_replaced(tmp_path: Path) -> None:
    with running(tmp_path, workers=2) as gateway:
        victim = gateway.status()["workers"][0]["pid"]
        os.kill(victim, signal.SIGSTOP)
        assert until(lambda: gateway.status()["workers"][0]["pid"] not in (victim, None), 20)
        assert until(lambda: gateway.admin("/readyz")[0] == 200)
        assert all(gateway.ask("/")[0] == 200 for _ in range(20))


def test_counters_go_on_after_a_worker_died(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        assert gateway.ask("/", b"x")[0] == 200
        name = b"\ngateway_store_calls_total "
        assert until(lambda: name in gateway.admin("/metrics")[1])
        before = int(gateway.admin("/metrics")[1].partition(name)[2].split()[0])
        os.kill(gateway.status()["workers"][0]["pid"], signal.SIGKILL)
        assert until(lambda: gateway.status()["workers"][0].get("generation") == 1)
        assert until(lambda: gateway.ask("/", b"x")[0] == 200)
        assert until(lambda: int(gateway.admin("/metrics")[1].partition(name)[2].split()[0]) > before)


def test_an_access_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    backend = Backend()
    gateway = Gateway(tmp_path, backend, extra=f"access_log: {{path: {tmp_path}/no/such/log}}\n")
    command = [str(GATEWAY), "run", "-c", str(gateway.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    backend.close()
    assert done.returncode == 1
    assert (
        done.stderr == f"gateway: access_log.path: cannot write '{tmp_path}/no/such/log': No such file or directory\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    with running(tmp_path, workers=2) as gateway:
        children = descendants(gateway.child.pid)
        assert len(children) == 3, "two workers and the store"
        gateway.child.signal(number)
        assert until(lambda: not gateway.child.alive)
        assert gateway.child.status == 0
        assert gone(children)


def test_a_killed_supervisor_leaves_no_process_and_its_successor_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory() as place, running(tmp_path, workers=2) as gateway:  # a short path, for a socket
        gateway.child.stop()
        monkeypatch.setenv("TMPDIR", place)
        gateway.start()
        children = descendants(gateway.child.pid)
        (left,) = os.listdir(place)
        gateway.child.kill()
        assert until(lambda: gone(children))
        gateway.start()
        assert left not in os.listdir(place)
        assert all(worker["store"] == "shared" for worker in gateway.status()["workers"])
        gateway.child.stop()
        assert not os.listdir(place)


def test_drain_finishes_what_was_begun(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.backend.hold.clear()
        answers: list[tuple[int, bytes]] = []
        waiting = threading.Thread(target=lambda: answers.append(gateway.ask("/slow", b"x")))
        waiting.start()
        assert until(lambda: bool(gateway.backend.seen))
        gateway.child.signal(signal.SIGTERM)
        assert until(lambda: gateway.admin("/readyz")[0] == 503)
        assert until(lambda: gateway.status()["workers"][0]["state"] == "draining")
        status, body = gateway.admin("/reload", b"")  # for which the workers have no ear any more
        assert (status, json.loads(body)["error"]) == (422, f"{gateway.path}: error: the gateway is stopping")
        assert gateway.child.alive
        gateway.backend.hold.set()
        waiting.join(10)
        assert answers == [(200, b"x")]
        assert until(lambda: not gateway.child.alive)
        assert gateway.child.status == 0


def test_reload_over_the_admin_api(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        gateway.path.write_text(gateway.text.replace('path: "/*"', 'path: "/only*"'))
        status, body = gateway.admin("/reload", b"")
        assert (status, json.loads(body)["generation"]) == (200, 2)
        assert gateway.ask("/other")[0] == 404
        assert gateway.ask("/only/this")[0] == 200
        gateway.path.write_text(gateway.text.replace("burst", "brust"))
        status, body = gateway.admin("/reload", b"")
        assert status == 422
        assert "gateway.yaml:5:" in json.loads(body)["error"]
        gateway.path.write_text(gateway.text.replace("workers: 1", "workers: 2"))
        status, body = gateway.admin("/reload", b"")
        assert "workers cannot change while running; restart instead" in json.loads(body)["error"]
        assert gateway.status()["generation"] == 2
        metrics = gateway.admin("/metrics")[1]
        assert b'gateway_config_reloads_total{result="applied"} 1' in metrics
        assert b'gateway_config_reloads_total{result="refused"} 2' in metrics


def test_a_backend_that_is_out_is_tried_again_once_nobody_checks_it(tmp_path: Path) -> None:
    with running(tmp_path) as gateway:
        [port] = free_ports(1)
        dead = f'backends: [{{url: "http://127.0.0.1:{port}"}}, '
        checked = gateway.text.replace("backends: [", dead).replace(
            "]}}", '], health: {path: "/", interval: 50ms, unhealthy_after: 1}}}'
        )
        gateway.path.write_text(checked)
        assert gateway.admin("/reload", b"")[0] == 200
        assert until(lambda: gateway.status()["health"].get(f"p/127.0.0.1:{port}") is False)
        gateway.path.write_text(gateway.text.replace("backends: [", dead))
        assert gateway.admin("/reload", b"")[0] == 200
        assert gateway.status()["health"] == {}
        [backend] = [b for b in gateway.status()["workers"][0]["backends"] if b["name"].endswith(f":{port}")]
        assert backend["healthy"]


def test_the_admin_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret-s3cret-s3cret\n")
    backend = Backend()
    gateway = Gateway(tmp_path, backend)
    listen = f'listen: "127.0.0.1:{gateway.admin_port}"'
    gateway.path.write_text(gateway.text.replace(listen, f"{listen}, token_file: token"))
    try:
        gateway.start()
        assert gateway.admin("/livez")[0] == 200
        assert gateway.admin("/status")[0] == 401
        assert gateway.admin("/status", headers={"Authorization": "Bearer wrong"})[0] == 401
        assert gateway.admin("/status", headers={"Authorization": "Bearer s3cret-s3cret-s3cret"})[0] == 200
    finally:
        gateway.child.stop()
        backend.close()


def test_access_log_and_metrics(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    with running(tmp_path, extra=f"access_log: {{path: {log}}}\n") as gateway:
        _, _, headers = gateway.ask_all("/a?b=c", b"12345", None)
        assert gateway.ask("/", b"x", {"X-Request-Timeout": "soon"})[0] == 400
        assert until(lambda: log.exists() and len(log.read_text().splitlines()) == 2)
        first, second = map(json.loads, log.read_text().splitlines())
        assert first["id"] == headers["x-request-id"]
        assert (first["target"], first["status"], first["bytes"], first["route"]) == ("/a?b=c", 200, 5, "all")
        assert first["backend"] == f"p/127.0.0.1:{gateway.backend.port}"
        assert second["status"] == 400
        metrics = gateway.admin("/metrics")[1].decode()
        labels = 'http_route="all",http_response_status_code="200"'
        assert f"http_server_request_duration_seconds_count{{{labels}}} 1" in metrics


def test_bytes_that_are_no_request_are_logged_and_counted(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running(tmp_path, extra=f'access_log: {{path: "{log}"}}\n') as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            answer = client.recv(65536).decode()
        assert answer.startswith("HTTP/1.1 400 Bad Request\r\n")
        [number] = [line.split(": ")[1] for line in answer.split("\r\n") if line.startswith("x-request-id")]
        assert until(lambda: log.exists() and number in log.read_text())
        line = json.loads(log.read_text().splitlines()[-1])
        assert (line["status"], line["route"], line["peer"]) == (400, "", "127.0.0.1")
        assert b'http_route="",http_response_status_code="400",le="+Inf"} 1' in gateway.admin("/metrics")[1]


def test_traces_go_to_the_collector_that_otel_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Backend()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with running(tmp_path) as gateway:
        assert gateway.ask("/", b"x", {"traceparent": parent})[0] == 200
        assert until(lambda: bool(collector.seen))
        passed_on = gateway.backend.seen[-1][1]["traceparent"]
    collector.close()
    path, _, body = collector.seen[0]
    assert path == "/v1/traces"
    assert bytes.fromhex("0af7651916cd43dd8448eb211c80319c") in body
    assert b"gateway.upstream.ms" in body
    assert passed_on.startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert passed_on != parent


def test_the_span_of_a_request_that_a_drain_cuts_off_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the access log waits for its disk: here for a lock."""
    collector = Backend()
    log = tmp_path / "access.log"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.port}")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    extra = f"drain: {{timeout: 300ms, idle: 0s}}\naccess_log: {{path: {log}}}\n"
    with running(tmp_path, extra) as gateway, log.open("r+") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        gateway.backend.hold.clear()
        with socket.create_connection(("127.0.0.1", gateway.port), 5) as client:
            client.sendall(f"GET /cut HTTP/1.1\r\nHost: a\r\ntraceparent: {parent}\r\n\r\n".encode())
            assert until(lambda: bool(gateway.backend.seen))
            gateway.child.signal(signal.SIGTERM)
            assert until(lambda: not gateway.child.alive, 15)
        assert "cut off 1 connections" in gateway.log()
        assert "is cut off" not in gateway.log()  # a worker
    collector.close()
    assert any(bytes.fromhex("0af7651916cd43dd8448eb211c80319c") in body for _, _, body in collector.seen)


def test_a_black_holed_collector_slows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{hole.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with running(tmp_path, extra="tracing: {sample: 1.0}\n") as gateway:
            began = time.monotonic()
            assert all(gateway.ask("/", b"x")[0] == 200 for _ in range(100))
            assert time.monotonic() - began < 20
            gateway.child.signal(signal.SIGTERM)
            assert until(lambda: not gateway.child.alive, 15)
            assert "the collector did not take the last traces within 2 s; they are lost" in gateway.log()
