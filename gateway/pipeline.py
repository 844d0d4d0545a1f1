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
from gateway.admission.admission import Admission
from gateway.degrade.cache import AnswerCache, cache_key, may_store
from gateway.degrade.ladder import PoolRung, StaleRung
from gateway.errors import (
    ProtocolError,
    UpstreamError,
    UpstreamTimeout,
)
from gateway.limits.limiter import Limiter
from gateway.limits.verdict import YES, LimitVerdict
from gateway.problems import refuse
from gateway.replies import (
    about,
    again,
    bad_request,
    over_limit,
    overloaded,
    proxy_status,
    say_limits,
    too_large,
    too_late,
    unanswered,
)
from gateway.request import BodyRules, Header, Outcome, Request, Response
from gateway.retries import deadline as deadlines
from gateway.snapshot import Route, Snapshot
from gateway.telemetry.access_log import AccessLog, Line
from gateway.telemetry.cells import Cells
from gateway.telemetry.tracing import Facts, Span, Tracing
from gateway.upstreams.asking import Answer
from gateway.upstreams.caller import UNAVAILABLE, Caller
from gateway.upstreams.entrance import Entrance
from gateway.upstreams.forward import dropped_fields
from gateway.upstreams.pool import Pool
from gateway.upstreams.shadow import Shadows

_ATTEMPTS: Final = b"x-attempts"

UNCOUNTED: Final = -1  # in the place of a mark: takes no place
NO_PLACE: Final = -2  # and below: none, for the reason that is the difference

