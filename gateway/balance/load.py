"""What a backend says of its own load, and the ORCA header in which it says it over HTTP.

ORCA (Open Request Cost Aggregation, xDS `OrcaLoadReport`): the request's `endpoint-load-metrics-format: JSON` asks, the
answer's `endpoint-load-metrics: JSON {...}` or `TEXT a=1, b=2` tells. go_infer's link says the same in LOAD frames.
Names are those of xDS, of vLLM and Triton, and our own; what is not known is passed over, and a report that cannot be
read is no report.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

ASK: Final = b"endpoint-load-metrics-format"
TELL: Final = b"endpoint-load-metrics"
FRESH: Final = 1_000_000_000  # nanoseconds a report is good for
_LONGEST: Final = 4096  # bytes of a report that is looked at
_MOST: Final = 1_000_000.0  # no backend has more requests than this, nor a utilisation above it

#: What each of our four figures is called, in order of preference.
_QUEUED: Final = ("queue_depth", "queued", "num_requests_waiting", "waiting")
_RUNNING: Final = ("running", "num_requests_running", "in_flight")
_CAPACITY: Final = ("capacity", "slots")
_UTILISATION: Final = ("application_utilization", "kv_cache_usage_perc", "kv_cache_utilization", "cpu_utilization")


class Load:
    """The last report: requests that wait and run at the backend, of everybody, and how many can run at a time.

    `heard` is when it came, monotonic nanoseconds, 0 for never; `mine` is how many of those requests were ours then.
    A capacity of 0 is not known; `utilisation` is 1.0 when the backend is just full, below 0 not known.
    """

    __slots__ = ("capacity", "heard", "mine", "queued", "running", "service", "utilisation")

    def __init__(self) -> None:
        self.queued = 0.0
        self.running = 0.0
        self.capacity = 0.0
        self.utilisation = -1.0
        self.service = 0.0  # nanoseconds for one request, 0: not said
        self.heard = 0
        self.mine = 0

    def hear(
        self,
        queued: float,
        running: float,
        capacity: float,
        service: float,
        mine: int,
        now: int,
        utilisation: float = -1.0,
    ) -> None:
        """Takes a report over. Where the running ones are not told, they are what the utilisation says of capacity."""
        if running < 0.0:
            running = utilisation * capacity - queued if utilisation >= 0.0 and capacity else min(float(mine), capacity)
        self.queued = max(queued, 0.0)
        self.running = max(running, 0.0)
        self.capacity = max(capacity, 0.0)
        self.utilisation = utilisation
        if utilisation < 0.0 and capacity > 0.0:
            self.utilisation = (self.queued + self.running) / capacity
        self.service = service
        self.mine = mine
        self.heard = now

    def others(self, now: int) -> float:
        """Requests in flight that were not ours, while the report is fresh."""
        if self.heard and now - self.heard < FRESH:
            return max(self.queued + self.running - self.mine, 0.0)
        return 0.0

    def __repr__(self) -> str:
        return (
            f"<Load {self.queued:g} waiting, {self.running:g} of {self.capacity:g} running, {self.utilisation:g} full>"
        )


def read(load: Load, value: bytes, mine: int, now: int) -> bool:
    """Takes the value of an `endpoint-load-metrics` field over into `load`; False: it says nothing that is known."""
    if len(value) > _LONGEST:
        return False
    form, _, text = value.partition(b" ")
    said = _json(text) if form == b"JSON" else _text(text) if form == b"TEXT" else None
    if said is None:
        return False
    queued, running = _first(said, _QUEUED), _first(said, _RUNNING)
    capacity, utilisation = _first(said, _CAPACITY), _first(said, _UTILISATION)
    if queued < 0.0 and running < 0.0 and utilisation < 0.0:
        return False
    load.hear(max(queued, 0.0), running, max(capacity, 0.0), 0.0, mine, now, utilisation)
    return True


def _json(text: bytes) -> dict[str, Any] | None:
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(said, dict):
        return None
    named = said.get("named_metrics")
    return {**said, **named} if isinstance(named, dict) else said


def _text(text: bytes) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for pair in text.split(b","):
        name, _, value = pair.strip().partition(b"=")
        try:
            said[name.decode("latin-1").removeprefix("named_metrics.")] = float(value)
        except ValueError:
            continue
    return said


def _first(said: dict[str, Any], names: tuple[str, ...]) -> float:
    """The first of `names` that is a sensible number; -1 if there is none."""
    for name in names:
        value = said.get(name)
        if isinstance(value, (int, float)) and 0.0 <= value <= _MOST:  # NaN is not
            return float(value)
    return -1.0
