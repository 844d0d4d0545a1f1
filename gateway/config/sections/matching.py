"""Which requests a route takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetJsonSchemaHandler, StrictBool, field_validator, model_validator
from pydantic_core import CoreSchema

from gateway.config.scalars import Text, is_number, refuse, shown
from gateway.config.sections.base import Section
from gateway.config.sections.policies import HEADER_PATTERN
from gateway.routing.regex import Regex
from gateway.routing.template import is_template, parse

PATH = Text(r"/[!-)+->@-~]*", "a path that starts with / (no spaces, no '?', no '*')")
METHOD = Text(r"[A-Z][A-Z-]*", "an HTTP method in capitals, such as POST")
HOST = Text(
    r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?",
    "a host name in lower case, without a port, or *.example.com for all hosts below a domain",
)
PARAMETER = Text(r"[^\x00-\x1f]{1,256}", "the name of a query parameter")
VALUE = Text(r"[^\x00-\x1f\x7f]{0,4096}", "text")


@dataclass(frozen=True)
class FieldName(Text):
    """The name of a header field."""

    pattern: str = HEADER_PATTERN
    what: str = "the name of a header field in lower case"

    def accept(self, value: object) -> str:
        if isinstance(value, str) and value != value.lower():
            hint = f"write '{value.lower()}'; it stands for every spelling"
            raise refuse(f"must be {self.what}, not {shown(value)}", hint)
        return super().accept(value)


FIELD = FieldName()


@dataclass(frozen=True)
class PathPattern(Text):
    """A path, a prefix or a template."""

    pattern: str = r"/[!-)+->@-~]*\*?"
    what: str = "a path that starts with /, with at most one '*', at its end"

    def accept(self, value: object) -> str:
        path = super().accept(value)
        if is_template(path):
            try:
                parse(path)
            except ValueError as error:
                raise refuse(f"{error}: {shown(value)}", "a template looks like /v1/models/{model}:predict") from None
        return path


@dataclass(frozen=True)
class Expression(Text):
    """A regular expression of the linear-time kind."""

    pattern: str = r"[^\x00-\x1f\x7f]{1,1024}"
    what: str = "a regular expression"

    def accept(self, value: object) -> str:
        text = super().accept(value)
        try:
            Regex(text)
        except ValueError as error:
            hint = "it matches the whole value in linear time: no look-around, no back references, no lazy repeats"
            raise refuse(f"{error}: {shown(value)}", hint) from None
        return text


TEST_SENTENCE = "must be a text, or one of {exact: ...}, {prefix: ...}, {regex: ...} and {present: true or false}"


class ValueTest(Section):
    """A condition on one value. Plain text means 'exact'."""

    exact: Annotated[str, VALUE] | None = Field(default=None, description="The whole value.")
    prefix: Annotated[str, VALUE] | None = Field(default=None, description="How the value begins.")
    regex: Annotated[str, Expression()] | None = Field(
        default=None, description="Regular expression for the whole value; matches in linear time."
    )
    present: StrictBool | None = Field(default=None, description="Whether it is there at all.")

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: object) -> object:
        if isinstance(value, str):
            return {"exact": value}
        if is_number(value) or isinstance(value, bool):
            raise refuse(f"must be text, not {shown(value)}", f'write it in quotes: "{shown(value)}"')
        if not isinstance(value, (dict, ValueTest)):
            raise refuse(f"{TEST_SENTENCE}, not {shown(value)}")
        return value

    @model_validator(mode="after")
    def _one(self) -> "ValueTest":
        if sum(each is not None for each in (self.exact, self.prefix, self.regex, self.present)) != 1:
            raise refuse(TEST_SENTENCE)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        section = handler.resolve_ref_schema(handler(schema))
        return {"description": cls.__doc__, "anyOf": [{"type": "string"}, section]}


def or_one(schema: dict[str, Any]) -> None:
    """One text may stand without its list."""
    schema["anyOf"] = [schema["items"], {name: schema.pop(name) for name in ("type", "items")}]


class Match(Section):
    """Which requests a route takes. All conditions given must hold."""

    path: Annotated[str, PathPattern()] = Field(
        description="The path to equal; a prefix that ends in '*'; or a template such as /v1/models/{model}:predict "
        "or /v1/models/{model}/*, whose captures take part of one segment. Routes are tried in the order they are "
        "written.",
        examples=["/v1/models/digits*"],
    )
    methods: tuple[Annotated[str, METHOD], ...] | None = Field(
        default=None,
        min_length=1,
        description="HTTP methods, such as [GET, POST]; any if not given. CONNECT and TRACE are never served.",
    )
    host: tuple[Annotated[str, HOST], ...] = Field(
        default=(),
        description="Host name of the request, or *.example.com for every host below it; one or a list, any if not "
        "given. The port does not count.",
        json_schema_extra=or_one,
    )
    headers: Mapping[Annotated[str, FIELD], ValueTest] = Field(
        default={}, description="Conditions on header fields, {name: text} or {name: {prefix: text}}."
    )
    query: Mapping[Annotated[str, PARAMETER], ValueTest] = Field(
        default={}, description="Conditions on query parameters after decoding; the first of a name counts."
    )

    @field_validator("host", mode="before")
    @classmethod
    def _one_or_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @property
    def template(self) -> bool:
        """True if the path has captures."""
        return is_template(self.path)

    @property
    def prefix(self) -> bool:
        """True if ``literal`` is a prefix, False if it is the whole path."""
        return self.path.endswith("*") and not self.template

    @property
    def literal(self) -> str:
        """The path without its final ``*``."""
        return self.path.removesuffix("*")

    @property
    def head(self) -> str:
        """The text that every path begins with."""
        return self.literal.partition("{")[0]

    @property
    def whole(self) -> bool:
        """True if there is one path only."""
        return not self.path.endswith("*") and not self.template
