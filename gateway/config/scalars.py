"""The kinds of leaf a configuration has, each with its bounds, its own error sentences and its JSON schema.

A kind is metadata inside ``Annotated``: ``timeout: Annotated[float, Duration("1ms", "1h")]``. Invariants:
* what is accepted from a file is exactly what the JSON schema of the same object describes;
* every refusal says what is allowed; the location is added by :mod:`gateway.config.diagnosis`;
* a caller in Python (no validation context) may hand numbers that are already in seconds, bytes or events per second.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from gateway.config import units
from gateway.config.addresses import Listen, Origin, StoreUrl


def refuse(message: str, hint: str | None = None, at: str | tuple[str | int, ...] | None = None) -> PydanticCustomError:
    """An error whose text follows the location ("store.timeout must be ..."), or stands alone if it starts with a
    capital.

    ``at`` names the key of the section (or the way down to it) that is to blame, for checks that look at several keys.
    """
    return PydanticCustomError("gateway", "{message}", {"message": message, "hint": hint, "at": at})


def shown(value: object) -> str:
    """A value as the user wrote it, short enough for a sentence."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}...{text[-1]}"


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Kind:
    """Base of all kinds: subclasses say how to ``accept`` a raw value and what their JSON schema is."""

    def accept(self, value: object) -> object:
        raise NotImplementedError

    def json_schema(self) -> dict[str, Any]:
        raise NotImplementedError

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.accept)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return self.json_schema()


@dataclass(frozen=True)
class Quantity(Kind):
    """A number with a unit, between two bounds that are written in the same unit. Both bounds are allowed values."""

    ge: str
    le: str

    what: ClassVar[str]
    units: ClassVar[tuple[str, str]] = ("KiB", "MiB")

    def parse(self, text: str) -> float:
        raise NotImplementedError

    def format(self, value: float) -> str:
        raise NotImplementedError

    bare: ClassVar[tuple[type, ...]] = ()  # the kinds of number that need no unit in a file

    def accept(self, value: object) -> float:
        """A value from Python: a number is in base units already."""
        return self.bounded(value, (int, float))

    def accept_from(self, value: object, info: core_schema.ValidationInfo) -> float:
        return self.accept(value) if info.context is None else self.bounded(value, self.bare)

    def bounded(self, value: object, bare: tuple[type, ...]) -> float:
        if isinstance(value, bool):
            raise refuse(f"must be {self.what}, not {shown(value)}")
        if isinstance(value, (int, float)) and isinstance(value, bare):
            parsed: float = value
        else:
            try:
                parsed = self.parse(str(value) if isinstance(value, (str, int, float)) else "?")
            except ValueError as error:
                raise refuse(f"must be {error}, not {shown(value)}", self.advice(value)) from None
        if not self.parse(self.ge) <= parsed <= self.parse(self.le):
            raise refuse(f"must be between {self.ge} and {self.le}, not {shown(value)}")
        return parsed

    def advice(self, value: object) -> str | None:
        """A hint for a value that could not be read."""
        return f"it needs a unit: {value}{self.units[0]} or {value}{self.units[1]}?" if is_number(value) else None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self.accept_from)


class Duration(Quantity):
    """Seconds as a float, written with ms, s, m or h."""

    what = "a duration"
    units = ("s", "ms")

    def parse(self, text: str) -> float:
        return units.parse_duration(text)

    def format(self, value: float) -> str:
        return units.format_duration(value)

    def json_schema(self) -> dict[str, Any]:
        text = {"type": "string", "pattern": units.DURATION_PATTERN, "x-minimum": self.ge, "x-maximum": self.le}
        return {"anyOf": [text, {"const": 0}]} if self.parse(self.ge) == 0 else text


class Size(Quantity):
    """Whole bytes, written with B, KB, MB, GB (1000) or KiB, MiB, GiB (1024); a bare number is bytes."""

    what = "a size"
    bare = (int,)

    def parse(self, text: str) -> float:
        return units.parse_size(text)

    def format(self, value: float) -> str:
        return units.format_size(int(value))

    def advice(self, value: object) -> str | None:
        found = re.fullmatch(r"([0-9]+) ?([kmgKMG])[iI]?[bB]?", value) if isinstance(value, str) else None
        return f"did you mean '{found[1]}{found[2].upper()}iB'?" if found else None

    def json_schema(self) -> dict[str, Any]:
        return {
            "type": ["string", "integer"],
            "pattern": units.SIZE_PATTERN,
            "minimum": units.parse_size(self.ge),
            "maximum": units.parse_size(self.le),
            "x-minimum": self.ge,
            "x-maximum": self.le,
        }


