"""What is noted of each request: on its way (`Work`), and when it has ended (`Notes`): metrics, access log and trace.

Invariant: nothing is logged and no text is made for a request that is neither sampled nor traced nor failed.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.limits.verdict import LimitVerdict
from gateway.request import Header, Request
from gateway.snapshot import Route, Snapshot
from gateway.telemetry.access_log import AccessLog, Line
from gateway.telemetry.cells import Cells
from gateway.telemetry.tracing import Facts, Span, Tracing
from gateway.upstreams.asking import Answer


class Work:
    """What is noted about one request on its way, for headers, log and traces. Durations in nanoseconds."""

    __slots__ = ("answer", "degraded", "dropped", "limits_ns", "refused", "sent", "upstream_ns", "verdict", "via")

    def __init__(self, dropped: frozenset[bytes], via: Header | None = None) -> None:
        self.dropped = dropped  # fields never sent on, under the snapshot the request began with
        self.verdict: LimitVerdict | None = None
        self.answer: Answer | None = None
        self.degraded = b""
        self.sent = False  # whether a backend may have seen it
        self.limits_ns = 0
        self.upstream_ns = 0
        self.refused = -1  # why the pool's admission did, if it did
        self.via = via

    def discard_answer(self) -> None:
        """The pool's answer is not used, or is at its end."""
        if self.answer is not None and self.answer.response is not None:
            self.answer.response.discard()


class Notes:
    """One per worker. `draw` returns a float in [0, 1): for the access log's sample."""

    __slots__ = ("_access_log", "_cells", "_draw", "_tracing")

    def __init__(
        self, cells: Cells, draw: Callable[[], float], tracing: Tracing | None, access_log: AccessLog | None
    ) -> None:
        self._cells = cells
        self._draw = draw
        self._tracing = tracing
        self._access_log = access_log

    def write(
        self,
        snapshot: Snapshot,
        route: Route | None,
        request: Request,
        work: Work,
        status: int,
        sent: int,
        took: int,
        span: Span | None,
    ) -> None:
        """Called once per request; `sent` bytes of body, `took` nanoseconds."""
        cells = route.cells if route is not None else snapshot.unrouted
        self._cells.observe(cells.duration.get(status, cells.duration_other), took)
        answer = work.answer
        log = self._access_log
        if log is not None and (status >= 500 or self._draw() < snapshot.access_log_sample):
            backend = answer.backend.key if answer is not None and answer.backend is not None else ""
            log.write(
                Line(
                    id=request.id,
                    client=request.client,
                    peer=request.peer,
                    method=request.method,
                    target=request.target,
                    route=route.name if route is not None else "",
                    pool=route.pool.name if route is not None and route.split is None else "",
                    status=status,
                    sent=sent,
                    total_ns=took,
                    limits_ns=work.limits_ns,
                    upstream_ns=work.upstream_ns,
                    backend=backend,
                    attempts=answer.attempts if answer is not None else 0,
                    hedges=answer.hedges if answer is not None else 0,
                    degraded=work.degraded,
                )
            )
        if span is not None:
            self._trace(span, route, request, work, status)

    def _trace(self, span: Span, route: Route | None, request: Request, work: Work, status: int) -> None:
        """One span per request: what the steps took are attributes, for every further span costs as much again."""
        facts: Facts = {
            "http.request.method": request.method.decode("latin-1"),
            "http.response.status_code": status,
            "url.path": request.path.decode("latin-1"),
            "client.address": request.peer.decode("latin-1"),
            "gateway.id": request.id.decode("latin-1"),
        }
        if route is not None:
            facts["http.route"] = route.name
        if work.verdict is not None:
            facts["gateway.limits.store"] = ("shared", "local", "leased")[work.verdict.by]
            facts["gateway.limits.ms"] = work.limits_ns / 1e6
        if work.answer is not None:
            facts["gateway.upstream.ms"] = work.upstream_ns / 1e6
            facts["gateway.attempts"] = work.answer.attempts
            if work.answer.hedges:
                facts["gateway.hedges"] = work.answer.hedges
            if work.answer.backend is not None:
                facts["gateway.backend"] = work.answer.backend.key
        if work.degraded:
            facts["gateway.degraded"] = work.degraded.decode()
        name = request.method.decode("latin-1")
        assert self._tracing is not None
        self._tracing.end(span, name if route is None else f"{name} {route.name}", facts, failed=status >= 500)
