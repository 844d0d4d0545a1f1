"""What the gateway itself has to say: refusals, and the fields that it adds to answers."""

from __future__ import annotations

import time
from typing import Final

from gateway import problems
from gateway.admission.queue import LATE
from gateway.errors import (
    BadUpstreamResponse,
    ConnectionBroken,
    ProtocolError,
    ResponseTooLarge,
    StaleConnection,
    TlsFailed,
    UpstreamTimeout,
)
from gateway.limits.verdict import ALONE, YES, LimitVerdict
from gateway.problems import Problem, refuse
from gateway.request import Header, Request, Response
from gateway.snapshot import Route
from gateway.status import REASONS
from gateway.upstreams.asking import Answer

_METHODS: Final = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"  # of those that may have a route, the usual
_WHOLE: Final = tuple([b"%d" % whole for whole in range(1000)])
_HUNDREDTHS: Final = tuple([b".%02d" % part for part in range(100)])
_MANY_HOPS: Final = 1_000_000_000


def about(request: Request, route: Route | None) -> Response | None:
    """The answer to an OPTIONS request that is meant for us: about the server as a whole (RFC 9110 section 9.3.7), or
    by a client that wants to know this hop (section 7.6.2). None for all others; they have a hop less to go.
    """
    if request.path == b"*":
        return Response(204, [(b"allow", _METHODS)])
    hops = request.headers.get(b"max-forwards")
    if route is None or hops is None or not hops.isdigit():
        return None
    left = int(hops) if len(hops) < 10 else _MANY_HOPS
    if not left:
        methods = route.match.methods
        return Response(204, [(b"allow", b", ".join(sorted(methods)) if methods else _METHODS)])
    request.headers[b"max-forwards"] = b"%d" % (left - 1)
    return None


def bad_request(error: ProtocolError) -> Response:
    """The answer to bytes that are not an acceptable request; the connection closes after it."""
    title = REASONS.get(error.error_status, error.title)
    return refuse(Problem(error.error_status, "about:blank", title), None, str(error), close=True)


def again(response: Response, age_s: int, cache_status: bytes) -> Response:
    """A kept answer, said again with its age (RFC 9111 section 5.1, RFC 9211)."""
    headers = [*response.headers, (b"age", b"%d" % age_s), (b"cache-status", cache_status)]
    return Response(response.status, headers, response.body)


def say_limits(headers: list[Header], verdict: LimitVerdict) -> None:
    """Adds what the limits have to say of themselves, and of the store."""
    limits = verdict.limits
    if verdict.by == ALONE:
        _say_degraded(headers, b"limits;mode=" + verdict.mode())
    if limits.silent:
        return
    headers.append((b"ratelimit-policy", verdict.policy_header()))
    headers.append((b"ratelimit", verdict.left_header()))
    if limits.legacy is not None:
        at = limits.policies.index(limits.legacy)
        policy, level = verdict.policies[at], verdict.levels[at]
        allowed = verdict.flags[at] == YES
        reset = policy.full_in(level) if allowed else policy.seconds(level, verdict.costs[at])
        headers.append((b"x-ratelimit-limit", b"%d" % int(policy.spec.burst)))
        headers.append((b"x-ratelimit-remaining", b"%d" % max(0, int(level))))
        headers.append((b"x-ratelimit-reset", b"%d" % reset))


def milliseconds(nanoseconds: int) -> bytes:
    """With two decimals, as Server-Timing has durations."""
    hundredths = nanoseconds // 10_000
    whole = hundredths // 100
    return (_WHOLE[whole] if whole < 1000 else b"%d" % whole) + _HUNDREDTHS[hundredths % 100]


def over_limit(request: Request, verdict: LimitVerdict) -> Response:
    """A limit has refused the request, or the store is away and its policy is `closed`."""
    policy = verdict.refused_by
    assert policy is not None
    headers: list[Header] = []
    say_limits(headers, verdict)
    if verdict.by == ALONE and policy.on_store_failure == "closed":
        return refuse(problems.STORE_CLOSED, request, "the rate limit store is away", headers=headers, retry_after=1)
    return refuse(
        problems.OVER_LIMIT,
        request,
        f"over the limit '{policy.name}': {policy.figures()}",
        headers=headers,
        retry_after=verdict.retry_after(),
        members={"violated-policies": [policy.name]},
    )


