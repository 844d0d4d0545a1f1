"""Outlier ejection for the whole gateway: judged in the supervisor over the cells that all workers count in."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from gateway.app.compile import backend_address
from gateway.app.series import backend_cells, ejection_cells
from gateway.breakers.ejection import Counts, Ejection, EjectionSettings
from gateway.config import model
from gateway.request import Outcome
from gateway.telemetry.cells import NANOSECONDS, Catalogue
from gateway.upstreams.registry import backend_key

log = logging.getLogger(__name__)


class Outliers:
    """Survives reloads. `cells` are those of the workers, `own` the supervisor's, where ejections are shown."""

    def __init__(self, catalogue: Catalogue, own: memoryview, cells: Callable[[], Sequence[memoryview]]) -> None:
        self._catalogue = catalogue
        self._own = own
        self._cells = cells
        self._pools: dict[str, model.Pool] = {}
        self._ejections: dict[str, Ejection] = {}
        self.ejected: frozenset[str] = frozenset()  # keys of backends

    def use(self, config: model.Config, now: int) -> None:
        """Takes a configuration; who is out stays out where the pool still has ejection."""
        self._pools = {name: pool for name, pool in config.pools.items() if pool.ejection is not None}
        before = self._ejections
        self._ejections = {}
        for name, pool in self._pools.items():
            assert pool.ejection is not None
            settings = _settings(pool.ejection)
            known = before.get(name)
            if known is None:
                known = Ejection(settings, now)
            known.settings = settings
            self._ejections[name] = known

    def look(self, now: int) -> bool:
        """Judges what is due; whether `ejected` has changed. Wants to be called every second or so."""
        for name, pool in self._pools.items():
            keys = {backend_key(name, backend_address(each)): each for each in pool.backends}
            counts = {key: self._counts(name, each.name) for key, each in keys.items()}
            weights = {key: each.weight for key, each in keys.items()}
            ejection = self._ejections[name]
            for key, reason, until in ejection.judge(counts, weights, now):
                log.warning("backend %s is ejected for %.0f s: %s", key, (until - now) / 1e9, reason)
                self._own[ejection_cells(self._catalogue, name, keys[key].name)[1][reason]] += 1
            for key, each in keys.items():
                self._own[ejection_cells(self._catalogue, name, each.name)[0]] = int(key in ejection.out)
        before, self.ejected = self.ejected, frozenset(key for each in self._ejections.values() for key in each.out)
        for key in before - self.ejected:
            log.warning("backend %s is no longer ejected", key)
        return self.ejected != before

    def _counts(self, pool: str, backend: str) -> Counts:
        first = backend_cells(self._catalogue, pool, backend)
        buckets = len(NANOSECONDS) + 1
        successes = failures = ended = took = 0
        for values in self._cells():
            successes += values[first + Outcome.SUCCESS]
            failures += values[first + Outcome.FAILURE]
            ended += sum(values[first + len(Outcome) : first + len(Outcome) + buckets])
            took += values[first + len(Outcome) + buckets]
        return Counts(successes, failures, ended, took)


def _settings(given: model.Ejection) -> EjectionSettings:
    return EjectionSettings(
        interval=given.interval,
        min_calls=given.min_calls,
        min_backends=given.min_backends,
        success_factor=given.success_factor,
        latency_factor=given.latency_factor,
        base=given.base,
        longest=given.max,
        max_share=given.max_share,
    )
