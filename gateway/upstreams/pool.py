"""A pool: backends that can answer for one another, and which of them gets a request.

Who may be picked at all is decided by `breakers.usable` (gates, health, ejection, panic); how the requests are shared
among those by `balance.groups` (priorities, zones, slow start, Retry-After) and the policy. Two things come before the
policy: a backend whose gate is to be probed gets the next request, for a probe that waits for its share of a large
pool, or for a policy that avoids what was slow, would come late or never; and a session goes where its cookie says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.admission.admission import LONGEST_AWAY, Admission, AdmissionSettings
from gateway.balance.groups import Groups
from gateway.balance.policy import Balancer, Candidate
from gateway.breakers.models import MOST
from gateway.breakers.permit import FOREVER, SECOND, STRICT, AnyGate
from gateway.breakers.usable import Usable
from gateway.request import Request
from gateway.retries.budget import RetryBudget
from gateway.upstreams.backend import Backend
from gateway.upstreams.sticky import Sticky


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a pool shares requests, beside its policy. `slow_start` in nanoseconds; `zone` is the gateway's own."""

    zone: str = ""
    slow_start: int = 0
    spill_above: float = 0.0
    sticky: Sticky | None = None
    load_reports: bool = False  # backends are asked to report their load, if the policy goes by it


class View:
    """What one gate per backend (its own, or that of one model) leaves to pick from; kept until something turns."""

    __slots__ = ("away", "fresh", "gates", "picks", "trials", "usable")

    def __init__(self, backends: Sequence[Backend], gates: list[AnyGate], panic: float, needed: int) -> None:
        self.gates = gates
        self.fresh = True  # nothing has turned since it was looked at
        self.usable = Usable(backends, gates, panic, needed)
        self.picks: tuple[Backend, ...] = ()
        self.trials: list[tuple[Backend, AnyGate]] = []  # of the picks: those that are to be probed
        self.away: list[Backend] = []  # those the pool's own view has and this one has not


