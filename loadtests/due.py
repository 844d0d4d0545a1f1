"""Requests at a fixed rate, each timed from when it was due, by a client that costs little and waits for nobody.

Contract: a process of its own with one thread and kept connections. Where the system allows it (CAP_SYS_NICE) it runs
at real-time priority: on the cores that it shares with the server an ordinary client would wait for those who keep the
server waiting, too, and what it measures would be its own wait. `lag` is what of a time was the client's all the same.
An answer that is not 200 or does not contain `expected` has failed; it is counted and timed like any other.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any

REAL_TIME = 10  # SCHED_FIFO priority: above all that is ordinary
PATIENCE = 30.0  # seconds that the client is given to answer its parent


@dataclass(frozen=True, slots=True)
class Asked:
    """One request; `time.monotonic` seconds."""

    due: float
    sent: float
    answered: float

    @property
    def took(self) -> float:
        """Seconds until the answer."""
        return self.answered - self.due

    @property
    def lag(self) -> float:
        """Seconds of it until the request was sent."""
        return self.sent - self.due


@dataclass(slots=True)
class Offered:
    """What became of a stretch of requests."""

    asked: list[Asked] = field(default_factory=list)
    failed: int = 0
    real_time: bool = False

    def within(self, spans: list[tuple[float, float]]) -> list[Asked]:
        """Those that were due in one of the spans."""
        return [each for each in self.asked if any(begin <= each.due <= end for begin, end in spans)]


class Client:
    """The parent's side. Offers follow each other: `offer`, then `stop`."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def saturation(self, seconds: float) -> float:
        """Requests a second that are answered if a quarter of the connections are never idle; at ordinary priority.

        No more of them: a client that shares the server's cores cannot offer at leisure what all together get by force.
        """
        self._pipe.send(("saturate", seconds))
        rate: float = self._hear()
        return rate

    def offer(self, rate: float) -> None:
        """Begins to ask at that rate."""
        self._pipe.send(("offer", rate))

    def stop(self) -> Offered:
        """Ends it, when all that was asked is answered."""
        self._pipe.send(("stop", 0.0))
        offered: Offered = self._hear()
        return offered

    def _hear(self) -> Any:
        if not self._pipe.poll(PATIENCE):
            raise TimeoutError(f"the client says nothing for {PATIENCE:g} s")
        return self._pipe.recv()


@contextmanager
def client(port: int, request: bytes, expected: bytes, connections: int = 16) -> Iterator[Client]:
    """A client of the server at that port; `request` is what goes over the wire."""
    start = multiprocessing.get_context("spawn")
    ours, theirs = start.Pipe()
    process = start.Process(target=_run, args=(theirs, port, request, expected, connections), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Client(ours)
    finally:
        ours.close()
        process.join(5)
        if process.is_alive():
            process.kill()


class _Line:
    """A kept connection, and the request that is under way on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = self.sent = 0.0
        self._text = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, request: bytes, due: float) -> None:
        self.due, self.sent, self._text = due, time.monotonic(), b""
        self.socket.sendall(request)

    def answer(self) -> bytes | None:
        """The whole answer, once it is there; empty if the connection is gone."""
        part = self.socket.recv(65536)
        if not part:
            return b""
        self._text += part
        head, end, body = self._text.partition(b"\r\n\r\n")
        if not end:
            return None
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        return self._text if len(body) >= int(length or 0) else None


def _run(pipe: Pipe, port: int, request: bytes, expected: bytes, connections: int) -> None:
    gc.disable()
    lines = [_Line(port) for _ in range(connections)]
    with suppress(EOFError):
        while True:
            what, value = pipe.recv()
            if what == "saturate":
                offered = _ask(lines[::4], request, expected, 0.0, None, time.monotonic() + value)
                pipe.send(len(offered.asked) / value)
            elif what == "offer":
                real_time = _prefer(os.SCHED_FIFO, REAL_TIME)
                offered = _ask(lines, request, expected, 1 / value, pipe, float("inf"))
                offered.real_time = real_time
                _prefer(os.SCHED_OTHER, 0)
                pipe.recv()
                pipe.send(offered)


def _prefer(policy: int, priority: int) -> bool:
    try:
        os.sched_setscheduler(0, policy, os.sched_param(priority))
    except OSError:
        return False
    return True


def _ask(
    lines: list[_Line], request: bytes, expected: bytes, interval: float, pipe: Pipe | None, end: float
) -> Offered:
    """Asks every `interval` seconds, 0: as soon as a line is free; until `end`, or word from the pipe."""
    offered, busy = Offered(), dict[int, _Line]()
    idle = deque(lines)  # in turn: the server closes what is idle for long
    word = [] if pipe is None else [pipe.fileno()]
    due, over = time.monotonic(), False
    while True:
        now = time.monotonic()
        over = over or now >= end
        if over and not busy:
            return offered
        while idle and not over and due <= now:
            line = idle.popleft()
            line.send(request, due if interval else now)
            busy[line.fileno()] = line
            due += interval
        wait = max(0.0, due - time.monotonic()) if idle and not over else PATIENCE
        for ready in select.select([*busy, *word], (), (), min(wait, PATIENCE))[0]:
            if ready not in busy:
                over, word = True, []
                continue
            line = busy[ready]
            text = line.answer()
            if text is None:
                continue
            offered.asked.append(Asked(line.due, line.sent, time.monotonic()))
            if not text.startswith(b"HTTP/1.1 200") or expected not in text:
                offered.failed += 1
            del busy[ready]
            if text:
                idle.append(line)
        if not busy and not idle:
            raise ConnectionError("the server closed all connections")
