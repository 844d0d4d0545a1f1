"""One measurement of one peer, and the proof beforehand that the peer does what it says.

Contract: CPU is read from /proc just before and after a `wrk` run, so it also holds what the peer does in the
background, as it should. Its resolution is a clock tick (10 ms), under 1 % of a run of 3 s.
"""

from __future__ import annotations

import http.client
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.peers.backing import ANSWER, Echo, Origin, Store
from loadtests.peers.base import Peer
from loadtests.peers.processes import NotUp, cpu_seconds, machine_seconds, tree
from loadtests.wrk import Scenario, run

PROOF_REQUESTS = 20

# Cores that may be busy with something else before a round is called disturbed, and how often such a round is taken.
QUIET = 0.1
TRIES = 3

Backing = tuple[Store, *tuple[Origin | Echo, ...]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """A round. Microseconds of CPU per request by role; `store` is there for peers that ask it."""

    cpu_us: dict[str, float]
    requests_per_second: float
    store_commands: float
    p50_us: int
    p99_us: int
    others: float = 0.0
    """Cores that were busy with something else, or that the machine's host withheld."""

    @property
    def proxy_us(self) -> float:
        """The peer's own processes."""
        return self.cpu_us["proxy"]

    @property
    def limiting_us(self) -> float:
        """The peer and what it needs to decide, a rate limit service for instance; without the store."""
        return sum(value for role, value in self.cpu_us.items() if role not in ("store", "supervisor"))


@dataclass(slots=True)
class Measured:
    """All rounds of a peer in a scenario."""

    peer: str
    scenario: str
    rounds: list[Measurement] = field(default_factory=list)

    def median(self, what: Callable[[Measurement], float]) -> float:
        """Median over the rounds."""
        return statistics.median(what(each) for each in self.rounds)


def prove(peer: Peer, port: int, store: Store, headers: Mapping[str, str]) -> None:
    """Ask a few times: 200, the origin's answer, and the store asked if it limits. ``NotUp`` says what is wrong."""
    before = store.commands()
    for i in range(PROOF_REQUESTS):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("POST", f"/proof/{i}", body=b"x" * 3000, headers=dict(headers))
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotUp(f"{peer.name} does not answer: {error!r}") from error
        finally:
            connection.close()
        if response.status != 200 or body != ANSWER:
            raise NotUp(f"{peer.name} answers {response.status} {body[:200]!r} instead of the origin's answer")
    asked = store.commands() - before
    if peer.limits and asked < PROOF_REQUESTS:
        raise NotUp(f"{peer.name} asked the store {asked} times about {PROOF_REQUESTS} requests")


def take_quiet(
    peer: Peer, port: int, scenario: Scenario, script: Path, backing: Backing, connections: int, seconds: float
) -> Measurement:
    """One round; taken up to ``TRIES`` times while something else was busy, and the quietest is the answer."""
    taken: list[Measurement] = []
    while len(taken) < TRIES and not (taken and taken[-1].others <= QUIET):
        taken.append(take(peer, port, scenario, script, backing, connections, seconds))
    return min(taken, key=lambda one: one.others)


def take(
    peer: Peer, port: int, scenario: Scenario, script: Path, backing: Backing, connections: int, seconds: float
) -> Measurement:
    """One round."""
    store, *origins = backing
    roles = peer.roles() | ({"store": [store.process.pid]} if peer.limits else {})
    everything = [pid for pids in roles.values() for pid in pids]
    everything += [pid for origin in origins for pid in tree(origin.process.pid)]
    commands = store.commands()
    machine = sum(machine_seconds())
    known = sum(map(cpu_seconds, everything)) + _own_seconds()
    before = {role: sum(map(cpu_seconds, pids)) for role, pids in roles.items()}
    done = run(port, scenario.path, script, connections=connections, seconds=seconds)
    used = {role: sum(map(cpu_seconds, pids)) - before[role] for role, pids in roles.items()}
    known = sum(map(cpu_seconds, everything)) + _own_seconds() - known
    machine = sum(machine_seconds()) - machine
    return Measurement(
        cpu_us={role: value / done.requests * 1e6 for role, value in used.items()},
        requests_per_second=done.requests / done.seconds,
        store_commands=(store.commands() - commands) / done.requests,
        p50_us=done.p50,
        p99_us=done.p99,
        others=max(0.0, machine - known) / done.seconds,
    )


def _own_seconds() -> float:
    """CPU of this process and of the children it has waited for, `wrk` above all."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
