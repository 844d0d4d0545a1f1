"""A gate for each model that a backend serves: a model that fails takes itself out, and not its neighbours.

The model is read off the path: TensorFlow Serving's `/v1/models/M[/versions/N|/labels/L]`, the Open Inference
Protocol's `/v2/models/M[/versions/V]`, or the route's captures `{model}` and `{version}`. A version or label that is
named has a gate of its own, for a canary fails alone.

Under every model's gate lies the backend's own: a connection that could not be had is held against that one alone, and
any answer speaks for it. Clients choose the names, so there are at most `MOST` gates per backend; the one unused for
longest that has nothing to say makes room, and when all have, a further model shares the backend's own gate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from gateway.breakers.gate import Gate
from gateway.breakers.permit import ANSWERED, UNREACHED, AnyGate, BreakerSettings, Permit
from gateway.request import Outcome

MOST: Final = 64
_LONGEST: Final = 200  # bytes of a key; longer names share the backend's own gate
_HEADS: Final = (b"/v1/models/", b"/v2/models/")
_KINDS: Final = (b"versions", b"labels")


def model_of(target: bytes) -> bytes:
    """`M`, `M/versions/N` or `M/labels/L` as the target (path and query) names it; nothing if it names none."""
    if target[:11] not in _HEADS:
        return b""
    path = target[11:].partition(b"?")[0]
    name, slash, rest = path.partition(b"/")
    if not slash:
        key = name.partition(b":")[0]
    else:
        kind, _, value = rest.partition(b"/")
        value = value.partition(b"/")[0].partition(b":")[0]
        key = b"%s/%s/%s" % (name, kind, value) if kind in _KINDS and value else name
    return key if len(key) <= _LONGEST else b""


def own_settings(settings: BreakerSettings) -> BreakerSettings:
    """Those of the backend's own gate where models have theirs: it minds connections and silence alone."""
    if not settings.per_model:
        return settings
    silent = settings.silent_after
    if silent is None and settings.slow_after > 0:
        silent = settings.slow_after
    return replace(settings, error_rate=0.0, slow_rate=0.0, slow_after=0.0, silent_after=silent)


class ModelGate(AnyGate):
    """A model's `inner` gate over the backend's `own`: both must let a request through."""

    __slots__ = ("inner", "own", "used")

    def __init__(self, own: Gate, inner: Gate) -> None:
        self.own = own
        self.inner = inner
        self.used = 0

    @property
    def closed(self) -> bool:
        return self.inner.closed and self.own.closed

    @property
    def hard(self) -> bool:
        return self.inner.hard or self.own.hard

    @property
    def shut(self) -> bool:
        return self.own.shut

    @property
    def ready_from(self) -> int:
        return min(self.inner.ready_from, self.own.ready_from)

    @property
    def urged_from(self) -> int:
        return min(self.inner.urged_from, self.own.urged_from)

    def ready(self, now: int) -> bool:
        return self.own.ready(now) and self.inner.ready(now)

    def available(self, now: int) -> bool:
        return self.own.available(now) and self.inner.available(now)

    def lean(self, leniency: int) -> None:
        self.inner.lean(leniency)  # the pool's own question decides about the backend's

    def hint_recovered(self, now: int) -> None:
        self.inner.hint_recovered(now)

    def try_acquire(self, now: int) -> Permit | None:
        own = self.own.try_acquire(now)
        if own is None:
            return None
        inner = self.inner.try_acquire(now)
        if inner is None:
            self.own.release(own, Outcome.IGNORE, now)
            return None
        self.used = now
        permit = Permit(self, inner.era, inner.number, now)
        permit.own, permit.inner = own, inner
        return permit

    def heard(self, permit: Permit, took: int) -> None:
        if permit.own is not None and permit.inner is not None:
            self.own.heard(permit.own, took)
            self.inner.heard(permit.inner, took)

    def release(self, permit: Permit, outcome: Outcome, now: int, took: int = 0, contact: int = ANSWERED) -> None:
        own, inner = permit.own, permit.inner
        if own is None or inner is None:
            return
        permit.own = permit.inner = None
        if contact == UNREACHED:
            self.own.release(own, outcome, now, took, contact)
            self.inner.release(inner, Outcome.IGNORE, now, took, contact)
            return
        answered = contact == ANSWERED and outcome is not Outcome.IGNORE
        self.own.release(own, Outcome.SUCCESS if answered else Outcome.IGNORE, now, took, contact)
        self.inner.release(inner, outcome, now, took, contact)

    def __repr__(self) -> str:
        return f"<ModelGate {self.inner!r} over {self.own!r}>"


class ModelGates:
    """The gates of one backend. `make(model)` makes the inner one of a model."""

    __slots__ = ("_gates", "_make", "_most", "_own", "crowded", "forgotten")

    def __init__(self, own: Gate, make: Callable[[bytes], Gate], most: int = MOST) -> None:
        self._own = own
        self._make = make
        self._most = most
        self._gates: dict[bytes, ModelGate] = {}
        self.crowded = 0  # times a model had to share the backend's own gate
        self.forgotten: dict[str, int] = {}  # events of gates that made room

    def of(self, model: bytes) -> AnyGate:
        """The gate of a model as `model_of` names it."""
        gate = self._gates.get(model)
        if gate is not None:
            return gate
        if not model or (len(self._gates) >= self._most and not self._make_room()):
            self.crowded += bool(model)
            return self._own
        gate = self._gates[model] = ModelGate(self._own, self._make(model))
        return gate

    def find(self, model: bytes, now: int) -> Gate | None:
        """The model's own gate, made if there is room for it."""
        gate = self.of(model)
        if not isinstance(gate, ModelGate):
            return None
        gate.used = now
        return gate.inner

    def all(self) -> dict[bytes, ModelGate]:
        """Every gate there is, by model."""
        return self._gates

    def _make_room(self) -> bool:
        oldest: bytes | None = None
        used = 0
        for model, gate in self._gates.items():
            if gate.inner.pristine and (oldest is None or gate.used < used):
                oldest, used = model, gate.used
        if oldest is None:
            return False
        inner = self._gates.pop(oldest).inner
        for counts in (inner.tripped, inner.doubted):
            for event, count in counts.items():
                self.forgotten[event] = self.forgotten.get(event, 0) + count
        self._own.turned()  # somebody may hold on to it
        return True