class Rate(Quantity):
    """Events per second as a float, written with /s, /m or /h."""

    what = "a rate"
    units = ("/s", "/m")

    def parse(self, text: str) -> float:
        return units.parse_rate(text)

    def format(self, value: float) -> str:
        return units.format_rate(value)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": units.RATE_PATTERN, "x-minimum": self.ge, "x-maximum": self.le}


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number from ``ge`` to ``le``, both allowed; ``words`` are texts allowed beside it."""

    ge: int
    le: int
    words: tuple[str, ...] = ()

    def accept(self, value: object) -> int | str:
        if isinstance(value, int) and not isinstance(value, bool) and self.ge <= value <= self.le:
            return value
        if isinstance(value, str) and value in self.words:
            return value
        also = "".join(f"{word} or " for word in self.words)
        raise refuse(f"must be {also}a whole number from {self.ge} to {self.le}, not {shown(value)}")

    def json_schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": self.ge, "maximum": self.le}
        return {"anyOf": [{"enum": list(self.words)}, number]} if self.words else number


@dataclass(frozen=True)
class Ratio(Kind):
    """A number from ``ge`` to ``le``, both allowed."""

    ge: float = 0.0
    le: float = 1.0

    def accept(self, value: object) -> float:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and self.ge <= value <= self.le:
            return float(value)
        percent = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,3})?) ?%", value) if isinstance(value, str) else None
        hint = f"{value} is {float(percent[1]) / 100:g}" if percent else None
        raise refuse(f"must be a number from {self.ge:g} to {self.le:g}, not {shown(value)}", hint)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.ge, "maximum": self.le}


@dataclass(frozen=True)
class Amount(Kind):
    """A number, whole or not, from ``ge`` to ``le``, both allowed."""

    ge: float
    le: float

    def accept(self, value: object) -> float:
        if is_number(value) and isinstance(value, (int, float)) and self.ge <= value <= self.le:
            return float(value)
        raise refuse(f"must be a number from {self.ge:g} to {self.le:.10g}, not {shown(value)}")

    def json_schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": self.ge, "maximum": self.le}


@dataclass(frozen=True)
class Text(Kind):
    """Text that matches ``pattern`` in full; ``what`` completes "must be"."""

    pattern: str
    what: str
    hint: str | None = None
    secret: bool = False

    def accept(self, value: object) -> str:
        if isinstance(value, str) and re.fullmatch(self.pattern, value):
            return value
        advice = self.hint or (f'write it in quotes: "{value}"' if isinstance(value, (int, float)) else None)
        raise refuse(f"must be {self.what}" + ("" if self.secret else f", not {shown(value)}"), advice)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class Address(Kind):
    """Text that one of the address classes parses; the class's own ``ValueError`` is the sentence shown."""

    kind: type[Listen] | type[StoreUrl] | type[Origin]
    example: str

    def accept(self, value: object) -> Listen | StoreUrl | Origin:
        if isinstance(value, self.kind):
            return value
        if not isinstance(value, str):
            raise refuse(f"must be text such as {self.example}, not {shown(value)}")
        try:
            return self.kind.parse(value)
        except ValueError as error:
            raise refuse(f": {error}") from None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        printed = core_schema.to_string_ser_schema(when_used="json")
        return core_schema.no_info_plain_validator_function(self.accept, serialization=printed)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "examples": [self.example]}


@dataclass(frozen=True)
class Network(Kind):
    """An address or a network in CIDR form, or the word ``unix``; kept as text in canonical form."""

    def accept(self, value: object) -> str:
        if value == "unix":
            return "unix"
        hint = None
        try:
            if isinstance(value, str):
                return str(ipaddress.ip_network(value)).removesuffix("/32").removesuffix("/128")
        except ValueError:
            try:
                hint = f"did you mean '{ipaddress.ip_network(str(value), strict=False)}'?"
            except ValueError:
                hint = "host names are not looked up; write addresses" if re.search("[g-z]", str(value)) else None
        raise refuse(f"must be an address, a network such as 10.0.0.0/8, or unix, not {shown(value)}", hint)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "string", "examples": ["10.0.0.0/8"]}
