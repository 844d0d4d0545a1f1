"""The story: the real chain under steady load, broken on purpose in ten ways. `make story`, and one integration test.

Each chapter does something to the running system, looks at what both clients saw meanwhile, and says so in one line.
A chapter fails when what it saw is not what the README promises; the story goes on and the exit status is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.stack import Stack, StackError
from demo.story_config import BURST, RATE, StoryConfig
from demo.story_load import STEADY, Answers, Asked, ask, clients, unseen
from loadtests.load import Load, Outcome, Summary


@dataclass
class Chapter:
    """What happened, and the promises it broke (none: it went as told)."""

    number: int
    title: str
    facts: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def expect(self, holds: bool, promise: str) -> None:
        """Notes a promise that did not hold."""
        if not holds:
            self.broken.append(promise)

    def __str__(self) -> str:
        mark = "ok " if not self.broken else "BAD"
        lines = [f"({self.number:>2}) {mark} {self.title}: {'; '.join(self.facts)}"]
        return "\n".join(lines + [f"         broken promise: {each}" for each in self.broken])


class Story:
    """Runs the chapters in order; `say` gets each as it ends."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.config = StoryConfig(folder)
        self.stack = Stack(
            self.config.servers, self.config.path, folder / "logs", self.config.gateway_port, self.config.admin_port
        )
        self.say = say
        self.answers = Answers()
        self.chapters: list[Chapter] = []
        self.load: Load
        self.normal_p99 = 0.0
        self._unseen = 0

    async def tell(self) -> list[Chapter]:
        """The chapters, each with what it found."""
        people, self.held_out = clients(self.answers)
        await asyncio.to_thread(self.stack.start)
        try:
            async with Load("127.0.0.1", self.config.gateway_port, people, max_seconds=180, patience=3) as self.load:
                chapters: list[tuple[str, Callable[[Chapter], Awaitable[None]]]] = [
                    ("right answers, split 3:1", self._right_and_split),
                    ("kill -9 one backend", self._one_killed),
                    ("kill -9 the other", self._both_killed),
                    ("kill -9 the small model too", self._all_killed),
                    ("start all again", self._all_again),
                    ("alice floods at 20x her limit", self._flood),
                    ("stop the store", self._store_gone),
                    ("SIGHUP with new weights", self._reload),
                    ("SIGHUP with a broken file", self._broken_reload),
                    ("SIGTERM under load", self._drain),
                ]
                for number, (title, run) in enumerate(chapters, 1):
                    chapter = Chapter(number, title)
                    self.chapters.append(chapter)
                    self.load.mark(title)
                    await run(chapter)
                    if number < len(chapters):  # the last one is judged when every request has ended
                        self.say(str(chapter))
            self._judge_drain(self.chapters[-1])
            self.say(str(self.chapters[-1]))
        finally:
            await asyncio.to_thread(self.stack.stop)
        return self.chapters

    # -- chapters -----------------------------------------------------------------------------------------------

    async def _right_and_split(self, chapter: Chapter) -> None:
        before = await self._served()
        await asyncio.sleep(9.5)  # all held-out digits once
        seen = self.load.summary(phase=chapter.title)
        share = await self._share(before)
        accuracy = self.answers.accuracy()
        self.normal_p99 = seen.p99
        chapter.facts = [
            f"{accuracy:.1%} of {self.answers.total} right (held out {self.held_out:.1%})",
            f"split {share:.2f} : 1",
            f"p99 {seen.p99 * 1e3:.1f} ms",
        ]
        _no_errors(chapter, seen)
        chapter.expect(accuracy >= self.held_out - 0.01, "accuracy as held out")
        chapter.expect(2.7 <= share <= 3.3, "shares follow the weights 3:1")
        chapter.expect(not self.answers.right.keys() - {"fresh"}, "nothing degraded while all is well")

    async def _one_killed(self, chapter: Chapter) -> None:
        self.stack.servers["digits-a"].kill()
        await asyncio.sleep(3)
        seen = self.load.summary(phase=chapter.title)
        chapter.facts = [
            f"{seen.answered} answers",
            f"{seen.failed} failed",
            f"slowest {seen.max_latency * 1e3:.0f} ms",
        ]
        _no_errors(chapter, seen)

    async def _both_killed(self, chapter: Chapter) -> None:
        self.stack.servers["digits-b"].kill()
        await asyncio.sleep(3)
        known = await self._ask("/classify", unseen(0)[:-1])
        fresh = await self._ask_unseen()
        seen = self.load.summary(phase=chapter.title)
        marks = seen.labels.get("degraded", {})
        stale = sum(count for mark, count in marks.items() if mark.startswith("stale"))
        small = sum(count for mark, count in marks.items() if mark.startswith("fallback"))
        chapter.facts = [
            f"{seen.answered} answers, {stale} from cache, {small} from digits-small",
            f"{seen.failed} failed",
        ]
        _no_errors(chapter, seen)
        chapter.expect(
            known.headers.get("degraded", "").startswith("stale;age="), "a known picture is answered from cache"
        )
        chapter.expect(fresh.headers.get("degraded") == "fallback;pool=digits-small", "a new one by the small model")
        chapter.expect(fresh.status == 200 and json.loads(fresh.body)["model"] == "digits-small", "and says so")

    async def _all_killed(self, chapter: Chapter) -> None:
        self.stack.servers["digits-small"].kill()
        await asyncio.sleep(0.3)
        refusals = [await self._ask_unseen() for _ in range(20)]
        slowest = max(each.ms for each in refusals)
        chapter.facts = [
            f"20 new pictures: status {sorted({each.status for each in refusals})}",
            f"slowest {slowest:.1f} ms",
        ]
        chapter.expect(all(each.status == 503 for each in refusals), "503 for what nobody can answer")
        kinds = {each.headers.get("content-type") for each in refusals}
        chapter.expect(kinds == {"application/problem+json"}, "problem+json")
        chapter.expect(all(int(each.headers.get("retry-after", 0)) >= 1 for each in refusals), "with Retry-After")
        chapter.expect(slowest < 50, "in less than 50 ms")
        numbers = await self._ask("/v1/models/digits:predict", b'{"instances":[[1]]}')
        chapter.expect(
            numbers.status == 503 and "error" in json.loads(numbers.body), "TF-Serving's error shape on its paths"
        )

    async def _all_again(self, chapter: Chapter) -> None:
        for child in self.stack.servers.values():
            child.start()
        began = time.monotonic()
        while True:
            answer = await self._ask_unseen()
            took = time.monotonic() - began
            if (answer.status == 200 and "degraded" not in answer.headers) or took > 10:
                break
            await asyncio.sleep(0.02)
        for name in self.stack.servers:
            await asyncio.to_thread(self.stack.wait_server, name)
        await asyncio.sleep(2)
        after = self.load.summary(since=self.load.now - 1)
        degraded = sum(after.labels.get("degraded", {}).values())
        chapter.facts = [
            f"fresh after {took:.2f} s, counted from the start of the processes",
            f"{degraded} degraded afterwards",
        ]
        chapter.expect(took <= 3, "fresh answers within 3 s")
        chapter.expect(degraded == 0, "nothing degraded any more")

    async def _flood(self, chapter: Chapter) -> None:
        calm = self.load.summary("bob", since=self.load.now - 2)
        await asyncio.sleep(0.2)
        began = self.load.mark("flood")
        self.load.set_rate("alice", 20 * RATE)
        await asyncio.sleep(5)
        self.load.set_rate("alice", STEADY)
        ended = self.load.now
        await asyncio.sleep(0.5)
        alice = self.load.summary("alice", since=began, until=ended)
        bob = self.load.summary("bob", since=began, until=ended)
        admitted, refused = alice.statuses.get(200, 0), alice.statuses.get(429, 0)
        bucket = BURST + RATE * (ended - began)
        chapter.facts = [
            f"{admitted} admitted of a bucket of {bucket:.0f} ({admitted / bucket - 1:+.1%}), {refused} got 429",
            f"bob: {bob.offered - bob.statuses.get(200, 0)} errors, p50 {calm.p50 * 1e3:.1f} -> {bob.p50 * 1e3:.1f} ms",
        ]
        chapter.expect(abs(admitted / bucket - 1) <= 0.01, "admitted within 1 % of the bucket")
        chapter.expect(admitted + refused == alice.offered, "everything else is a 429")
        chapter.expect(bob.statuses == {200: bob.offered}, "bob sees no change: no error")
        chapter.expect(bob.p50 <= calm.p50 + 0.010, "bob sees no change: his median stays within 10 ms")

    async def _store_gone(self, chapter: Chapter) -> None:
        await asyncio.sleep(1.5)  # alice's bucket fills again
        self.load.set_rate("alice", 5 * RATE)
        await asyncio.sleep(2)  # and is empty, in the shared store
        calm = self.load.summary(since=self.load.now - 1)
        pid = (await self._status())["store"]["embedded_pid"]
        stopped = self.load.now
        _signal(pid, signal.SIGSTOP)
        await asyncio.sleep(2)
        local = [worker["store"] for worker in (await self._status())["workers"]]
        _signal(pid, signal.SIGKILL)
        killed = self.load.now
        back = 0.0
        while back < 10:
            if all(worker["store"] == "shared" for worker in (await self._status())["workers"]):
                break
            await asyncio.sleep(0.02)
            back = self.load.now - killed
        self.load.set_rate("alice", STEADY)
        await asyncio.sleep(0.5)
        switch = self.load.summary(since=stopped, until=stopped + 1)
        away = self.load.summary("alice", since=stopped, until=killed)
        admitted, share = away.statuses.get(200, 0), RATE * (killed - stopped)
        whole = self.load.summary(since=stopped, until=self.load.now - 0.5)
        chapter.facts = [
            f"{whole.failed} failed",
            f"p99 {calm.p99 * 1e3:.1f} -> {switch.p99 * 1e3:.1f} ms in the switch",
            f"alice admitted {admitted} of {share:.0f} while limits were {'/'.join(sorted(set(local)))}",
            f"shared again {back:.2f} s after the kill",
        ]
        chapter.expect(whole.failed == 0 and set(whole.statuses) <= {200, 429}, "answers continue")
        chapter.expect(switch.p99 <= calm.p99 + 0.050, "p99 during the switch at most 50 ms above normal")
        chapter.expect(set(local) == {"local"}, "limits are local while the store is away")
        chapter.expect(admitted <= 1.1 * share, "sum over workers at most 1.1x")
        chapter.expect(
            admitted >= 0.4 * share, "and a client whose connections all end in one worker keeps that worker's half"
        )
        chapter.expect(back <= 2, "shared again within 2 s")

    async def _reload(self, chapter: Chapter) -> None:
        await asyncio.sleep(1)
        generation = (await self._status())["generation"]
        self.config.write(self.config.weights(1, 3))
        _signal(self.stack.gateway.pid, signal.SIGHUP)
        while (await self._status())["generation"] == generation:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        before = await self._served()
        await asyncio.sleep(4)
        share = 1 / await self._share(before)
        seen = self.load.summary(phase=chapter.title)
        chapter.facts = [f"{seen.answered} answers, {seen.failed} failed", f"split 1 : {share:.2f}"]
        _no_errors(chapter, seen)
        chapter.expect(2.6 <= share <= 3.4, "the split follows the new weights 1:3")

    async def _broken_reload(self, chapter: Chapter) -> None:
        text, line = self.config.broken()
        self.config.write(text)
        generation = (await self._status())["generation"]
        _signal(self.stack.gateway.pid, signal.SIGHUP)
        refused: dict[str, Any] = {}
        for _ in range(200):
            refused = (await self._status())["last_reload"] or {}
            if refused and not refused["applied"]:
                break
            await asyncio.sleep(0.02)
        await asyncio.sleep(1)
        seen = self.load.summary(phase=chapter.title)
        complaint = re.search(rf"gateway\.yaml:{line}:\d+: error: .*", str(refused.get("error", "")))
        chapter.facts = [f"refused: {complaint[0] if complaint else refused}", f"{seen.failed} failed"]
        _no_errors(chapter, seen)
        chapter.expect(complaint is not None, "refused with file:line:col")
        chapter.expect((await self._status())["generation"] == generation, "the old configuration stays in force")

    async def _drain(self, chapter: Chapter) -> None:
        await asyncio.sleep(0.5)
        _signal(self.stack.gateway.pid, signal.SIGTERM)
        await asyncio.sleep(2.5)

    def _judge_drain(self, chapter: Chapter) -> None:
        """Once the listener is closed a new connection is refused: that is the end of the service, not a failure."""
        seen = self.load.summary(phase=chapter.title)
        refused = seen.outcomes.get(Outcome.CONNECT_REFUSED, 0)
        failed = seen.failed - refused
        status = self.stack.gateway.status
        chapter.facts = [
            f"{seen.answered} answers, {failed} failed",
            f"exit status {status}",
            f"{refused} came after the end",
        ]
        chapter.expect(failed == 0, f"no failed request: {dict(seen.outcomes)}")
        chapter.expect(set(seen.statuses) == {200}, "all of them answered with 200")
        chapter.expect(status == 0, "the gateway ends with status 0")

    # -- looking ------------------------------------------------------------------------------------------------

    async def _ask(self, path: str, body: bytes) -> Asked:
        return await asyncio.to_thread(ask, self.stack.base, path, body)

    async def _ask_unseen(self) -> Asked:
        self._unseen += 1
        return await self._ask("/classify", unseen(self._unseen))

    async def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(await asyncio.to_thread(_get, f"{self.stack.admin}/status"))
        return status

    async def _served(self) -> list[int]:
        """Requests each digits backend says it has answered: the backends' own count, not ours."""
        return [await asyncio.to_thread(_answered, self.stack.urls[name]) for name in ("digits-a", "digits-b")]

    async def _share(self, before: list[int]) -> float:
        first, second = (now - then for now, then in zip(await self._served(), before, strict=True))
        return first / max(second, 1)


