"""Routes: which requests, to which pool, under which limits, and what is answered when the pool cannot.

The ladder ``degrade`` is tried from its first rung to its last; after the last comes an honest 503.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    StrictBool,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from gateway.config.scalars import Duration, Rate, Ratio, Size, Text, Whole, refuse
from gateway.config.sections.base import FileName, Name, Section, surroundings

PATH = Text(r"/[!-)+->@-~]*", "a path that starts with / (no spaces, no '?', no '*')")
PATH_OR_PREFIX = Text(r"/[!-)+->@-~]*\*?", "a path that starts with /, with at most one '*', at its end")
METHOD = Text(r"[A-Z][A-Z-]*", "an HTTP method in capitals, such as POST")
HOST = Text(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "a host name in lower case, without a port")

CONTENT_TYPES = {
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}


class Match(Section):
    """Which requests a route takes. All conditions given must hold."""

    path: Annotated[str, PATH_OR_PREFIX] = Field(
        description="The path to equal, or a prefix that ends in '*'. Routes are tried in the order they are written.",
        examples=["/v1/models/digits*"],
    )
    methods: tuple[Annotated[str, METHOD], ...] | None = Field(
        default=None, min_length=1, description="HTTP methods, such as [GET, POST]; any if not given."
    )
    host: Annotated[str, HOST] | None = Field(default=None, description="Host name of the request; any if not given.")

    @property
    def prefix(self) -> bool:
        """True if ``literal`` is a prefix, False if it is the whole path."""
        return self.path.endswith("*")

    @property
    def literal(self) -> str:
        """The path without its final ``*``."""
        return self.path.removesuffix("*")


def _or_numbers(schema: dict[str, Any]) -> None:
    """Status codes may stand without quotes."""
    schema["items"]["enum"] += [int(each) for each in schema["items"]["enum"] if each.isdigit()]
    del schema["items"]["type"]


class Retry(Section):
    """When a failed try may be repeated on another backend."""

    attempts: Annotated[int, Whole(1, 10)] = Field(default=2, description="Tries in total; 1 means no retry.")
    on: tuple[Literal["connect", "reset", "502", "503", "504"], ...] = Field(
        default=("connect",),
        description="What is retried: 'connect' (the backend never saw the request); 'reset' (the connection broke "
        "before the whole answer came) and answers 502, 503, 504, which need a request that may run twice.",
        json_schema_extra=_or_numbers,
    )
    replayable: StrictBool = Field(
        default=False,
        description="Whether any request of the route may run twice, as pure inference may; without it only GET, HEAD, "
        "OPTIONS, TRACE, PUT and DELETE are sent again once a backend may have seen them.",
    )
    budget: Annotated[float, Ratio(0.0, 1.0)] = Field(
        default=0.2, description="Retries allowed as a share of the route's requests, from 0 to 1."
    )
    budget_min: Annotated[float, Rate("0/s", "10000/s")] = Field(
        default=10.0, description="Retries always allowed per time, per worker, however few requests there are."
    )

    @field_validator("on", mode="before")
    @classmethod
    def _codes(cls, value: object) -> object:
        """Status codes are written bare in YAML."""
        if isinstance(value, (list, tuple)):
            return [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value]
        return value


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
    rewrite: Mapping[Annotated[str, PATH], Annotated[str, PATH]] = Field(
        default={},
        description="Path prefixes to replace, {from: to}; the longest 'from' that the path starts with counts.",
    )
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


class Route(Section):
    """One class of requests and everything that is done for it."""

    name: Name = Field(description="Name in metrics, logs and limits; unique.", examples=["digits"])
    match: Match = Field(description="Which requests the route takes.", examples=["{path: /v1/models/digits*}"])
    pool: Name = Field(description="Pool that answers.", examples=["digits"])
    limits: tuple[Name, ...] = Field(default=(), description="Limits that a request must pass, in this order.")
    timeout: Annotated[float, Duration("1ms", "1h")] = Field(
        default=30.0, description="Deadline of the whole request, retries and other pools included."
    )
    retry: Retry = Field(default=Retry.model_construct(), description="When a failed try is repeated.")
    cache: RouteCache | None = Field(
        default=None, description="Caching of answers; none unless given ({} for defaults)."
    )
    degrade: tuple[Rung, ...] = Field(
        default=(), description="What to answer when the pool cannot, from the first rung to the last; then 503."
    )
