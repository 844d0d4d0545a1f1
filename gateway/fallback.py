"""What is answered where a route's pool has no answer: down the rungs of its degrade ladder.

    stale -> smaller model -> static -> 503

Invariants: what is answered instead says so (`Degraded`, `Proxy-Status`); the request's deadline holds for all rungs
together; another pool is entered as any pool is.
"""

from __future__ import annotations

import time

from gateway.degrade.cache import AnswerCache
from gateway.degrade.ladder import PoolRung, StaleRung
from gateway.notes import Work
from gateway.replies import again, overloaded, proxy_status, unanswered
from gateway.request import Request, Response
from gateway.snapshot import Route, Snapshot
from gateway.telemetry.cells import Cells
from gateway.upstreams.caller import Caller
from gateway.upstreams.entrance import NO_PLACE, Entrance, leave


class Fallback:
    """One per worker."""

    __slots__ = ("_cache", "_caller", "_cells", "_entrance")

    def __init__(self, cache: AnswerCache, caller: Caller, entrance: Entrance, cells: Cells) -> None:
        self._cache = cache
        self._caller = caller
        self._entrance = entrance
        self._cells = cells

    async def answer(
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
                self._cells.add(cell)
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
        entry = await self._cache.find(key, rules.fresh + rules.stale_if_error, now)
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
        mark = self._entrance.enter(pool, route.priority, request, time.monotonic_ns())
        if mark == NO_PLACE and pool.inflight < pool.max_inflight:
            mark = await self._entrance.wait_for_place(pool, route.priority, request, deadline)
        if mark <= NO_PLACE:
            return None
        began = time.monotonic_ns()
        patience = route.timeout_ns if rung.timeout is None else int(rung.timeout * 1e9)
        end = min(deadline, began + patience)
        try:
            answer = await self._caller.ask(pool, request, rung.target(request), end, None, work.dropped, patience // 2)
        except BaseException:  # cancelled
            leave(pool.admission, mark, began, None)
            raise
        work.upstream_ns += leave(pool.admission, mark, began, answer)
        work.sent = work.sent or answer.reached
        response = answer.response
        # 404 is a rewrite that missed, not an answer to the client's question.
        if response is not None and (response.status >= 500 or response.status in (404, 429)):
            response.discard()
            return None
        if response is not None and work.via is not None:
            response.headers.append(work.via)
        return response
