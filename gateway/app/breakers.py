"""A worker's breakers as a whole: what time, the fleet, the operator and the outlier detection do to them, and what is
shown of them. The gates themselves know none of these.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.app.series import BreakerCells, breaker_cells, panic_cell
from gateway.breakers.gate import FOREVER, STATES, Gate
from gateway.breakers.hints import Hints
from gateway.telemetry import names
from gateway.telemetry.cells import Catalogue, Metric
from gateway.upstreams.backend import Backend
from gateway.upstreams.pool import Pool
from gateway.upstreams.registry import BackendRegistry
from gateway.workers.control import Forced

SWEEP: Final = 0.05  # seconds between two looks at what is overdue
_SHOWN: Final = 20  # models that a status names for one backend

PublishOne = Callable[[Metric, int, int], None]


def place() -> bytes:
    """A name for this machine and network namespace: where loopback and unix sockets mean the same."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{machine} {Path('/proc/self/ns/net').readlink()}".encode()
    except OSError:
        return os.uname().nodename.encode()


class Breakers:
    """One per worker. `tell` sends a hint to the fleet."""

    def __init__(self, registry: BackendRegistry, tell: Callable[[bytes], None]) -> None:
        self._registry = registry
        self._tell = tell
        self._forced: Mapping[str, Forced] = {}
        self._ejected: Collection[str] = frozenset()
        self.hints = Hints(place())

    # -- what is done to them -----------------------------------------------------------------------------------

    def adopt(self) -> None:
        """After a snapshot: new backends get what the others have."""
        now = time.monotonic_ns()
        for backend in self._registry.all():
            backend.on_trip = self._tripped
            how, until = self._forced.get(backend.key, ("", FOREVER))
            backend.force(how if now < until else "", now, until)
            backend.eject(out=backend.key in self._ejected, now=now)

    def force(self, forced: Mapping[str, Forced]) -> None:
        """The operator's word, by backend key; who is not named is left to its own rule."""
        self._forced = forced
        self.adopt()

    def eject(self, ejected: Collection[str]) -> None:
        """The outlier detection's verdict: the keys of all that are out."""
        self._ejected = ejected
        self.adopt()

    def heard(self, message: bytes) -> None:
        """A hint of another worker."""
        now = time.monotonic_ns()
        hint = self.hints.hear(message, self._registry.keys(), now)
        backend = self._registry.get(hint.backend) if hint is not None else None
        if hint is not None and backend is not None:
            backend.hint_failing(hint.model, now)

    def _tripped(self, backend: Backend, model: bytes, now: int) -> None:
        message = self.hints.tell(backend.key, model, now)
        if message is not None:
            self._tell(message)

    async def watch(self) -> None:
        """Sweeps all gates for as long as the worker lives."""
        while True:
            await asyncio.sleep(SWEEP)
            now = time.monotonic_ns()
            for backend in self._registry.all():
                backend.gate.sweep(now)
                if backend.models is not None:
                    for each in backend.models.all().values():
                        each.inner.sweep(now)

    # -- what is shown of them ----------------------------------------------------------------------------------

    def publish(self, values: memoryview, catalogue: Catalogue, pools: Iterable[Pool], one: PublishOne) -> None:
        """Sets the cells of all pools; `one` is for counters, which go on from a predecessor's."""
        now = time.monotonic_ns()
        for pool in pools:
            values[panic_cell(catalogue, pool.name)] = int(pool.usable.level > 0)
            for backend in pool.backends:
                _publish(values, breaker_cells(catalogue, pool.name, backend.name), backend, now, one)

    def status(self, backend: Backend) -> dict[str, Any]:
        """What an operator wants to know of one backend's breakers."""
        gate = backend.gate
        about: dict[str, Any] = {
            "breaker": gate.state,
            "forced": gate.forced or None,
            "trips": gate.trips,
            "tripped": {event: count for event, count in gate.tripped.items() if count},
            "doubted": {event: count for event, count in gate.doubted.items() if count},
            "window": _window(gate),
            "history": [{"event": event, "at_ns": at} for at, event in gate.history],
            "ejected": backend.ejected,
        }
        if backend.models is not None:
            troubled = [(name, each.inner) for name, each in backend.models.all().items() if not each.inner.pristine]
            about["models"] = {
                "gates": len(backend.models.all()),
                "crowded": backend.models.crowded,
                "troubled": {
                    name.decode("latin-1"): {"breaker": each.state, "trips": each.trips, "window": _window(each)}
                    for name, each in troubled[:_SHOWN]
                },
            }
        return about


def _window(gate: Gate) -> dict[str, int]:
    gate.window.expire(time.monotonic_ns())
    window = gate.window
    return {"calls": window.calls, "failures": window.failures, "slow": window.slow, "dropped": gate.dropped}


def _publish(values: memoryview, cells: BreakerCells, backend: Backend, now: int, one: PublishOne) -> None:
    """The states are of the backend's own gate; trips, doubts and windows of that and of its models' together."""
    gates = [gate for _, gate in backend.gates()]
    own = gates[0]
    for state, cell in zip(STATES, cells.states, strict=True):
        values[cell] = int(own.state == state)
    for event, cell in cells.trips:
        one(names.BREAKER_TRIPS, cell, sum(gate.tripped[event] for gate in gates) + backend.forgotten(event))
    for event, cell in cells.doubts:
        one(names.BREAKER_DOUBTS, cell, sum(gate.doubted[event] for gate in gates) + backend.forgotten(event))
    for how, cell in cells.forced:
        values[cell] = int(own.forced == how)
    for gate in gates:
        gate.window.expire(now)
    for cell, count in zip(
        cells.window,
        (
            sum(gate.window.calls for gate in gates),
            sum(gate.window.failures for gate in gates),
            sum(gate.window.slow for gate in gates),
        ),
        strict=True,
    ):
        values[cell] = count
    values[cells.models] = sum(gate.state != "closed" for gate in gates[1:])
