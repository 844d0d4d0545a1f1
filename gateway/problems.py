"""Every refusal the gateway itself speaks, as RFC 9457 `application/problem+json`.

On paths of a model protocol (TensorFlow Serving `/v1/models/`, Open Inference Protocol `/v2/`) the body keeps that
protocol's own shape `{"error": "..."}`, so that its clients understand it.
"""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import orjson

from gateway.request import Header, Request, Response

_BASE: Final = "https://iana.org/assignments/http-problem-types#"


class Problem(NamedTuple):
    """A kind of refusal: constant parts only."""

    status: int
    type: str
    title: str


BAD_REQUEST: Final = Problem(400, "about:blank", "Bad request")
UNKNOWN_CALLER: Final = Problem(401, "about:blank", "Unauthorized")
NO_ROUTE: Final = Problem(404, "about:blank", "Not found")
WRONG_METHOD: Final = Problem(405, "about:blank", "Method not allowed")
OVER_LIMIT: Final = Problem(429, _BASE + "quota-exceeded", "Request quota exceeded")
ABOVE_BURST: Final = Problem(413, "about:blank", "Request larger than its limit")
NO_CAPACITY: Final = Problem(503, _BASE + "temporary-reduced-capacity", "No backend can answer now")
OVERLOADED: Final = Problem(503, _BASE + "temporary-reduced-capacity", "Overloaded")
STORE_CLOSED: Final = Problem(503, _BASE + "temporary-reduced-capacity", "Limits cannot be checked now")
BACKEND_FAILED: Final = Problem(502, "about:blank", "Backend failed")
TOO_LATE: Final = Problem(504, "about:blank", "No answer in time")

_PROBLEM_JSON: Final = (b"content-type", b"application/problem+json")
_JSON: Final = (b"content-type", b"application/json")
_PROTOCOL_PATHS: Final = (b"/v1/models/", b"/v2/")


def refuse(
    problem: Problem,
    request: Request | None,
    detail: str,
    *,
    headers: list[Header] | None = None,
    retry_after: float | None = None,
    close: bool = False,
    members: dict[str, Any] | None = None,
) -> Response:
    """The answer for one refusal. `retry_after` in seconds, rounded up; `members` are extension members."""
    out = list(headers or ())
    if retry_after is not None:
        out.append((b"retry-after", b"%d" % max(1, math.ceil(retry_after))))
    if request is not None and request.path.startswith(_PROTOCOL_PATHS):
        out.append(_JSON)
        return Response(problem.status, out, orjson.dumps({"error": f"{problem.title}: {detail}"}), close=close)
    body: dict[str, Any] = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        **(members or {}),
    }
    if request is not None and request.id:
        body["instance"] = request.id.decode("latin-1")
    out.append(_PROBLEM_JSON)
    return Response(problem.status, out, orjson.dumps(body), close=close)
