"""What passes between a gate and who uses it: settings, permits, and what the path and the pool ask of a gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.request import Outcome

FOREVER: Final = 1 << 61  # nanoseconds: beyond any clock, and still one machine word when compiled
SECOND: Final = 1_000_000_000
LAST_RESORT: Final = SECOND // 10  # what an open gate waits when every backend of the pool is hard
PARTS: Final = 10_000  # rates are compared in integers

ANSWERED, UNCLEAR, UNREACHED = 1, 0, -1

# How far `usable.Usable` lets a gate depart from its rule.
STRICT, LENIENT, URGED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Durations in seconds. A rate of 0 is not looked at; `slow_after` 0: no call is slow; `silent_after` None: found
    out from the answers, 0: silence means nothing.
    """

    failures: int = 5
    open_for: float = 5.0
    probes: int = 1
    open_max: float = 60.0
    jitter: float = 0.0
    error_rate: float = 0.0
    slow_rate: float = 0.0
    slow_after: float = 0.0
    silent_after: float | None = None
    min_calls: int = 20
    window: float = 10.0
    window_calls: int = 100
    per_model: bool = False


class Permit:
    """The right to try once, to be handed back to its `gate`. `era` is the generation token, None where the result
    moves nothing.
    """

    __slots__ = ("began", "counted", "era", "gate", "inner", "number", "own", "took")

    def __init__(self, gate: AnyGate, era: object, number: int, began: int) -> None:
        self.gate = gate
        self.era = era
        self.number = number  # 0: shared by all, while the gate is closed and no call is timed
        self.began = began
        self.counted = -1  # its place in the window, once it is overdue
        self.took = -1  # nanoseconds until it was answered, once it was
        self.own: Permit | None = None  # under a permit for a model: that of the backend's own gate
        self.inner: Permit | None = None  # and that of the model's


class AnyGate:
    """What the path and the pool ask of a gate, be it a backend's own or a model's (`models.py`)."""

    @property
    def closed(self) -> bool:
        raise NotImplementedError

    @property
    def hard(self) -> bool:
        """The last `failures` results were all failures."""
        raise NotImplementedError

    @property
    def shut(self) -> bool:
        """An operator has forced it open: there is no capacity behind it, by decision."""
        raise NotImplementedError

    @property
    def ready_from(self) -> int:
        """When an open gate lets a probe through by itself, if nothing else happens."""
        raise NotImplementedError

    @property
    def urged_from(self) -> int:
        """When an open gate lets a probe through if it is the last resort."""
        raise NotImplementedError

    def ready(self, now: int) -> bool:
        """Whether a permit can be had by the gate's own rule; changes nothing."""
        raise NotImplementedError

    def available(self, now: int) -> bool:
        """Whether `try_acquire` would hand out a permit; changes nothing."""
        raise NotImplementedError

    def lean(self, leniency: int) -> None:
        """STRICT, LENIENT or URGED, as `usable.Usable` decided."""
        raise NotImplementedError

    def hint_recovered(self, now: int) -> None:
        """It may have recovered (a health check passed, the pool is back): an open gate may probe at once."""
        raise NotImplementedError

    def try_acquire(self, now: int) -> Permit | None:
        """A permit, or None while open or while all probe slots are taken."""
        raise NotImplementedError

    def heard(self, permit: Permit, took: int) -> None:
        """The answer has begun, `took` after the call: how long its body takes proves nothing about the backend.

        With `took` 0 the call is taken out of the timing: how long it takes is up to the client.
        """
        raise NotImplementedError

    def release(self, permit: Permit, outcome: Outcome, now: int, took: int = 0, contact: int = ANSWERED) -> None:
        """Hands a permit back, once; a probe that comes back twice changes nothing the second time.

        `took` is how long the answer was waited for, in nanoseconds; `contact` is ANSWERED, UNCLEAR (silence, or a
        connection that broke) or UNREACHED (there was no connection).
        """
        raise NotImplementedError