def too_large(request: Request, verdict: LimitVerdict, i: int) -> Response:
    """It costs more than the limit ever holds: no later try can pass, so nothing is said of when (RFC 9110 section
    15.5.14; a 429 says "too many", which the client could wait out).
    """
    headers: list[Header] = []
    say_limits(headers, verdict)
    policy, cost = verdict.policies[i], verdict.costs[i]
    detail = f"this request costs {cost:.10g}, and the limit '{policy.name}' never holds more than its burst of "
    detail += f"{policy.spec.burst:.10g}: send less at once"
    return refuse(problems.ABOVE_BURST, request, detail, headers=headers, members={"violated-policies": [policy.name]})


def _say_degraded(headers: list[Header], member: bytes) -> None:
    """Adds a member to the list in `Degraded`."""
    for i, (name, value) in enumerate(headers):
        if name == b"degraded":
            headers[i] = (name, value + b", " + member)
            return
    headers.append((b"degraded", member))


def proxy_status(answer: Answer | None) -> Header:
    """Why the pool did not answer (RFC 9209)."""
    if answer is not None and answer.error is not None:
        return (b"proxy-status", b"sluicegate; error=" + answer.error.proxy_error)
    if answer is not None and answer.response is not None:
        return (
            b"proxy-status",
            b"sluicegate; error=destination_unavailable; received-status=%d" % answer.response.status,
        )
    return (b"proxy-status", b"sluicegate; error=destination_unavailable")


def overloaded(route: Route, request: Request, reason: int) -> Response:
    """The pool's admission refused the request: at once, and with an estimate of when it is worth another try."""
    pool = route.pool
    retry_after = pool.admission.retry_after(route.priority.of(request))
    if reason == LATE:
        detail = f"the pool '{pool.name}' cannot answer within the time allowed; try again"
    else:
        detail = f"more is asked of the pool '{pool.name}' than it can answer; try again"
    headers = [(b"proxy-status", b"sluicegate; error=destination_unavailable")]
    return refuse(problems.OVERLOADED, request, detail, headers=headers, retry_after=retry_after)


def too_late(request: Request, detail: str) -> Response:
    """The refusal of a request that nobody was asked for; it is ours alone (RFC 9209 section 2.3.28)."""
    headers = [(b"proxy-status", b"sluicegate; error=proxy_internal_response")]
    return refuse(problems.TOO_LATE, request, detail, headers=headers)


def unanswered(route: Route, request: Request, answer: Answer | None, *, late: bool) -> Response:
    """Nobody could answer: the backend's own refusal if there is one, else ours.

    `Retry-After` (RFC 9110 section 10.2.3) is in every refusal that waiting may help: 503, and 504 where the pool was
    asked and is too slow. Not where a request came with too little time, which no waiting would change.
    """
    if answer is not None and answer.response is not None:
        response = answer.response
        if response.status in (429, 503) and response.header(b"retry-after") is None:
            response.headers.append((b"retry-after", b"1"))
        return response
    headers = [proxy_status(answer)]
    error = answer.error if answer is not None else None
    if late and (answer is None or not answer.attempts):
        return too_late(request, f"no time was left for the pool '{route.pool.name}'; nobody was asked")
    retry_after = route.pool.retry_after(time.monotonic_ns())
    if isinstance(error, UpstreamTimeout) or late:
        detail = f"the pool '{route.pool.name}' gave no answer in time"
        return refuse(problems.TOO_LATE, request, detail, headers=headers, retry_after=retry_after)
    if isinstance(error, ResponseTooLarge):
        detail = f"the answer is larger than the max_response of the pool '{route.pool.name}'"
        return refuse(problems.BACKEND_FAILED, request, detail, headers=headers)
    if isinstance(error, (BadUpstreamResponse, ConnectionBroken, StaleConnection)):
        return refuse(problems.BACKEND_FAILED, request, f"a backend of '{route.pool.name}' broke off", headers=headers)
    if isinstance(error, TlsFailed):
        detail = f"there is no secure connection to a backend of '{route.pool.name}'"
        return refuse(problems.BACKEND_FAILED, request, detail, headers=headers)
    detail = f"no backend of the pool '{route.pool.name}' can answer now; try again"
    return refuse(problems.NO_CAPACITY, request, detail, headers=headers, retry_after=retry_after)
