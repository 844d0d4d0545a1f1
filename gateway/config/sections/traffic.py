"""Where requests go beside one pool: splits, shadow copies, redirects, fixed answers; and edits on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    StrictBool,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from gateway.config.scalars import Duration, Ratio, Text, Whole, refuse, shown
from gateway.config.sections.base import FileName, Name, Section, surroundings
from gateway.config.sections.matching import FIELD, PATH, FieldName
from gateway.config.sections.policies import HEADER_PATTERN
from gateway.routing import words
from gateway.routing.fields import CONNECTION, OWN_REQUEST, OWN_RESPONSE

CONTENT_TYPES = {
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
}
PREFIXES: Any = Field(
    default={},
    description="Path prefixes to replace, {from: to}; the longest 'from' that the path starts with counts.",
)
Prefixes = Mapping[Annotated[str, PATH], Annotated[str, PATH]]


@dataclass(frozen=True)
class Phrase(Text):
    """Text with places such as {model} in it. Which names there are is for ``checks`` to see."""

    def accept(self, value: object) -> str:
        text = super().accept(value)
        try:
            words.pieces(text)
        except ValueError as error:
            raise refuse(f"{error}: {shown(value)}") from None
        return text


PHRASE = Phrase(r"[!-~]([ -~]{0,4094}[!-~])?", "visible ASCII text")
PATH_PHRASE = Phrase(r"/[!-)+->@-~]*", "a path that starts with / (no spaces, no '?', no '*'), perhaps with {captures}")
HOST_PHRASE = Phrase(r"[a-z0-9{}_.-]{1,253}", "a host name in lower case, without a port")
HOST_SENT = Phrase(r"[a-z0-9{}_.:\[\]-]{1,259}", "'backend' (its own address) or a host name in lower case")


@dataclass(frozen=True)
class EditedField(FieldName):
    """The name of a field that may be edited."""

    owned: frozenset[str] = field(default=frozenset(), repr=False)

    HINTS: ClassVar[dict[str, str]] = {
        "host": "rewrite: {host: NAME} changes what the backend gets as Host",
        "x-request-timeout": "the route's 'timeout' decides it",
        "retry-after": "the gateway says when to come back",
    }

    def accept(self, value: object) -> str:
        name = super().accept(value)
        if name in self.owned:
            kind = "it belongs to the connection" if name in CONNECTION else "the gateway says it itself"
            raise refuse(f"must not be '{name}', for {kind}", self.HINTS.get(name))
        return name


REQUEST_FIELD = EditedField(owned=OWN_REQUEST)
RESPONSE_FIELD = EditedField(owned=OWN_RESPONSE)
_VALUES = "Values may hold {captures} and the variables that the head of this page lists."


class Side(Section):
    """One pool of a split."""

    pool: Name = Field(description="Pool that answers.", examples=["digits-canary"])
    weight: Annotated[int, Whole(0, 1_000_000)] = Field(
        description="Share of the route's requests, relative to the other weights; 0 takes the pool out.", examples=[5]
    )
    rewrite: Prefixes = PREFIXES


STICKY_SENTENCE = "must be client, {header: NAME} or {cookie: NAME}"


class Sticky(Section):
    """What a caller is recognised by to keep its pool: client (by address if anonymous), a header field or a cookie."""

    header: Annotated[str, FIELD] | None = Field(default=None, description="Header field whose value is the key.")
    cookie: Annotated[str, Text(HEADER_PATTERN.replace("a-z", "A-Za-z"), "the name of a cookie")] | None = Field(
        default=None, description="Cookie whose value is the key; the gateway reads it and never sets it."
    )

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        if value == "client":
            return {}
        if not isinstance(value, (dict, Sticky)) or (isinstance(value, dict) and not value):
            raise refuse(f"{STICKY_SENTENCE}, not {shown(value)}")
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.header and self.cookie:
            raise refuse(f"{STICKY_SENTENCE}, not both")
        return self

    @model_serializer
    def _as_written(self) -> str | dict[str, str]:
        if self.header:
            return {"header": self.header}
        return {"cookie": self.cookie} if self.cookie else "client"

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        section = handler.resolve_ref_schema(handler(schema))
        return {"description": cls.__doc__, "anyOf": [{"const": "client"}, section]}


class Shadow(Section):
    """Copies of requests for another pool, whose answers nobody gets; the original never waits for them."""

    pool: Name = Field(description="Pool that gets the copies.", examples=["digits-next"])
    share: Annotated[float, Ratio(0.0, 1.0)] = Field(
        default=1.0, description="Part of the requests that is copied, from 0 to 1, of those that reach the pool."
    )
    max_inflight: Annotated[int, Whole(1, 100_000)] = Field(
        default=16, description="Most copies under way, per worker; more are dropped and counted."
    )
    timeout: Annotated[float, Duration("1ms", "1h")] = Field(default=5.0, description="Time allowed to one copy.")
    rewrite: Prefixes = PREFIXES


class Rewrite(Section):
    """What the backend is asked instead. The query always stays."""

    path: Annotated[str, PATH_PHRASE] | None = Field(
        default=None, description="The whole path anew; may hold {captures} of the route's path."
    )
    prefix: Prefixes = PREFIXES
    host: Annotated[str, HOST_SENT] | None = Field(
        default=None,
        description="Host the backend gets: a name (captures allowed), or 'backend' for its own address; the "
        "client's if not given.",
    )

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.path is not None and self.prefix:
            raise refuse("must have 'path' or 'prefix', not both")
        if self.path is None and not self.prefix and self.host is None:
            raise refuse("must have 'path', 'prefix' or 'host'")
        return self


class Redirect(Section):
    """Where the client is sent instead; what is not given stays as it was asked."""

    status: Literal[301, 302, 303, 307, 308] = Field(
        default=307, description="301 and 308 are for good, 302 and 307 for now; 307 and 308 keep method and body."
    )
    scheme: Literal["http", "https"] | None = Field(default=None, description="Scheme of the new address.")
    host: Annotated[str, HOST_PHRASE] | None = Field(
        default=None, description="Host of the new address, without a port; {captures} and {host} allowed."
    )
    port: Annotated[int, Whole(1, 65_535)] | None = Field(default=None, description="Port of the new address.")
    path: Annotated[str, PATH_PHRASE] | None = Field(
        default=None, description="The whole path anew; may hold {captures} of the route's path."
    )
    prefix: Prefixes = PREFIXES
    query: StrictBool = Field(default=True, description="Whether the query goes along.")

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.path is not None and self.prefix:
            raise refuse("must have 'path' or 'prefix', not both")
        if not (self.path or self.prefix or self.host or self.scheme or self.port):
            raise refuse("must change something: 'path', 'prefix', 'scheme', 'host' or 'port'")
        return self


class Respond(Section):
    """A fixed answer."""

    status: Annotated[int, Whole(200, 599)] = Field(default=200, description="Status code.")
    body: Annotated[str, Text(r"[^\x00]{0,65536}", "text of at most 64 KiB")] | None = Field(
        default=None, description="The answer's text; none if not given."
    )
    file: FileName | None = Field(
        default=None, description="File with the body, relative to this file; .json, .txt or .html."
    )
    content_type: Annotated[str, Text(r"[!-~]([ -~]{0,198}[!-~])?", "a media type such as text/plain")] | None = Field(
        default=None, description="Content type; by the file's ending, or text/plain, if not given."
    )
    _content: bytes = PrivateAttr(default=b"")

    @field_validator("file")
    @classmethod
    def _known(cls, value: str | None, info: ValidationInfo) -> str | None:
        files = surroundings(info.context)
        if value is not None and not value.endswith(tuple(CONTENT_TYPES)):
            raise refuse(
                f" must end in one of {', '.join(CONTENT_TYPES)}, which decides the content type, not {value!r}"
            )
        if value is not None and files is not None:
            files.read(value)
        return value

    @model_validator(mode="after")
    def _load(self, info: ValidationInfo) -> Self:
        if self.body is not None and self.file is not None:
            raise refuse("must have 'body' or 'file', not both")
        if self.status in (204, 304) and (self.body or self.file):
            raise refuse(f"must not be {self.status} with a body, for such an answer has none", at="status")
        files = surroundings(info.context)
        if self.file is not None and files is not None:
            self._content = files.read(self.file)
        return self

    @property
    def content(self) -> bytes:
        """The body; a file's was read when the configuration was loaded."""
        return self.body.encode() if self.body is not None else self._content

    @property
    def media_type(self) -> str:
        if self.content_type is not None:
            return self.content_type
        return CONTENT_TYPES["." + self.file.rpartition(".")[2] if self.file else ".txt"]


class RequestEdits(Section):
    """Header fields of the request as the backend gets it; first 'remove', then 'set', then 'add'."""

    set: Mapping[Annotated[str, REQUEST_FIELD], Annotated[str, PHRASE]] = Field(
        default={}, description=f"Fields to replace or make, {{name: value}}. {_VALUES}"
    )
    add: Mapping[Annotated[str, REQUEST_FIELD], Annotated[str, PHRASE]] = Field(
        default={}, description="Values to append to what the client sent, separated by a comma."
    )
    remove: tuple[Annotated[str, REQUEST_FIELD], ...] = Field(default=(), description="Fields not to send on.")


class ResponseEdits(Section):
    """Header fields of every answer of the route, refusals by limits included; 'remove', then 'set', then 'add'."""

    set: Mapping[Annotated[str, RESPONSE_FIELD], Annotated[str, PHRASE]] = Field(
        default={}, description=f"Fields to replace or make, {{name: value}}. {_VALUES}"
    )
    add: Mapping[Annotated[str, RESPONSE_FIELD], Annotated[str, PHRASE]] = Field(
        default={}, description="Fields to add beside what is there."
    )
    remove: tuple[Annotated[str, RESPONSE_FIELD], ...] = Field(default=(), description="Fields to take out.")
