"""Overload through a real gateway: what is learnt is shown, refusals are quick and honest, and nothing is left behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.integration.gateways import Backend, Gateway, running
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


def limited(gateway: Gateway, places: int) -> None:
    """Gives its pool a number of places instead of one that is learnt."""
    gateway.text = gateway.text.replace('"}]}}', f'"}}], admission: {{limit: {places}}}}}}}')
    gateway.path.write_text(gateway.text)


class Counting(Backend):
    """20 ms each, and remembers how many there were at most."""

    def __init__(self) -> None:
        super().__init__()
        self.server.socket.listen(256)
        self.most = self.now = 0
        lock = threading.Lock()
        handler = self.server.RequestHandlerClass
        handler.wbufsize = -1
        answer = handler.do_POST

        def served(one: object) -> None:
            with lock:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.02)
            with lock:
                self.now -= 1
            answer(one)

        handler.do_POST = handler.do_GET = served


@pytest.fixture
def gateway(tmp_path: Path):
    backend = Slow()
    one = Gateway(tmp_path, backend)
    one.path.write_text(one.text.replace("rate: 1000/s, burst: 1000", "rate: 1000000/s, burst: 1000000"))
    try:
        one.start()
        yield one
    finally:
        one.child.stop()
        backend.close()


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


def test_long_and_short_requests_share_a_pool_and_nobody_is_refused(tmp_path: Path) -> None:
    """From cold, and with the default."""
    with running(tmp_path, workers=2, limit="{key: client, rate: 1000000/s, burst: 1000000}") as gateway:
        backend = gateway.backend
        backend.server.socket.listen(256)
        handler = backend.server.RequestHandlerClass
        answer = handler.do_POST

        def served(one: BaseHTTPRequestHandler) -> None:
            if "long" in one.path:
                time.sleep(1)
            answer(one)

        handler.do_POST = handler.do_GET = served
        end = time.monotonic() + 4
        answers: dict[str, list[tuple[int, float]]] = {"/long": [], "/short": []}

        def ask(path: str) -> None:
            while time.monotonic() < end:
                began = time.monotonic()
                status = gateway.ask(path, b"{}")[0]
                answers[path].append((status, time.monotonic() - began))
                time.sleep(0.05)

        threads = [threading.Thread(target=ask, args=(path,)) for path in ["/long"] * 48 + ["/short"] * 4]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert {status for each in answers.values() for status, _ in each} == {200}
        took = sorted(took for _, took in answers["/short"])
        assert took[len(took) // 2] < 0.5, "they do not wait for the long ones"


def test_the_workers_share_the_places(tmp_path: Path) -> None:
    backend = Counting()
    gateway = Gateway(tmp_path, backend, workers=2, limit="{key: client, rate: 1000000/s, burst: 1000000}")
    limited(gateway, 4)
    try:
        gateway.start()
        seen, wrong = flood(gateway, 24, 3)
        assert not wrong, wrong[:3]
        assert {status for status, _ in seen} == {200}
        assert 4 <= backend.most <= 5, "a number that is a moment old costs at most one too many"
        assert [one["limit"] for one in admission(gateway)] == [4, 4]
        assert 'gateway_admission_limit{pool="p"} 4' in gateway.admin("/metrics")[1].decode()
    finally:
        gateway.child.stop()
        backend.close()


class Pinned:
    """Keep-alive connections, known by the worker that they came to."""

    def __init__(self, port: int, count: int) -> None:
        self.by_worker: dict[str, list[http.client.HTTPConnection]] = {}
        for _ in range(count):
            one = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            one.request("GET", "/x")
            answer = one.getresponse()
            answer.read()
            assert answer.status == 200
            worker = (answer.headers["x-request-id"] or "").partition("-")[0]
            self.by_worker.setdefault(worker, []).append(one)

    def close(self) -> None:
        for each in self.by_worker.values():
            for one in each:
                one.close()


def asking(
    connections: list[http.client.HTTPConnection], path: str, end: float, took: list[float]
) -> list[threading.Thread]:
    """Closed loops, begun; `took` gets the seconds that each answer took."""

    def ask(one: http.client.HTTPConnection) -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            one.request("GET", path)
            answer = one.getresponse()
            answer.read()
            assert answer.status == 200
            took.append(time.monotonic() - began)

    threads = [threading.Thread(target=ask, args=(one,)) for one in connections]
    for thread in threads:
        thread.start()
    return threads


def test_a_higher_priority_goes_first_whichever_worker_it_comes_to(tmp_path: Path) -> None:
    backend = Slow()
    gateway = Gateway(tmp_path, backend, workers=2, limit="{key: client, rate: 1000000/s, burst: 1000000}")
    limited(gateway, 2)
    routes = "".join(
        f'  - {{name: {name}, match: {{path: "/{name}"}}, pool: p, priority: {name}, timeout: 30s}}\n'
        for name in ("critical", "batch")
    )
    gateway.text = gateway.text.replace("routes:\n", f"routes:\n{routes}")
    gateway.path.write_text(gateway.text)
    try:
        gateway.start()
        pinned = Pinned(gateway.port, 48)
        one, two = pinned.by_worker.values()
        urgent: list[float] = []
        batch: list[float] = []
        end = time.monotonic() + 3
        threads = asking(two[:4] + one[4:8], "/batch", end, batch) + asking(one[:4], "/critical", end, urgent)
        for thread in threads:
            thread.join()
        pinned.close()
        assert len(urgent) > 3 * len(batch), (len(urgent), len(batch))
        assert sorted(urgent)[len(urgent) // 2] < sorted(batch)[len(batch) // 2] / 2
    finally:
        gateway.child.stop()
        backend.close()


def test_a_worker_that_stands_still_keeps_no_place_from_the_others(tmp_path: Path) -> None:
    """One place for three workers: it is stopped while it waits for it."""
    backend = Slow()
    gateway = Gateway(tmp_path, backend, workers=3, limit="{key: client, rate: 1000000/s, burst: 1000000}")
    limited(gateway, 1)
    try:
        gateway.start()
        pinned = Pinned(gateway.port, 48)
        groups = sorted(pinned.by_worker.values(), key=len)
        assert len(groups) == 3
        took: list[float] = []
        threads = [thread for each in groups for thread in asking(each[:2], "/x", time.monotonic() + 5, took)]
        frozen = 0
        for _ in range(500):
            for worker in gateway.status()["workers"]:
                if worker["admission"][0]["queued"] and not worker["admission"][0]["inflight"]:
                    frozen = worker["pid"]
            if frozen:
                break
        assert frozen
        os.kill(frozen, signal.SIGSTOP)
        time.sleep(0.5)
        before = len(took)
        time.sleep(1.5)
        seen = len(took) - before
        os.kill(frozen, signal.SIGCONT)
        for thread in threads:
            thread.join()
        pinned.close()
        assert seen > 20, "of some 60 that the backend can answer"
    finally:
        gateway.child.stop()
        backend.close()


def test_the_places_of_a_worker_that_was_killed_are_free_again(tmp_path: Path) -> None:
    backend = Backend()
    gateway = Gateway(tmp_path, backend, workers=2)
    limited(gateway, 3)
    try:
        gateway.start()
        backend.hold.clear()
        held = []
        for _ in range(3):
            one = socket.create_connection(("127.0.0.1", gateway.port))
            one.sendall(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}")
            held.append(one)
        assert until(lambda: sum(int(str(each["inflight"])) for each in admission(gateway)) == 3, 5)
        workers = gateway.status()["workers"]
        victim = max(workers, key=lambda worker: worker["admission"][0]["inflight"])
        others = 3 - victim["admission"][0]["inflight"]
        os.kill(victim["pid"], signal.SIGKILL)
        assert until(lambda: gateway.status()["workers"][victim["worker"]]["pid"] not in (victim["pid"], None), 20)
        assert until(lambda: all(each.get("generation") == 1 for each in gateway.status()["workers"]), 20)
        assert sum(int(str(each["inflight"])) for each in admission(gateway)) == others
        backend.hold.set()
        assert [gateway.ask("/x", b"{}")[0] for _ in range(10)] == [200] * 10
        for one in held:
            one.close()
    finally:
        gateway.child.stop()
        backend.close()


def test_clients_that_leave_the_queue_leave_nothing(gateway: Gateway) -> None:
    limited(gateway, 4)
    assert gateway.admin("/reload", b"")[0] == 200
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
    with running(tmp_path) as gateway:
        limited(gateway, 4)
        assert gateway.admin("/reload", b"")[0] == 200
        gateway.backend.hold.clear()
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(gateway.ask("/x", b"{}")[0])) for _ in range(20)]
        for thread in threads:
            thread.start()
        assert until(lambda: int(str(admission(gateway)[0]["queued"])) == 16, 30)
        stopping = threading.Thread(target=gateway.child.stop)
        stopping.start()
        time.sleep(0.3)
        gateway.backend.hold.set()
        stopping.join()
        for thread in threads:
            thread.join()
        assert answers == [200] * 20
