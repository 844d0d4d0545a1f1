"""Plays the corpus against running processes and says what went wrong, one line for each entry."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import re
from collections.abc import Sequence

from tests.conformance.case import Case
from tests.conformance.origin import Origin, Seen, Step, echo
from tests.conformance.responses import Answer
from tests.conformance.wire import Client, canary

#: What a lenient reader may take for one request and then another: bare LF (RFC 9112 section 2.2), ignored chunk
#: extensions and trailers, a longer request line than ours.
LENIENT = frozenset(
    (
        "line-ends", "chunk-size", "chunk-ends", "chunk-extensions", "trailers",
        "TE.TE/bare LF in front", "Content-Length/bare LF behind", "pipelining/too long second",
    )
)  # fmt: skip

_ENDED = (asyncio.IncompleteReadError, ConnectionError)


def masked(raw: bytes) -> bytes:
    """A forwarded request without what differs each time."""
    return re.sub(rb"(\r\n(?:x-request-(?:id|timeout)|via): )[^\r]*", rb"\1*", raw)


class RequestRun:
    """The corpus of requests, one after another: what the origin sees in between is that entry's doing."""

    def __init__(self, origin: Origin, port: int) -> None:
        self.origin = origin
        self.port = port
        self._numbers = itertools.count()
        self.claims: list[tuple[str, int, int]] = []  # entry, the client's port, requests that the origin saw

    async def strictly(self, case: Case) -> str:
        """Straight at the gateway: the answers, the closing and the forwarded bytes are exactly as written."""
        first, faults = len(self.origin.seen), len(self.origin.faults)
        try:
            async with await Client.connect(self.port) as client:
                client.send(case.raw)
                for at, status in enumerate(case.answers):
                    once = case.forwards[at] if at < len(case.forwards) else None
                    reply = await client.reply(head_only=once is not None and once.line.startswith(b"HEAD "))
                    assert reply.status == status, f"answer {at} is {reply}"
                    if once is None:
                        assert b"application/problem+json" in reply.raw, reply.raw
                if case.closes:
                    rest = await client.rest()
                    assert not rest, f"more came: {rest!r}"
                else:
                    await canary(client, next(self._numbers))
            if case.closes:
                await self._fresh_canary()
            seen = self.origin.seen[first:]
            assert seen, "the canary was not seen"
            wanted = [once.wire().replace(b"ORIGIN", b"127.0.0.1:%d" % self.origin.port) for once in case.forwards]
            assert [masked(each.raw) for each in seen[:-1]] == wanted, f"forwarded: {seen[:-1]}"
            self._nothing_smuggled(seen, len(case.forwards))
            assert len(self.origin.faults) == faults, self.origin.faults[faults:]
        except (AssertionError, TimeoutError, *_ENDED) as error:
            return f"{case.id}: {type(error).__name__} {str(error)[:500]}"
        return ""

    async def half(self, case: Case) -> str:
        """A request that is not whole: 408 at the deadline, and the end of the connection."""
        try:
            async with await Client.connect(self.port) as client:
                client.send(case.raw)
                reply = await client.reply()
                assert reply.status == 408, reply
                assert not await client.rest()
        except (AssertionError, TimeoutError, *_ENDED) as error:
            return f"{case.id}: {type(error).__name__} {str(error)[:500]}"
        return ""

    async def loosely(self, case: Case) -> str:
        """Through whatever stands in front, which may read and answer as it likes.

        The origin never sees more requests than were sent; where the entry turns on what RFC 9112 leaves to the
        receiver, no more than the one in front says it passed on: see `passed_on`.
        """
        first, faults = len(self.origin.seen), len(self.origin.faults)
        try:
            async with await Client.connect(self.port, patience=0.25) as client:
                local = client.writer.get_extra_info("sockname")[1]
                client.send(case.raw)
                with contextlib.suppress(TimeoutError, *_ENDED):
                    for at in range(max(case.sends, 1)):
                        line = case.forwards[at].line if at < len(case.forwards) else b""
                        await client.reply(head_only=line.startswith(b"HEAD "))
            await self._fresh_canary()
            seen = self.origin.seen[first:]
            if case.family in LENIENT or case.id in LENIENT:
                self.claims.append((case.id, local, len(seen) - 1))
            else:
                self._nothing_smuggled(seen, case.sends)
            assert len(self.origin.faults) == faults, self.origin.faults[faults:]
        except (AssertionError, TimeoutError, *_ENDED) as error:
            return f"{case.id}: {type(error).__name__} {str(error)[:500]}"
        return ""

    def passed_on(self, access_log: str) -> list[str]:
        """The entries of which the origin saw more than the front's log (port, whom it asked) says it passed on."""
        passed = collections.Counter(
            int(port) for port, upstream in (line.split(" ", 1) for line in access_log.splitlines()) if upstream != "-"
        )
        return [
            f"{name}: {seen} seen, {passed[port]} passed on" for name, port, seen in self.claims if seen > passed[port]
        ]

    async def _fresh_canary(self) -> None:
        async with await Client.connect(self.port) as client:
            await canary(client, next(self._numbers))

    @staticmethod
    def _nothing_smuggled(seen: Sequence[Seen], most: int) -> None:
        others = [each for each in seen if not each.target.startswith(b"/canary/")]
        assert len(others) <= most, f"{len(others)} requests seen where {most} were sent: {others}"
        assert not any(each.target.startswith(b"/smuggled") for each in others), others
        assert len(seen) == len(others) + 1, f"canaries: {seen}"


class ResponseRun:
    """The corpus of answers; entries are known by their path, so all may run at once."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = answers
        self._turns = asyncio.Semaphore(32)

    def script(self, seen: Seen) -> Sequence[Step]:
        """What the origin does: the entry that the path names, else the echo."""
        match = re.fullmatch(rb"/case/([0-9]+)", seen.target)
        return echo(seen) if match is None else self.answers[int(match[1])].says

    async def play(self, origin: Origin, port: int, number: int) -> str:
        async with self._turns:
            return await self._play(origin, port, number)

    async def _play(self, origin: Origin, port: int, number: int) -> str:
        """One entry; then two canaries, one at once and one a little later, which must get answers of their own."""
        case = self.answers[number]
        target = b"/case/%d" % number
        first = len(origin.seen)  # it may have been played before
        body = b"content-length: 3000\r\n\r\n" + b"x" * 3000 if case.method == b"POST" else b"\r\n"
        try:
            async with await Client.connect(port) as client:
                client.send(case.method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n" + body)
                reply = await client.reply(head_only=case.method == b"HEAD")
                assert reply.status == case.status, reply
                if case.body is not None:
                    assert reply.body == case.body, reply
                assert b"evil" not in (reply.raw + reply.body).lower(), reply
                if case.reused is not None:  # else what comes late is meant to meet an idle connection
                    await canary(client, number)
                await asyncio.sleep(0.06)
                await canary(client, number)
            seen = [each for each in origin.seen[first:] if each.target == target]
            # A GET whose kept connection ends before a byte of the answer is sent once more, on a new one.
            most = 2 if case.says == (None,) else 1
            assert 1 <= len(seen) <= most, f"asked {len(seen)} times"
            behind = [each for each in origin.seen if each.connection == seen[0].connection]
            behind = behind[behind.index(seen[0]) + 1 :]
            if case.reused is False:
                assert not behind, f"reused for {behind}"
        except (AssertionError, TimeoutError, *_ENDED) as error:
            return f"{case.id}: {type(error).__name__} {str(error)[:500]}"
        return ""
