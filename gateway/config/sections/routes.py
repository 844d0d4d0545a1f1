"""Routes: which requests, to which pool, under which limits, and what is answered when the pool cannot.

The ladder ``degrade`` is tried from its first rung to its last; after the last comes an honest 503.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from gateway.config.scalars import Duration, Size, Whole, refuse
from gateway.config.sections.base import FileName, Name, Section, surroundings
from gateway.config.sections.matching import Match
from gateway.config.sections.retrying import Hedge, Retry
from gateway.config.sections.traffic import (
    CONTENT_TYPES,
    PREFIXES,
    Prefixes,
    Redirect,
    RequestEdits,
    Respond,
    ResponseEdits,
    Rewrite,
    Shadow,
    Side,
    Sticky,
)


class RouteCache(Section):
    """What may be answered from earlier responses."""

    fresh: Annotated[float, Duration("0s", "24h")] = Field(
        default=0.0, description="Answer from the cache for this long without asking the pool; 0s always asks."
    )
    stale_if_error: Annotated[float, Duration("0s", "168h")] = Field(
        default=600.0, description="How long past 'fresh' the rung 'stale' may still use a response."
    )
    max_entry: Annotated[int, Size("1B", "64MiB")] = Field(
        default=1024 * 1024, description="Largest response that is kept."
    )


class StaleRung(Section):
    """The last good answer to the same request."""

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        return {} if value == "stale" else value

    @model_serializer
    def _as_word(self) -> str:
        return "stale"

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"const": "stale", "description": cls.__doc__}


class PoolRung(Section):
    """Another pool, for example with a smaller model."""

    pool: Name = Field(description="Pool to ask instead.", examples=["digits-small"])
    rewrite: Prefixes = PREFIXES
    timeout: Annotated[float, Duration("1ms", "1h")] | None = Field(
        default=None, description="Time allowed to this pool; what is left of the route's timeout if not given."
    )


class StaticRung(Section):
    """A fixed answer from a file."""

    static: FileName = Field(
        description="File with the body, relative to this file; .json, .txt or .html.",
        examples=["fallback/digits.json"],
    )
    status: Annotated[int, Whole(200, 599)] = Field(default=200, description="Status code of the answer.")
    _content: bytes = PrivateAttr(default=b"")

    @field_validator("static")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        if not value.endswith(tuple(CONTENT_TYPES)):
            raise refuse(
                f" must end in one of {', '.join(CONTENT_TYPES)}, which decides the content type, not {value!r}"
            )
        files = surroundings(info.context)
        if files is not None:
            files.read(value)
        return value

    @model_validator(mode="after")
    def _load(self, info: ValidationInfo) -> Self:
        files = surroundings(info.context)
        if files is not None:
            self._content = files.read(self.static)
        return self

    @property
    def content(self) -> bytes:
        """The file's content, read when the configuration was loaded."""
        return self._content

    @property
    def content_type(self) -> str:
        return CONTENT_TYPES[self.static[self.static.rindex(".") :]]


def _rung_kind(value: object) -> str | None:
    """The tag of a rung. Tags stand in pydantic's locations; the brackets keep them apart from keys."""
    if value == "stale" or isinstance(value, StaleRung):
        return "<stale>"
    keys = value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Section) else ()
    return next((f"<{kind}>" for kind in ("pool", "static") if kind in keys), None)


RUNG_SENTENCE = "must be stale, {pool: NAME} or {static: FILE}"

Rung = Annotated[
    Annotated[StaleRung, Tag("<stale>")] | Annotated[PoolRung, Tag("<pool>")] | Annotated[StaticRung, Tag("<static>")],
    Discriminator(_rung_kind, custom_error_type="rung", custom_error_message=RUNG_SENTENCE),
]


def _one_destination(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": [each]} for each in ("pool", "split", "redirect", "respond")]


class Route(Section):
    """One class of requests and everything that is done for it. It has one of pool, split, redirect and respond."""

    model_config = ConfigDict(json_schema_extra=_one_destination)

    name: Name = Field(description="Name in metrics, logs and limits; unique.", examples=["digits"])
    match: Match = Field(description="Which requests the route takes.", examples=["{path: /v1/models/digits*}"])
    pool: Name | None = Field(default=None, description="Pool that answers.", examples=["digits"])
    split: tuple[Side, ...] | None = Field(
        default=None,
        min_length=1,
        description="Pools that share the requests by weight, instead of one pool: canary releases, A/B tests. If the "
        "chosen pool cannot answer, the ladder 'degrade' decides; it may name the other pool.",
        examples=["[{pool: digits, weight: 95}, {pool: digits-canary, weight: 5}]"],
    )
    sticky: Sticky | None = Field(
        default=None,
        description="Keeps a caller on one side of the split: client, {header: NAME} or {cookie: NAME}; a request "
        "without it is drawn by lot.",
    )
    redirect: Redirect | None = Field(default=None, description="Send the client elsewhere instead of asking a pool.")
    respond: Respond | None = Field(default=None, description="Give a fixed answer instead of asking a pool.")
    shadow: Shadow | None = Field(default=None, description="Send copies to another pool as well.")
    rewrite: Rewrite | None = Field(default=None, description="Path and Host that the pool is asked with.")
    request_headers: RequestEdits | None = Field(default=None, description="Edits of the request's header fields.")
    response_headers: ResponseEdits | None = Field(default=None, description="Edits of the answer's header fields.")
    limits: tuple[Name, ...] = Field(default=(), description="Limits that a request must pass, in this order.")
    priority: Literal["critical", "default", "batch"] = Field(
        default="default",
        description="Who goes first where a pool has no free place: 'critical', then 'default', then 'batch', which "
        "gets what the others leave. See also the section 'priority'.",
    )
    timeout: Annotated[float, Duration("1ms", "1h")] = Field(
        default=30.0, description="Deadline of the whole request, retries and other pools included."
    )
    buffer: Annotated[int, Size("1B", "1GiB")] = Field(
        default=1024 * 1024,
        description="A request body up to this is held whole, so that it can be tried again; a larger one streams to "
        "the backend and is sent once. Bodies of a stated length up to 16 KiB are always held.",
    )
    max_body: Annotated[int, Size("1B", "1024GiB")] | None = Field(
        default=None, description="Largest request body on this route; http.max_body if not given."
    )
    upgrade: tuple[Literal["websocket"], ...] = Field(
        default=(), description="Protocols that a client may switch to; the connection then goes to one backend."
    )
    retry: Retry = Field(default=Retry.model_construct(), description="When a failed try is repeated.")
    hedge: Hedge | None = Field(
        default=None, description="When a second backend is asked as well; never unless given ({} for defaults)."
    )
    cache: RouteCache | None = Field(
        default=None, description="Caching of answers; none unless given ({} for defaults)."
    )
    degrade: tuple[Rung, ...] = Field(
        default=(), description="What to answer when the pool cannot, from the first rung to the last; then 503."
    )

    @property
    def sides(self) -> tuple[Side, ...]:
        """The sides of the split, if there is one."""
        return self.split or ()

    @property
    def pools(self) -> tuple[str, ...]:
        """The pools that answer, in the order written; none for a redirect or a fixed answer."""
        return tuple(side.pool for side in self.sides) or ((self.pool,) if self.pool is not None else ())