class Pool:
    """Rebuilt at each snapshot around backends that survive. `balancer` makes one policy for each group; `before` is
    the pool's predecessor.
    """

    __slots__ = (
        "_models", "_needed", "_own", "admission", "backends", "budget", "groups", "inflight", "max_inflight", "name",
        "panic", "per_model", "reads_load", "sticky",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        backends: tuple[Backend, ...],
        balancer: Callable[[], Balancer],
        max_inflight: int,
        panic: float = 0.5,
        budget: RetryBudget | None = None,
        admission: Admission | None = None,
        *,
        per_model: bool = False,
        sharing: Sharing | None = None,
        before: Pool | None = None,
    ) -> None:
        sharing = sharing or Sharing()
        self.name = name
        self.budget = budget or RetryBudget(0.1, 10.0, 0)  # for retries and hedges of all routes that come here
        self.backends = backends
        self.max_inflight = max_inflight
        self.inflight = 0
        self.admission = admission or Admission(AdmissionSettings(max(1, max_inflight), max_inflight, 0, 0))
        self.panic = panic
        self.per_model = per_model
        self.sticky = sharing.sticky
        self.groups: Groups = Groups(
            backends,
            balancer,
            sharing.zone,
            sharing.slow_start,
            sharing.spill_above,
            before.groups if before is not None else None,
        )
        self.reads_load = sharing.load_reports and self.groups.reads_load
        self._needed = _least_priority(backends)
        self._own = View(backends, [backend.gate for backend in backends], panic, self._needed)
        self._models: dict[bytes, View] = {}
        for backend in backends:
            backend.on_change = self._unsettle
            backend.report(asked=self.reads_load)

    @property
    def usable(self) -> Usable[Backend]:
        """Who may be picked, as the backends' own gates say."""
        return self._own.usable

    def _unsettle(self) -> None:
        self._own.usable.unsettle()
        self.groups.review = 0
        for view in self._models.values():
            view.fresh = False

    def pick(self, request: Request, tried: list[Backend], now: int) -> Backend | None:
        """A backend that may be tried for `request` now and is not in `tried`, or None."""
        view = self._view(request, now)
        skipped: Sequence[Candidate] = [*tried, *view.away] if view.away else tried
        for backend, gate in view.trials:
            if gate.available(now) and backend not in tried:
                return backend
        if self.sticky is not None:
            kept = self.sticky.find(request)
            if kept is not None and kept.share > 0.0 and kept not in skipped:
                return kept
        chosen = self.groups.pick(request, skipped, self.inflight, now)
        if chosen is not None:
            assert isinstance(chosen, Backend)
            return chosen
        return _first(view.picks, tried) or _first(view.usable.spare, tried)

    def has_other(self, request: Request, tried: list[Backend], now: int) -> bool:
        """Whether somebody who is not in `tried` could be picked, and would give a permit."""
        view = self._view(request, now)
        for backend in (*view.picks, *view.usable.spare):
            if backend not in tried and backend.gate_for(request).available(now):
                return True
        return False

    def retry_after(self, now: int) -> int:
        """Seconds after which it is worth asking a pool that did not answer, as far as is known: while an operator
        holds all of it open, until the first is let go; else one, for breakers probe sooner. 1 to `LONGEST_AWAY`.
        """
        back = FOREVER
        for backend in self.backends:
            if backend.weight:
                back = min(back, backend.gate.forced_until if backend.gate.shut else now)
        return max(1, min(LONGEST_AWAY, -(-(back - now) // SECOND)))

    def _view(self, request: Request, now: int) -> View:
        """Up to date; with it, the groups."""
        view = self._own
        picks = view.usable.at(now)
        if picks is not view.picks or now >= self.groups.review:
            self._arrange(view, picks, now)
        return self._of_model(request, now) if self.per_model and request.model else view

    def _arrange(self, view: View, picks: tuple[Backend, ...], now: int) -> None:
        view.picks = picks
        view.trials = _trials(view, self.backends)
        probed = [backend for backend, _ in view.trials]
        self.groups.settle([backend for backend in picks if backend not in probed] if probed else picks, now)

    def _of_model(self, request: Request, now: int) -> View:
        view = self._models.get(request.model)
        if view is None or not view.fresh:
            gates = [backend.gate_for(request) for backend in self.backends]
            if view is not None and view.gates == gates:
                view.usable.unsettle()
                view.picks = ()
                view.fresh = True
            else:  # new, or one of its gates has made room for another model's
                if len(self._models) >= MOST:
                    self._models.clear()
                view = self._models[request.model] = View(self.backends, gates, self.panic, self._needed)
        picks = view.usable.at(now)
        if picks is not view.picks or not picks:
            view.picks = picks
            view.trials = _trials(view, self.backends)
            probed = [backend for backend, _ in view.trials]
            view.away = [b for b in self._own.picks if b not in picks or b in probed]
        return view

    def __repr__(self) -> str:
        return f"<Pool {self.name} {self.groups.all}, {self.inflight} in flight>"


def _trials(view: View, backends: Sequence[Backend]) -> list[tuple[Backend, AnyGate]]:
    """Those whose gate would let a probe through. Where gates are lenient there is no such difference."""
    if view.usable.level != STRICT:
        return []
    return [
        (backend, gate)
        for backend, gate in zip(backends, view.gates)  # noqa: B905 - strict is slow when compiled
        if not gate.closed and backend in view.picks
    ]


def _first(backends: Sequence[Backend], tried: Sequence[Backend]) -> Backend | None:
    """The least busy of what is left."""
    left = [backend for backend in backends if backend not in tried]
    return min(left, key=_inflight) if left else None


def _inflight(backend: Backend) -> int:
    return backend.inflight


def _least_priority(backends: Sequence[Backend]) -> int:
    """The weight of the smallest priority group: each is there to carry everything alone, so the panic threshold is a
    share of that. 0 where there is only one priority.
    """
    weights: dict[int, int] = {}
    for backend in backends:
        weights[backend.priority] = weights.get(backend.priority, 0) + backend.weight
    least = [weight for weight in weights.values() if weight]
    return min(least) if len(least) > 1 else 0
