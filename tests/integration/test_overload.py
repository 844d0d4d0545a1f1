"""Overload through a real gateway: what is learnt is shown, refusals are quick and honest, and nothing is left behind."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.integration.gateways import Backend, Gateway
from tests.integration.test_processes import until


class Slow(Backend):
    """Two at a time, 20 ms each."""

    def __init__(self) -> None:
        super().__init__()
        self.server.socket.listen(256)  # it has 5 otherwise, and connections that fail are another story
        self.slots = threading.Semaphore(2)
        handler = self.server.RequestHandlerClass
        handler.wbufsize = -1
        answer = handler.do_POST

        def served(one: object) -> None:
            with self.slots:
                time.sleep(0.02)
                answer(one)

        handler.do_POST = handler.do_GET = served


def admission(gateway: Gateway) -> list[dict[str, object]]:
    workers = gateway.status()["workers"]
    return [worker["admission"][0] for worker in workers]


def flood(gateway: Gateway, threads: int, seconds: float) -> tuple[list[tuple[int, float]], list[str]]:
    """Closed loop: statuses with how long they took, and what went wrong."""
    end = time.monotonic() + seconds
    seen: list[tuple[int, float]] = []
    wrong: list[str] = []

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        while time.monotonic() < end:
            began = time.monotonic()
            connection.request("POST", "/x", b"{}")
            answer = connection.getresponse()
            body = answer.read()
            seen.append((answer.status, time.monotonic() - began))
            if answer.status == 503 and not (answer.headers["retry-after"] or "").isdigit():
                wrong.append(f"no Retry-After: {answer.headers}")
            if answer.status == 503 and json.loads(body)["title"] != "Overloaded":
                wrong.append(body.decode())
            if answer.status == 503:
                time.sleep(0.005)
        connection.close()

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return seen, wrong


@contextlib.contextmanager
def adaptive(folder: Path, backend: Backend):
    one = Gateway(folder, backend, limit="{key: client, rate: 1000000/s, burst: 1000000}")
    one.path.write_text(one.text.replace('"}]}}', '"}], admission: {limit: adaptive}}}'))
    try:
        one.start()
        yield one
    finally:
        one.child.stop()
        backend.close()


@pytest.fixture
def gateway(tmp_path: Path):
    with adaptive(tmp_path, Slow()) as one:
        yield one


def test_under_overload_some_are_refused_honestly_and_the_rest_answered(gateway: Gateway) -> None:
    seen, wrong = flood(gateway, 60, 4)
    assert not wrong, wrong[:3]
    statuses = {status for status, _ in seen}
    assert statuses <= {200, 503}
    assert sum(status == 200 for status, _ in seen) > 100
    [one] = admission(gateway)
    assert 1 <= int(str(one["limit"])) <= 64
    assert float(str(one["latency_ms"])) > 15
    text = gateway.admin("/metrics")[1].decode()
    for metric in (
        "gateway_admission_limit{",
        "gateway_admission_rate{",
        'gateway_admission_queued{pool="p",priority=',
    ):
        assert metric in text


def test_clients_that_leave_the_queue_leave_nothing(gateway: Gateway) -> None:
    gateway.backend.hold.clear()
    sockets = []
    for _ in range(40):
        one = socket.create_connection(("127.0.0.1", gateway.port))
        one.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
        sockets.append(one)
    assert until(lambda: int(str(admission(gateway)[0]["queued"])) > 20, 30)
    for one in sockets:
        one.close()
    assert until(lambda: admission(gateway)[0]["queued"] == 0 and admission(gateway)[0]["inflight"] == 0, 30)
    gateway.backend.hold.set()
    assert until(lambda: gateway.ask("/x", b"{}")[0] == 200, 30)


def test_a_reload_keeps_what_was_learnt_and_who_waits(gateway: Gateway) -> None:
    flood(gateway, 30, 2)
    before = admission(gateway)[0]
    gateway.backend.hold.clear()
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(gateway.ask("/x", b"{}")[0])) for _ in range(15)]
    for thread in threads:
        thread.start()
    assert until(lambda: int(str(admission(gateway)[0]["inflight"])) > 0, 30)
    assert gateway.admin("/reload", b"")[0] == 200
    after = admission(gateway)[0]
    assert after["latency_ms"] == pytest.approx(before["latency_ms"], rel=0.5)
    assert int(str(after["inflight"])) > 0
    gateway.backend.hold.set()
    for thread in threads:
        thread.join()
    assert set(answers) == {200}


def test_a_drain_waits_for_those_who_wait(tmp_path: Path) -> None:
    with adaptive(tmp_path, Backend()) as gateway:
        gateway.backend.hold.clear()
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(gateway.ask("/x", b"{}")[0])) for _ in range(20)]
        for thread in threads:
            thread.start()
        assert until(lambda: int(str(admission(gateway)[0]["queued"])) > 5, 30)
        stopping = threading.Thread(target=gateway.child.stop)
        stopping.start()
        time.sleep(0.3)
        gateway.backend.hold.set()
        stopping.join()
        for thread in threads:
            thread.join()
        assert answers == [200] * 20
