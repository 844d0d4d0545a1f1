"""Backends by identity, so that breakers, health and connections live through a reload."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from gateway.admission.admission import Admission, AdmissionSettings
from gateway.admission.places import Places
from gateway.breakers.gate import BreakerSettings
from gateway.http.dial import Address, Tls
from gateway.http.upstream import ClientLimits
from gateway.retries.memory import Memory
from gateway.upstreams.backend import Backend, Speaks
from gateway.upstreams.pool import Pool


def _unshared(pool: str) -> Places | None:
    del pool
    return None


def backend_key(pool: str, address: Address) -> str:
    """What makes a backend the same one across reloads."""
    return f"{pool}/{address}"


class BackendRegistry:
    """Owned by a worker; `retain` is called once a snapshot has replaced its predecessor."""

    def __init__(self) -> None:
        self.places: Callable[[str], Places | None] = _unshared  # of a pool, as all workers share them
        self._backends: dict[str, Backend] = {}
        self.pools: Mapping[str, Pool] = {}  # of the snapshot that was made last
        self._admissions: dict[str, Admission] = {}
        self._sharers = 1, 1  # workers, gateways
        self.retries = Memory()
        self._running = False  # the first snapshot is in force

    def obtain(
        self,
        pool: str,
        name: str,
        address: Address,
        weight: int,
        gate: BreakerSettings,
        limits: ClientLimits,
        speaks: Speaks = "http",
        tls: Tls | None = None,
        priority: int = 0,
        zone: str = "",
    ) -> Backend:
        """The known backend with its settings brought up to date, or a new one."""
        key = backend_key(pool, address)
        backend = self._backends.get(key)
        if backend is None:
            backend = self._backends[key] = Backend(
                key, name, address, weight, gate, limits, speaks, tls, priority, zone
            )
            if self._running:
                backend.added(time.monotonic_ns())
            return backend
        backend.name = name
        backend.weight = weight
        backend.priority = priority
        backend.zone = zone
        backend.configure(gate)
        backend.connections.limits = limits
        backend.speak(speaks, tls)
        return backend

    def admission(self, pool: str, settings: AdmissionSettings, now: int) -> Admission:
        """The pool's admission with its settings brought up to date, or a new one."""
        admission = self._admissions.get(pool)
        if admission is None:
            admission = self._admissions[pool] = Admission(settings, self._sharers[1], self.places(pool))
        else:
            admission.configure(settings, self._sharers[1], now)
        return admission

    def share(self, workers: int, gateways: int, now: int) -> None:
        """So many workers, of so many gateways, use the same backends from now on."""
        if (workers, gateways) == self._sharers or workers < 1 or gateways < 1:
            return
        self._sharers = workers, gateways
        for admission in self._admissions.values():
            admission.configure(admission.settings, gateways, now)
        self.retries.share(workers)

    def retain_pools(self, names: set[str]) -> None:
        """Forgets what was learnt of pools that no snapshot names any more."""
        for name in self._admissions.keys() - names:
            del self._admissions[name]

    def retain(self, keys: set[str]) -> None:
        """Forgets backends that no snapshot names any more and closes their idle connections."""
        self._running = True
        for key in self._backends.keys() - keys:
            self._backends.pop(key).connections.close()

    def get(self, key: str) -> Backend | None:
        return self._backends.get(key)

    def keys(self) -> frozenset[str]:
        """Of all that are known."""
        return frozenset(self._backends)

    def all(self) -> list[Backend]:
        return list(self._backends.values())
