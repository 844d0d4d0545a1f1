"""The store broken on purpose while a fleet asks it: who waits, what is admitted, how soon all is well (`make chaos`).

    python -m loadtests.chaos_store [--only kill,stop,slow,failover,clock,busy] [--check]

Four workers of four gateways (the gateway's own Limiter, store connection and fleet, without HTTP) ask one key at
500/s each, open loop, five times of what it allows. Then the store is

* **kill**: killed, and started again empty after four seconds;
* **stop**: stopped (SIGSTOP) and continued;
* **slow**: 200 ms away, through a proxy, and near again;
* **failover**: killed as a master that three sentinels watch over; a replica takes over;
* **clock**: given another time of day (libfaketime): an hour ahead, then two hours back;
* **busy**: well, but on a busy host: four processes for each core do nothing but compute. What a worker then takes for
  a late store is often itself, so no connection may be given up for it, and nothing be admitted beyond the bucket.

Held to: nobody waits more than 30 ms, and after the first second nobody waits at all; what the workers admit by
themselves is at most 1.1 times of what the bucket held and gained; a second after the store is there everything is
shared. And the recorded history: with each decision comes the store's own time (the level of a bucket that gains a
token a microsecond), so all decisions are put into the order in which the store made them and checked one by one
against a sequential bucket. A question whose answer was lost may have taken a token; no token may come from nowhere.
"""

from __future__ import annotations

import argparse
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from gateway.processes import die_with_parent
from loadtests.bars import Bar, report
from loadtests.far import Far
from loadtests.history import Asked, check_history, heard
from loadtests.limit_worker import Task, Told
from loadtests.limiting import Team
from loadtests.load.report import aligned
from loadtests.peers.processes import NotUp, free_ports
from loadtests.peers.programs import find_valkey
from loadtests.peers.valkeys import PLAIN, Server, Watched

WORKERS = 4
RATE, BURST, OFFERED = 400.0, 200.0, 500.0
BEFORE, BROKEN, AFTER = 3.0, 4.0, 3.0  # seconds
HOGS = 4  # for each core
GRACE = 0.03  # seconds of work already under way when something changes
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
CLOCK_KEY = b"bench:clock:{*}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """`forgets`: what was there before the break may be gone afterwards. `back`: when the store was there again."""

    name: str
    broke: float
    back: float
    asked: list[Asked]
    forgets: bool
    told: list[Told]


def set_clock(client: redis.Redis) -> None:
    """Starts the bucket whose level is the store's time."""
    seconds, micros = client.time()
    client.set(CLOCK_KEY, struct.pack("<dd", 0.0, seconds * 1_000_000 + micros))


@contextmanager
def plain(folder: Path) -> Iterator[Server]:
    """One server."""
    server = Server(folder / "store", free_ports(1)[0], PLAIN)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def asking(
    port: int, do: Callable[[], tuple[float, float]], client: redis.Redis, **how: object
) -> tuple[float, float, list[Told]]:
    """The team asks; `do` breaks and repairs and says when. Returns that and what was told."""
    seconds = BEFORE + BROKEN + AFTER
    tasks = [
        Task(i, port, 1, RATE, BURST, seconds, per_second=OFFERED, gateway=f"g{i}", record=True, **how)  # type: ignore[arg-type]
        for i in range(WORKERS)
    ]
    team = Team(tasks, sources=False)
    try:
        time.sleep(1.5)  # until they have heard of each other
        set_clock(client)
        team.begin()
        time.sleep(BEFORE)
        broke, back = do()
        return broke, back, team.end()
    finally:
        team.stop()


def kill(folder: Path) -> Scenario:
    with plain(folder) as server:

        def do() -> tuple[float, float]:
            broke = time.monotonic()
            server.kill()
            time.sleep(BROKEN)
            back = time.monotonic()
            server.start()
            set_clock(server.client)
            return broke, back

        broke, back, found = asking(server.port, do, server.client)
    # The clock began anew. Before that workers told theirs, which are not the store's.
    asked = [one for one in heard(found) if one.before <= back or one.alone or one.clock < BROKEN * 1e6]
    return Scenario("kill", broke, back, asked, True, found)