NO_ROUTE_BODY: Final = BodyRules(64 * 1024, 16 << 20)  # it is refused anyway


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
        self._note(snapshot, route, request, work, status, sent, time.monotonic_ns() - request.received, span)

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
        key = cache_key(route.key, request) if route.cache is not None and request.stream is None else None
        if key is not None and route.cache is not None and route.cache.fresh:
            entry = await self.cache.find(key, route.cache.fresh, began)
            if entry is not None:
                self.cells.add(route.cells.cache_hit)
                ttl = int(route.cache.fresh) - entry.age_s(began)
                return again(entry.response, entry.age_s(began), b"sluicegate; hit; ttl=%d" % ttl)

        if route.limits is not None:
            verdict = work.verdict = self.limiter.begin(route.limits, request, began, deadline)
            if verdict.pending is not None:
                await verdict.pending
            work.limits_ns = time.monotonic_ns() - began
            self._count_limits(route, verdict)
            if not verdict.allowed:
                return self._over_limit(route, request, verdict)

        sent = request if route.edits is None else route.edits.outgoing(request)
        response = await self._from_pool(route, sent, deadline, work)
        if response is not None:
            if key is not None and route.cache is not None and response.stream is None and may_store(response):
                kept = Response(response.status, list(response.headers), response.body)
                self.cache.put(key, kept, route.cache, began)
        else:
            response = await self._degrade(snapshot, route, sent, key, deadline, work)
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
            limits, upstream = work.limits_ns // 10_000, work.upstream_ns // 10_000  # in hundredths of a millisecond
            timing = b"limits;dur=%d.%02d, upstream;dur=%d.%02d" % (
                limits // 100, limits % 100, upstream // 100, upstream % 100,
            )  # fmt: skip
            if work.answer is not None:
                if work.answer.attempts > 1:
                    timing += b", attempts;desc=%d" % work.answer.attempts
                if route.tell_attempts:
                    headers[:] = [field for field in headers if field[0] != _ATTEMPTS]  # a backend's own, of its hops
                    headers.append((_ATTEMPTS, b"%d" % work.answer.attempts))
            headers.append((b"server-timing", timing))
        return response

    async def _from_pool(self, route: Route, request: Request, deadline: int, work: Work) -> Response | None:
        """The pool's answer, or None where the ladder must help."""
        if route.reply is not None:
            work.sent = True  # it is carried out here
            return route.reply.response(request)
        pool = route.pool
        if route.named is not None:
            request.named = route.named.of(request.path)
        mark = self._place(route, pool, request)
        if mark == NO_PLACE and pool.inflight < pool.max_inflight:
            mark = await self._wait(route, pool, request, deadline)
        if mark <= NO_PLACE:
            work.refused = NO_PLACE - mark
            self.cells.add(route.cells.shed)
            return None
        began = time.monotonic_ns()
        if began >= deadline:
            self.cells.add(route.cells.expired)
            _release(pool.admission, mark, began, None)
            return None
        work.sent = True  # as far as is known when it is cancelled
        try:
            if route.shadow is not None and request.stream is None:
                self.shadows.offer(route.shadow, request, work.dropped)
            answer = work.answer = await self.caller.ask(
                pool, request, request.target, deadline, route.retry, work.dropped, route.timeout_ns // 2
            )
        except BaseException:  # cancelled
            _release(pool.admission, mark, began, None)
            raise
        work.sent = answer.reached
        work.upstream_ns = _release(pool.admission, mark, began, answer)
        response = answer.response
        if response is None:
            return None
        if work.via is not None:
            response.headers.append(work.via)
        return None if response.status in UNAVAILABLE else response

    def _place(self, route: Route, pool: Pool, request: Request) -> int:
        """A place's mark; UNCOUNTED for what takes none; NO_PLACE where none is free.

        A body or protocol that streams lasts as long as the client likes, which says nothing about the pool and must
        not keep others waiting: it is bounded by the pool's `max_inflight` alone.
        """
        if pool.inflight >= pool.max_inflight:
            return NO_PLACE
        if request.stream is not None:
            return UNCOUNTED
        mark = pool.admission.enter(route.priority.of(request), time.monotonic_ns())
        return mark if mark >= 0 else NO_PLACE

    async def _wait(self, route: Route, pool: Pool, request: Request, deadline: int) -> int:
        """A place's mark in the end, or NO_PLACE less why there is none."""
        tenant = request.tenant or request.client or request.peer
        waited = await self.entrance.wait(
            pool.admission, route.priority.of(request), tenant, deadline, time.monotonic_ns()
        )
        return waited if waited >= 0 else NO_PLACE + 1 + waited

    async def _degrade(
        self, snapshot: Snapshot, route: Route, request: Request, key: bytes | None, deadline: int, work: Work
    ) -> Response:
        """Walks the ladder; the last rung is an honest refusal."""
        for rung, cell in zip(route.ladder, route.cells.rungs, strict=True):
            if isinstance(rung, StaleRung):
                response, says = await self._from_cache(route, key)
            elif isinstance(rung, PoolRung):
                response = await self._from_other_pool(snapshot, route, rung, request, deadline, work)
                says = rung.says()
            else:
                response, says = rung.response(), rung.says()
            if response is not None:
                work.discard_answer()
                work.degraded = says
                self.cells.add(cell)
                response.headers.append((b"degraded", says))
                response.headers.append(proxy_status(work.answer))
                return response
        if work.answer is None and work.refused >= 0:
            return overloaded(route, request, work.refused)
        return unanswered(route, request, work.answer, late=time.monotonic_ns() >= deadline)

    async def _from_cache(self, route: Route, key: bytes | None) -> tuple[Response | None, bytes]:
        """The last good answer to the same question, and what to say of it."""
        rules = route.cache
        if key is None or rules is None:
            return None, b""
        now = time.monotonic_ns()
        entry = await self.cache.find(key, rules.fresh + rules.stale_if_error, now)
        if entry is None:
            return None, b""
        age = entry.age_s(now)
        ttl = int(rules.fresh) - age
        return again(entry.response, age, b"sluicegate; hit; ttl=%d; detail=stale-if-error" % ttl), StaleRung.says(age)

    async def _from_other_pool(
        self, snapshot: Snapshot, route: Route, rung: PoolRung, request: Request, deadline: int, work: Work
    ) -> Response | None:
        """The other pool's answer, if it is one; a refusal or failure there leads on to the next rung."""
        pool = snapshot.pools[rung.pool]
        if request.stream is not None:  # a body that streamed is gone
            return None
        mark = self._place(route, pool, request)
        if mark == NO_PLACE and pool.inflight < pool.max_inflight:
            mark = await self._wait(route, pool, request, deadline)
        if mark <= NO_PLACE:
            return None
        began = time.monotonic_ns()
        patience = route.timeout_ns if rung.timeout is None else int(rung.timeout * 1e9)
        end = min(deadline, began + patience)
        try:
            answer = await self.caller.ask(pool, request, rung.target(request), end, None, work.dropped, patience // 2)
        except BaseException:  # cancelled
            _release(pool.admission, mark, began, None)
            raise
        work.upstream_ns += _release(pool.admission, mark, began, answer)
        work.sent = work.sent or answer.reached
        response = answer.response
        # 404 is a rewrite that missed, not an answer to the client's question.
        if response is not None and (response.status >= 500 or response.status in (404, 429)):
            response.discard()
            return None
        if response is not None and work.via is not None:
            response.headers.append(work.via)
        return response

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

    # -- afterwards ---------------------------------------------------------------------------------------------

    def _note(
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
        cells = route.cells if route is not None else snapshot.unrouted
        self.cells.observe(cells.duration.get(status, cells.duration_other), took)
        answer = work.answer
        log = self.access_log
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
        assert self.tracing is not None
        self.tracing.end(span, name if route is None else f"{name} {route.name}", facts, failed=status >= 500)


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


def _release(admission: Admission, mark: int, began: int, answer: Answer | None) -> int:
    """Gives a place back with what the request's end says about the pool: nothing if it was cancelled (None), not how
    long an answer takes if it was tried more than once. Returns how long the place was held.
    """
    now = time.monotonic_ns()
    took = now - began
    if mark < 0:
        return took
    if answer is None:
        admission.release(mark, took, Outcome.IGNORE, now)
        return took
    response = answer.response
    if response is None:
        outcome = Outcome.IGNORE if isinstance(answer.error, UpstreamTimeout) else Outcome.FAILURE
    elif response.status in (429, 503):
        outcome = Outcome.DROPPED
    else:
        outcome = Outcome.FAILURE if response.status >= 500 else Outcome.SUCCESS
    if answer.attempts == 1:
        admission.release(mark, took, outcome, now)
    else:
        admission.release(0, 0, outcome, now)
    return took
