"""What a request costs, in tokens, before it is sent on; and what it cost after all, once the backend has answered.

A cost that is only known afterwards is reserved first: `reserve` is taken, and the difference is settled when the
answer's head is there (a header field says it) or when the body has come (a stream of unknown length).
"""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from gateway.request import Request, Response

LARGEST: Final = 1024 * 1024  # bytes of a body that is looked into for its rows: about 2 ms
MOST: Final = 1e8  # tokens, as many as the largest burst; what a backend says beyond is not believed
UNKNOWN: Final = -1.0
NONSENSE: Final = -2.0  # something was said that is no cost
_BLANK: Final = b" \t\r\n\0\xef\xbb\xbf\xfe\xff"  # before JSON (RFC 8259 section 2), also in other encodings
_DECIMAL: Final = re.compile(rb"[0-9]{1,15}(\.[0-9]{1,9})?")


class Cost:
    """Base of all costs, and the constant one: `tokens` a request. `unit` is the draft's `qu`, empty for requests."""

    #: Whether the cost is the same for every request, and whether it may have to be settled.
    constant = True
    settles = False

    def __init__(self, tokens: float = 1.0, unit: str = "") -> None:
        self.tokens = tokens
        self.unit = unit

    def of(self, request: Request) -> float:
        """Tokens to take now."""
        return self.tokens

    def answered(self, response: Response) -> float:
        """Tokens it cost after all, by the answer's head; `UNKNOWN` if that says nothing, `NONSENSE` if no cost."""
        return UNKNOWN

    def ended(self, request: Request) -> float:
        """Tokens it cost after all, now that everything has come; `UNKNOWN` if it was right before."""
        return UNKNOWN


class BodyCost(Cost):
    """A token for each `bytes_each` bytes of the request's body, the last ones as a whole; at least one."""

    constant = False
    settles = True

    def __init__(self, bytes_each: int, unit: str = "content-bytes") -> None:
        super().__init__(1.0, unit)
        self.bytes_each = bytes_each

    def of(self, request: Request) -> float:
        stream = request.stream
        if stream is None:
            return self._tokens(len(request.body))
        return self._tokens(stream.length or 0)

    def ended(self, request: Request) -> float:
        stream = request.stream
        if stream is None or stream.length is not None:
            return UNKNOWN
        return self._tokens(stream.total)

    def _tokens(self, size: int) -> float:
        return float(max(1, -(-size // self.bytes_each)))


class RowsCost(Cost):
    """`tokens` for each row of the batch: TensorFlow Serving's `instances`, `inputs` or `examples`, or the first
    dimension of an Open Inference Protocol request. What is no such request (it has no body, or none that is a JSON
    object with one of them) costs as much as one row. `otherwise` is the cost of a body that may hide its rows: it
    streams, is larger than `LARGEST`, cannot be read, says its rows twice, or is all raw tensors.
    """

    constant = False

    def __init__(self, tokens: float, otherwise: float, unit: str = "rows") -> None:
        super().__init__(tokens, unit)
        self.otherwise = otherwise

    def of(self, request: Request) -> float:
        body = request.body
        if request.stream is not None or len(body) > LARGEST:
            return self.otherwise
        head = request.headers.get(b"inference-header-content-length")  # JSON, then raw tensors
        if head is not None:
            if not head.isdigit() or len(head) > 9 or not int(head):
                return self.otherwise
            body = body[: int(head)]
        if not body.lstrip(_BLANK).startswith(b"{"):
            return self.tokens
        count = rows(body)
        return self.otherwise if count < 0 else max(1, count) * self.tokens


def rows(body: bytes) -> int:
    """Rows in a request of TensorFlow Serving or the Open Inference Protocol; 0 if it is none, -1 if they cannot be
    told.
    """
    for name in (b'"instances"', b'"inputs"', b'"examples"'):
        if body.count(name) > 1:  # parsers differ in which one they take
            return -1
    try:
        data: Any = orjson.loads(body)
    except ValueError:
        return -1
    if not isinstance(data, dict):
        return -1
    if data.keys().isdisjoint(("instances", "inputs", "examples")):
        return 0
    found = data.get("instances", data.get("examples"))
    if isinstance(found, list):
        return len(found)
    found = data.get("inputs")
    if isinstance(found, dict):  # columns by name: all have as many rows
        found = next(iter(found.values()), None)
    if not isinstance(found, list):
        return -1 if found is None else 1
    first = found[0] if found else None
    if isinstance(first, dict) and "shape" in first:
        shape = first["shape"]
        if isinstance(shape, list) and shape and isinstance(shape[0], int) and shape[0] >= 0:
            return shape[0]
        return -1
    return len(found)


class HeaderCost(Cost):
    """What the backend says in a header field of its answer, such as the tokens it generated. `reserve` is taken
    first; without the field, or with nonsense in it, that stays the cost.

    A cost is a decimal number without sign or exponent, from 0 to `MOST` (RFC 9651 section 3.3.2 has fewer digits).
    """

    settles = True

    def __init__(self, name: bytes, reserve: float, unit: str = "units") -> None:
        super().__init__(reserve, unit)
        self.name = name

    def answered(self, response: Response) -> float:
        said = response.header(self.name)
        if said is None:
            return UNKNOWN
        if _DECIMAL.fullmatch(said) is None:
            return NONSENSE
        tokens = float(said)
        return tokens if tokens <= MOST else NONSENSE