def stop(folder: Path) -> Scenario:
    with plain(folder) as server:

        def do() -> tuple[float, float]:
            broke = time.monotonic()
            server.signal(signal.SIGSTOP)
            time.sleep(BROKEN)
            back = time.monotonic()
            server.signal(signal.SIGCONT)
            return broke, back

        broke, back, found = asking(server.port, do, server.client)
    return Scenario("stop", broke, back, heard(found), False, found)


def slow(folder: Path) -> Scenario:
    with plain(folder) as server:
        far = Far(server.port)

        def do() -> tuple[float, float]:
            broke = time.monotonic()
            far.delay = 0.2
            time.sleep(BROKEN)
            back = time.monotonic()
            far.delay = 0.0
            return broke, back

        try:
            broke, back, found = asking(far.port, do, server.client)
        finally:
            far.close()
    return Scenario("slow", broke, back, heard(found), False, found)


def failover(folder: Path) -> Scenario:
    watched = Watched(folder)
    try:
        old = watched.master()
        other = next(server for server in watched.servers if server is not old)

        def do() -> tuple[float, float]:
            broke = time.monotonic()
            old.kill()
            # There is a master again when Sentinel names it; our part is what follows.
            # Of a look that found it still gone we know when it began; a worker may see the next one before us.
            back = looked = broke
            while not any(watched.named(sentinel) == other.port for sentinel in watched.sentinels):
                back = looked
                time.sleep(0.01)
                looked = time.monotonic()
            time.sleep(max(0.0, broke + BROKEN - time.monotonic()))
            return broke, back

        broke, back, found = asking(0, do, old.client, sentinels=tuple(s.port for s in watched.sentinels))
    finally:
        watched.close()
    return Scenario("failover", broke, back, heard(found), True, found)


def clock(folder: Path) -> Scenario:
    if not FAKETIME.exists():
        raise NotUp("libfaketime is needed: run `make bench-peers`")
    offset = folder / "offset"
    offset.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1",
    }  # fmt: skip
    server = Server(folder / "store", free_ports(1)[0], PLAIN, environment)
    server.start()
    try:

        def jump(to: str) -> None:
            new = folder / "new"
            new.write_text(to)
            new.replace(offset)

        def do() -> tuple[float, float]:
            broke = time.monotonic()
            jump("+3600")
            time.sleep(BROKEN / 2)
            assert server.client.time()[0] > time.time() + 3000, "the clock did not jump"
            jump("-3600")
            time.sleep(BROKEN / 2)
            assert server.client.time()[0] < time.time() - 3000, "the clock did not jump back"
            return broke, broke

        broke, _, found = asking(server.port, do, server.client)
    finally:
        server.kill()
    return Scenario("clock", broke, broke, heard(found), False, found)


def busy(folder: Path) -> Scenario:
    hog = "import time\nend = time.monotonic() + 30\nwhile time.monotonic() < end: pass"
    with plain(folder) as server:

        def do() -> tuple[float, float]:
            broke = time.monotonic()
            hogs = [
                subprocess.Popen([sys.executable, "-c", hog], preexec_fn=die_with_parent)
                for _ in range(HOGS * (os.cpu_count() or 1))
            ]
            try:
                time.sleep(BROKEN)
            finally:
                for each in hogs:
                    each.kill()
                    each.wait()
            return broke, broke

        broke, _, found = asking(server.port, do, server.client)
    return Scenario("busy", broke, broke, heard(found), False, found)


SCENARIOS: dict[str, Callable[[Path], Scenario]] = {
    "kill": kill, "stop": stop, "slow": slow, "failover": failover, "clock": clock, "busy": busy,
}  # fmt: skip


def longest_wait(asked: Sequence[Asked], after: float, until: float) -> float:
    """Milliseconds the longest wait lasted of those that were asked in this time."""
    return max((one.waited * 1e3 for one in asked if after <= one.before < until), default=0.0)