def _no_errors(chapter: Chapter, seen: Summary) -> None:
    chapter.expect(seen.failed == 0, f"no client sees an error: {dict(seen.outcomes)}")
    chapter.expect(set(seen.statuses) == {200}, f"every status is 200: {dict(seen.statuses)}")


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def _answered(url: str) -> int:
    pattern = r'^go_infer_requests_total\{endpoint="(?:predict|classify)",code="200"\} (\d+)'
    return sum(int(count) for count in re.findall(pattern, _get(f"{url}/metrics"), re.MULTILINE))


def _signal(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)


def main() -> int:
    """Tells the story on the terminal."""
    with tempfile.TemporaryDirectory(prefix="sluicegate-story-") as folder:
        try:
            chapters = asyncio.run(Story(Path(folder), lambda line: print(line, flush=True)).tell())
        except StackError as error:
            print(f"story: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    broken = sum(bool(chapter.broken) for chapter in chapters)
    print(f"{len(chapters) - broken} of {len(chapters)} chapters went as told")
    return 1 if broken else 0


if __name__ == "__main__":
    about = "Start the demo on ports of its own, put it under load, break it in ten ways and say what clients saw."
    argparse.ArgumentParser(prog="python -m demo.story", description=about).parse_args()
    sys.exit(main())
