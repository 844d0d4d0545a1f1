"""The request path, top to bottom.

    identify -> route -> deadline -> fresh from cache? -> limits -> admission -> balance + breaker -> backend
                                                                        |
                                    stale -> smaller model -> static -> 503   (the degrade ladder)

`handle` reads `self.snapshot` once, so a reload never changes the rules in the middle of a request. An expected
refusal is a value; what is acquired is released in a `finally`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from gateway import problems
from gateway.degrade.cache import AnswerCache, cache_key, may_store
from gateway.errors import ProtocolError, UpstreamError
from gateway.fallback import Fallback
from gateway.limits.limiter import Limiter
from gateway.limits.verdict import YES, LimitVerdict
from gateway.notes import Notes, Work
from gateway.problems import refuse
from gateway.replies import (
    about,
    again,
    bad_request,
    milliseconds,
    over_limit,
    say_limits,
    too_large,
    too_late,
)
from gateway.request import BodyRules, Request, Response
from gateway.retries import deadline as deadlines
from gateway.snapshot import Route, Snapshot
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.cells import Cells
from gateway.telemetry.tracing import Span, Tracing
from gateway.upstreams.caller import UNAVAILABLE, Caller
from gateway.upstreams.entrance import NO_PLACE, Entrance, leave
from gateway.upstreams.forward import dropped_fields
from gateway.upstreams.shadow import Shadows

_ATTEMPTS: Final = b"x-attempts"

NO_ROUTE_BODY: Final = BodyRules(64 * 1024, 16 << 20)  # it is refused anyway


class Pipeline:
    """One per worker. `draw` returns a float in [0, 1): for the access log's sample, splits and shadows."""

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        limiter: Limiter,
        cache: AnswerCache,
        cells: Cells,
        id_prefix: bytes,
        draw: Callable[[], float],
        tracing: Tracing | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        self.limiter = limiter
        self.cache = cache
        self.cells = cells
        self.tracing = tracing
        self.access_log = access_log
        self.caller = Caller(cells)
        self.entrance = Entrance()
        self.fallback = Fallback(cache, self.caller, self.entrance, cells)
        self.notes = Notes(cells, draw, tracing, access_log)
        self.shadows = Shadows(self.caller, cells, draw)
        self.active = 0
        self._draw = draw
        self._id_prefix = id_prefix
        self._count = 0
        self.use(snapshot)

    def use(self, snapshot: Snapshot) -> None:
        """Puts a snapshot in force; requests under way finish under the one they began with."""
        self.snapshot = snapshot
        self._dropped = dropped_fields(snapshot.keys.header, *snapshot.deadline_fields)

    # -- the path -----------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Response:
        """Answers one request. Raises only for bugs, and CancelledError when the client has gone."""
        began = time.monotonic_ns()
        snapshot = self.snapshot
        self._count += 1
        if not request.received:
            request.received = began
        request.id = b"%s%x" % (self._id_prefix, self._count)
        work = Work(self._dropped, snapshot.via)
        span = self.tracing.begin(request, snapshot.trace_sample) if self.tracing is not None else None
        if span is not None:
            request.headers[b"traceparent"] = span.traceparent
        route = snapshot.routes.find(request)
        self.active += 1
        try:
            response = self._refuse_early(snapshot, request, route)
            if response is None:
                assert route is not None
                if route.split is not None:
                    route = route.split.side(request, self._draw)
                    self.cells.add(route.side)
                response = await self._answer(snapshot, route, request, work, began)
                if route.edits is not None:
                    route.edits.answered(request, response)
        except ProtocolError as error:  # what was still to come of the request is not acceptable, or never came
            response = bad_request(error)
        except asyncio.CancelledError:
            self.ended(snapshot, route, request, work, 499, 0, span)
            raise
        except Exception:
            self.ended(snapshot, route, request, work, 500, 0, span)
            raise
        response.headers.append((b"x-request-id", request.id))
        if response.stream is not None:
            response.on_end = _Streaming(self, snapshot, route, request, work, response.status, span).at_the_end
        else:
            self.ended(snapshot, route, request, work, response.status, len(response.body), span)
        return response

    def refuse_bytes(self, error: ProtocolError, peer: bytes) -> Response:
        """Answers bytes that are no acceptable request; counted and logged as a request of which nothing is known."""
        self._count += 1
        request = Request(b"-", b"-", b"-", {}, b"", peer)
        request.received = time.monotonic_ns()
        request.id = b"%s%x" % (self._id_prefix, self._count)
        response = bad_request(error)
        response.headers.append((b"x-request-id", request.id))
        self.active += 1
        self.ended(self.snapshot, None, request, Work(self._dropped), response.status, len(response.body), None)
        return response

    def body_rules(self, request: Request) -> BodyRules:
        """What the route of `request` says of its body; called while only the head is there."""
        route = self.snapshot.routes.find(request)
        return NO_ROUTE_BODY if route is None else route.body

    def ended(
        self,
        snapshot: Snapshot,
        route: Route | None,
        request: Request,
        work: Work,
        status: int,
        sent: int,
        span: Span | None,
    ) -> None:
        """Called once per request, however it ends: when its last byte was handed on, or when none will be."""
        self.active -= 1
        work.discard_answer()
        if work.verdict is not None:
            self.limiter.end(work.verdict, request, sent=work.sent)
        self.notes.write(snapshot, route, request, work, status, sent, time.monotonic_ns() - request.received, span)

    def _refuse_early(self, snapshot: Snapshot, request: Request, route: Route | None) -> Response | None:
        client = snapshot.keys.identify(request)
        if client is None:
            detail = f"send a known API key in the field '{snapshot.keys.header.decode()}'"
            return refuse(problems.UNKNOWN_CALLER, request, detail, headers=[(b"www-authenticate", b"ApiKey")])
        request.client = client
        tenants = snapshot.keys.tenants
        if tenants is not None:
            request.tenant = tenants.get(client, client)
        if request.method == b"OPTIONS":
            answer = about(request, route)
            if answer is not None:
                return answer
        if route is not None:
            return None
        methods = snapshot.routes.allowed(request)
        if methods:
            allow = b", ".join(sorted(methods))
            return refuse(problems.WRONG_METHOD, request, f"use {allow.decode()}", headers=[(b"allow", allow)])
        return refuse(problems.NO_ROUTE, request, f"no route for {request.path.decode('latin-1')!r}")

    async def _answer(self, snapshot: Snapshot, route: Route, request: Request, work: Work, began: int) -> Response:
        patience = route.timeout_ns
        for name in deadlines.FIELDS:
            if name in request.headers:
                patience = deadlines.patience(request.headers[name], patience)
                if patience == deadlines.MALFORMED:
                    detail = f"{name.decode()} must be a duration such as 250ms, 2s, or 250m as gRPC says it"
                    return refuse(problems.BAD_REQUEST, request, detail)
                break
        deadline = request.received + patience
        if began >= deadline:
            self.cells.add(route.cells.expired)
            return too_late(request, "no time was left for the request when its turn came; nobody was asked")

        if len(request.body) > route.body.limit:
            return bad_request(ProtocolError(f"the body is larger than the {route.body.limit} bytes allowed", 413))
        now = began
        key = cache_key(route.key, request) if route.cache is not None and request.stream is None else None
        if key is not None and route.cache is not None and route.cache.fresh:
            entry = await self.cache.find(key, route.cache.fresh, began)
            if entry is not None:
                self.cells.add(route.cells.cache_hit)
                ttl = int(route.cache.fresh) - entry.age_s(began)
                return again(entry.response, entry.age_s(began), b"sluicegate; hit; ttl=%d" % ttl)
            now = time.monotonic_ns()

        if route.limits is not None:
            verdict = work.verdict = self.limiter.begin(route.limits, request, began, deadline)
            if verdict.pending is not None:
                await verdict.pending
            work.limits_ns = (now := time.monotonic_ns()) - began
            self._count_limits(route, verdict)
            if not verdict.allowed:
                return self._over_limit(route, request, verdict)

        sent = request if route.edits is None else route.edits.outgoing(request)
        response = await self._from_pool(route, sent, deadline, work, now)
        if response is not None:
            if key is not None and route.cache is not None and response.stream is None and may_store(response):
                kept = Response(response.status, list(response.headers), response.body)
                self.cache.put(key, kept, route.cache, began)
        else:
            response = await self.fallback.answer(snapshot, route, sent, key, deadline, work)
        if route.pool.sticky is not None and response.status not in UNAVAILABLE:
            answer = work.answer
            if answer is not None and answer.response is response and answer.backend is not None:
                route.pool.sticky.keep(request, response, answer.backend)
        headers = response.headers
        if work.verdict is not None:
            if work.verdict.limits.settles and work.sent:
                self.limiter.answered(work.verdict, response)
            say_limits(headers, work.verdict)
        if work.upstream_ns:
            timing = b"limits;dur=" + milliseconds(work.limits_ns) + b", upstream;dur=" + milliseconds(work.upstream_ns)
            if work.answer is not None:
                if work.answer.attempts > 1:
                    timing += b", attempts;desc=%d" % work.answer.attempts
                if route.tell_attempts:
                    headers[:] = [field for field in headers if field[0] != _ATTEMPTS]  # a backend's own, of its hops
                    headers.append((_ATTEMPTS, b"%d" % work.answer.attempts))
            headers.append((b"server-timing", timing))
        return response

    async def _from_pool(self, route: Route, request: Request, deadline: int, work: Work, now: int) -> Response | None:
        """The pool's answer, or None where the ladder must help."""
        if route.reply is not None:
            work.sent = True  # it is carried out here
            return route.reply.response(request)
        pool = route.pool
        if route.named is not None:
            request.named = route.named.of(request.path)
        began = now
        mark = self.entrance.enter(pool, route.priority, request, now)
        if mark == NO_PLACE and pool.inflight < pool.max_inflight:
            mark = await self.entrance.wait_for_place(pool, route.priority, request, deadline)
            began = time.monotonic_ns()
        if mark <= NO_PLACE:
            work.refused = NO_PLACE - mark
            self.cells.add(route.cells.shed)
            return None
        if began >= deadline:
            self.cells.add(route.cells.expired)
            leave(pool.admission, mark, began, None)
            return None
        work.sent = True  # as far as is known when it is cancelled
        try:
            if route.shadow is not None and request.stream is None:
                self.shadows.offer(route.shadow, request, work.dropped)
            answer = work.answer = await self.caller.ask(
                pool, request, request.target, deadline, route.retry, work.dropped, route.timeout_ns // 2
            )
        except BaseException:  # cancelled
            leave(pool.admission, mark, began, None)
            raise
        work.sent = answer.reached
        work.upstream_ns = leave(pool.admission, mark, began, answer)
        response = answer.response
        if response is None:
            return None
        if work.via is not None:
            response.headers.append(work.via)
        return None if response.status in UNAVAILABLE else response

    # -- limits -------------------------------------------------------------------------------------------------

    def _count_limits(self, route: Route, verdict: LimitVerdict) -> None:
        values, by, flags = self.cells.values, 2 * verdict.by, verdict.flags
        for i, cells in enumerate(route.cells.limits):
            values[cells.decisions[by + (flags[i] == YES)]] += 1

    def _over_limit(self, route: Route, request: Request, verdict: LimitVerdict) -> Response:
        never = verdict.hopeless()
        if never >= 0:
            self.cells.add(route.cells.limits[never].too_large)
            return too_large(request, verdict, never)
        return over_limit(request, verdict)


class _Streaming:
    """A request whose answer streams: it ends, and is noted, when the last byte has left or something broke."""

    __slots__ = ("_pipeline", "_request", "_route", "_snapshot", "_span", "_status", "_work")

    def __init__(
        self,
        pipeline: Pipeline,
        snapshot: Snapshot,
        route: Route | None,
        request: Request,
        work: Work,
        status: int,
        span: Span | None,
    ) -> None:
        self._pipeline = pipeline
        self._snapshot = snapshot
        self._route = route
        self._request = request
        self._work = work
        self._status = status
        self._span = span

    def at_the_end(self, sent: int, error: BaseException | None) -> None:
        """The status was said long ago; the log, metrics and trace say how it ended: 499 client gone, 502 cut off."""
        status = self._status
        if isinstance(error, UpstreamError):
            status = 502
        elif error is not None:
            status = 499
        self._pipeline.ended(self._snapshot, self._route, self._request, self._work, status, sent, self._span)
