"""What a worker does for a trace: decide whether a request is sampled, and note what became of it.

The decision is ours and comes before anything costs: a caller's `traceparent` decides (W3C Trace Context), else the
configured share. A finished span is a plain record; the supervisor turns records into OpenTelemetry's and exports them
(`span_export`), for encoding them beside the event loop would make requests wait for the interpreter's lock.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Mapping
from typing import Any, Final

from gateway.request import Request

Facts = dict[str, str | int | float | bool]

_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16

MAX_WAITING: Final = 4096  # finished spans a worker keeps until they are taken; what comes on top is dropped, counted


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return any(environ.get(name) for name in names)


class Span:
    """One server span. Times are nanoseconds since 1970; `parent_id` is 0 at the root of a trace."""

    __slots__ = ("began", "ended", "facts", "failed", "name", "parent_id", "span_id", "trace_id")

    def __init__(self, trace_id: int, span_id: int, parent_id: int, began: int) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.began = began
        self.ended = 0
        self.name = ""
        self.facts: Facts = {}
        self.failed = False

    @property
    def traceparent(self) -> bytes:
        """What the backend is sent, so that its spans join ours."""
        return b"00-%032x-%016x-01" % (self.trace_id, self.span_id)


class Tracing:
    """One per worker. `begin` returns None for the many requests that are not sampled."""

    def __init__(self, rand: Any = random.random, bits: Any = random.getrandbits) -> None:
        self._rand = rand
        self._bits = bits
        self._finished: list[Span] = []
        self.dropped = 0

    @classmethod
    def from_environment(cls) -> Tracing | None:
        """None unless `OTEL_*` asks for traces."""
        return cls() if wanted(os.environ) else None

    def begin(self, request: Request, share: float) -> Span | None:
        """A span if this request is sampled. `share`, from 0 to 1, counts where the caller has not decided."""
        parent = request.headers.get(b"traceparent")
        match = None
        if parent is None or (match := _TRACEPARENT.fullmatch(parent)) is None:
            if self._rand() >= share:
                return None
        elif not int(match[3], 16) & 1:
            return None
        span_id = self._bits(64) or 1
        if match is not None and match[1] != _NO_TRACE and match[2] != _NO_SPAN:
            return Span(int(match[1], 16), span_id, int(match[2], 16), time.time_ns())
        return Span(self._bits(128) or 1, span_id, 0, time.time_ns())

    def end(self, span: Span, name: str, facts: Facts, *, failed: bool) -> None:
        """Closes a span; `failed` marks it as an error."""
        if len(self._finished) >= MAX_WAITING:
            self.dropped += 1
            return
        span.ended = time.time_ns()
        span.name = name
        span.facts = facts
        span.failed = failed
        self._finished.append(span)

    def take(self) -> list[Span]:
        """The spans finished since the last call."""
        taken, self._finished = self._finished, []
        return taken
