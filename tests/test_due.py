"""The client that asks at a fixed rate: what it times from when, what it counts as failed, and that it ends."""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest

from loadtests import due

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Manner = Callable[[socket.socket, int], None]  # answers the request of that number


@contextmanager
def origin(manner: Manner) -> Iterator[tuple[int, list[int]]]:
    """A server that answers as `manner` does; its port, and the request numbers of each connection in their order."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[int] = []
    lock = threading.Lock()

    def serve(connection: socket.socket) -> None:
        with closing(connection), suppress(OSError):  # what was closed under its hands
            while connection.recv(65536):
                with lock:
                    seen.append(connection.fileno())
                    number = len(seen)
                manner(connection, number)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def good(connection: socket.socket, _: int) -> None:
    connection.sendall(GOOD)


def ask(
    port: int, *, connections: int = 4, interval: float = 0.0, seconds: float = 0.3, expected: bytes = b"ok"
) -> due.Offered:
    """What `due` does in its own process, here."""
    lines = [due._Line(port) for _ in range(connections)]
    try:
        return due._ask(lines, REQUEST, expected, interval, None, time.monotonic() + seconds)
    finally:
        for line in lines:
            line.socket.close()


def test_it_asks_at_the_rate_it_was_told_and_no_more() -> None:
    with origin(good) as (port, seen):
        offered = ask(port, interval=0.01, seconds=0.5)
    assert 45 <= len(offered.asked) <= 51
    assert len(offered.asked) == len(seen)
    assert offered.failed == 0
    dues = sorted(each.due for each in offered.asked)  # on a busy machine the answers come in another order
    gaps = [later - earlier for earlier, later in itertools.pairwise(dues)]
    assert max(gaps) == pytest.approx(0.01, abs=1e-6)


def test_a_request_is_timed_from_when_it_was_due_though_no_connection_was_free() -> None:
    def stalls(connection: socket.socket, number: int) -> None:
        if number == 1:
            time.sleep(0.3)
        connection.sendall(GOOD)

    with origin(stalls) as (port, _):
        offered = ask(port, connections=1, interval=0.05, seconds=0.5)
    times = [each.took for each in offered.asked]
    assert times[0] >= 0.3
    assert times[1] >= 0.25 - 0.02  # due 50 ms later, and sent when the stall was over
    assert times[2] >= 0.20 - 0.02
    assert all(each.lag >= 0.15 for each in offered.asked[1:3])  # which is not the server's time with it, and told
    assert offered.asked[0].lag < 0.25


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (GOOD, False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother", True),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\nX: ok\r\nContent-Length: 0\r\n\r\n", False),
    ],
    ids=["good", "another answer", "another status", "expected in the head"],
)
def test_what_is_not_200_or_not_what_was_expected_has_failed_and_is_timed_all_the_same(
    answer: bytes, failed: bool
) -> None:
    with origin(lambda connection, _: connection.sendall(answer)) as (port, seen):
        offered = ask(port, interval=0.02, seconds=0.2)
    assert len(offered.asked) == len(seen) > 0
    assert offered.failed == (len(offered.asked) if failed else 0)


def test_an_answer_in_pieces_ends_with_its_last() -> None:
    def slowly(connection: socket.socket, _: int) -> None:
        for at in range(0, len(GOOD), 7):
            connection.sendall(GOOD[at : at + 7])
            time.sleep(0.005)

    with origin(slowly) as (port, _):
        offered = ask(port, connections=1, seconds=0.2)
    assert offered.failed == 0
    assert all(each.took >= 0.02 for each in offered.asked)


def test_a_connection_that_the_server_closes_costs_its_request_and_no_other() -> None:
    def leaves(connection: socket.socket, number: int) -> None:
        if number == 3:
            connection.close()
            return
        connection.sendall(GOOD)

    with origin(leaves) as (port, seen):
        offered = ask(port, connections=3, interval=0.01, seconds=0.3)
    assert offered.failed == 1
    assert len(offered.asked) == len(seen) > 20


def test_a_server_that_closes_all_connections_ends_it() -> None:
    with (
        origin(lambda connection, _: connection.close()) as (port, _),
        pytest.raises(ConnectionError, match="closed all connections"),
    ):
        ask(port, connections=2, seconds=10)


def test_what_was_due_in_a_span_is_found() -> None:
    asked = [due.Asked(at, at + 0.1, at + 0.3) for at in (1.0, 2.0, 3.0, 4.0)]
    offered = due.Offered(asked)
    assert offered.within([(1.5, 3.0), (3.9, 9.0)]) == asked[1:]
    assert offered.within([]) == []
    assert asked[0].took == pytest.approx(0.3)
    assert asked[0].lag == pytest.approx(0.1)


def test_offers_follow_each_other_in_a_process_of_its_own() -> None:
    with origin(good) as (port, seen), due.client(port, REQUEST, b"ok", connections=8) as client:
        assert client.saturation(0.2) > 50
        assert len(set(seen)) == 2  # a quarter of the connections
        for rate in (100.0, 50.0):
            before, began = len(seen), time.monotonic()
            client.offer(rate)
            time.sleep(0.4)
            offered = client.stop()
            took = time.monotonic() - began
            assert 0 < len(offered.asked) <= rate * took + 1
            assert len(offered.asked) == len(seen) - before
            assert offered.failed == 0
            assert offered.real_time == may_be_real_time()


def may_be_real_time() -> bool:
    """Whether this process may do what the client asks the system for."""
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(due.REAL_TIME))
    except OSError:
        return False
    os.sched_setscheduler(0, *before)
    return True


def test_a_client_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = due.multiprocessing.Pipe()
    monkeypatch.setattr(due, "PATIENCE", 0.05)
    with closing(ours), closing(theirs), pytest.raises(TimeoutError, match=r"says nothing for 0\.05 s"):
        due.Client(ours).stop()