def judge(ran: Scenario) -> tuple[list[Bar], tuple[str, ...]]:
    """The bars of one scenario and its row in the table."""
    asked, name = ran.asked, ran.name
    end = max(one.after for one in asked)
    found = []
    if name == "busy":
        found.append(Bar("busy: connections to the store given up", 0, sum(told.losses for told in ran.told)))
    elif name != "clock":
        found.append(Bar(f"{name}: longest wait", 30, longest_wait(asked, ran.broke - GRACE, ran.back), unit=" ms"))
        later = sum(one.asked for one in asked if ran.broke + 1 <= one.before < ran.back)
        found.append(Bar(f"{name}: that waited for it after the first second", 0, later))
        lone = [one for one in asked if one.alone]
        first, last = min(one.before for one in lone), max(one.after for one in lone)
        held = [one.level for one in asked if not one.alone and first - 0.1 < one.after <= first + GRACE]
        allowed = min(held, default=BURST) + RATE * (last - first)
        found.append(Bar(f"{name}: admitted alone, of what was allowed", 1.1, sum(o.allowed for o in lone) / allowed))
        shared = max(
            min((o.after for o in asked if o.worker == w and not o.alone and o.before > ran.back), default=end)
            for w in range(WORKERS)
        )
        found.append(Bar(f"{name}: until shared again", 1, shared - ran.back, unit=" s"))
        alone_late = sum(one.alone for one in asked if one.before > ran.back + 1)
        found.append(Bar(f"{name}: decided alone a second after the store was there", 0, alone_late))
    answered = [one for one in asked if not one.alone and one.clock < 1e15]
    eras = [answered]
    if ran.forgets:
        eras = [
            [o for o in answered if o.after <= ran.broke + GRACE],
            [o for o in answered if o.before > ran.broke + GRACE],
        ]
    refunded = sum(told.refunded for told in ran.told)
    checks = [check_history(era, RATE, BURST, refunded) for era in eras]
    violations = [each for one in checks for each in one.violations]
    for each in violations[:5]:
        print(f"{name}: {each}", file=sys.stderr)
    lost = sum(one.alone and one.asked for one in asked)
    unobserved = sum(one.unobserved for one in checks)
    found.append(Bar(f"{name}: decisions that no sequential bucket makes", 0, len(violations)))
    paid = sum(one.alone and one.allowed and not one.asked for one in asked)  # at most: what was charged afterwards
    beyond = max(0, unobserved - lost - paid)
    found.append(Bar(f"{name}: takes nobody heard of, beyond lost answers and what was charged", 0, beyond))
    jumps = 1 if name == "clock" else 0  # a clock that goes ahead fills every bucket once
    total = sum(one.allowed for one in asked)
    most = BURST * (1 + jumps) + RATE * (end - min(one.before for one in asked))
    bar = 1.01 if name == "busy" else 1.1
    found.append(Bar(f"{name}: admitted over all, of burst + rate x T", bar, total / most))
    members = min(told.members for told in ran.told)
    row = (
        name, f"{len(asked):,}", f"{total:,}", f"{total / most:.3f}", f"{sum(o.alone for o in asked):,}", str(lost),
        f"{sum(one.decisions for one in checks):,}", str(unobserved), str(members),
    )  # fmt: skip
    return found, row


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.chaos_store", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default=",".join(SCENARIOS), help="(default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if a bar is missed")
    options = parser.parse_args(argv)
    names = options.only.split(",")
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no such scenario: {unknown[0]}")
    if not find_valkey():
        print("chaos_store: Valkey (or Redis) is needed", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    bars: list[Bar] = []
    rows = [("", "asked", "admitted", "of allowed", "alone", "lost", "checked", "unobserved", "workers")]
    try:
        for name in names:
            with tempfile.TemporaryDirectory(prefix="chaos-store-") as folder:
                found, row = judge(SCENARIOS[name](Path(folder)))
            bars += found
            rows.append(row)  # type: ignore[arg-type]
    except (NotUp, OSError, redis.RedisError) as error:
        print(f"chaos_store: {error}", file=sys.stderr)
        return 1
    print("\n".join(aligned(rows)))
    return report(bars, check=options.check)


if __name__ == "__main__":
    sys.exit(main())
