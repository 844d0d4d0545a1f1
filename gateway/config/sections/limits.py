"""Limits: what a bucket belongs to, how deep it is and how fast it fills, and what a request costs."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StrictBool,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from gateway.config.scalars import Amount, Rate, Size, Text, Whole, is_number, refuse, shown
from gateway.config.sections.base import FileName, Section, surroundings
from gateway.config.sections.policies import HEADER_PATTERN

WORDS = ("client", "api-key", "tenant", "ip", "path", "route", "model", "global")
SCOPE_SENTENCE = f" must be one of {', '.join(WORDS)}, {{ip: {{v4: BITS, v6: BITS}}}} or {{header: NAME}}, or a list"
COST_SENTENCE = " must be a number, {body: SIZE}, {rows: N} or {header: NAME, reserve: N}"

FIGURE_RATE = Rate("1/h", "10000000/s")
FIGURE_BURST = Whole(1, 100_000_000)
FIGURE_PLACES = Whole(1, 1_000_000)


class Prefix(Section):
    """How much of an address counts."""

    v4: Annotated[int, Whole(8, 32)] = Field(default=32, description="Leading bits of an IPv4 address.")
    v6: Annotated[int, Whole(16, 128)] = Field(default=64, description="Leading bits of an IPv6 address.")


class Scope(Section):
    """What a bucket belongs to."""

    word: Literal["client", "api-key", "tenant", "ip", "path", "route", "model", "global"] | None = Field(
        default=None, description="One of the words."
    )
    ip: Prefix | None = Field(default=None, description="The client's network, by the leading bits of its address.")
    header: Annotated[str, Text(HEADER_PATTERN, "a header name in lower case")] | None = Field(
        default=None, description="Header field whose value tells buckets apart; requests without it share one."
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        if isinstance(value, str) and value in WORDS:
            return {"word": value}
        if isinstance(value, Scope) or (isinstance(value, dict) and len(value) == 1 and set(value) <= {"ip", "header"}):
            return value
        close = get_close_matches(value, WORDS, 1) if isinstance(value, str) else []
        raise refuse(f"{SCOPE_SENTENCE}, not {shown(value)}", f"did you mean '{close[0]}'?" if close else None)

    @model_serializer
    def _as_written(self) -> Any:
        if self.word is not None:
            return self.word
        return {"ip": self.ip} if self.ip is not None else {"header": self.header}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        section = handler.resolve_ref_schema(handler(schema))
        section.get("properties", {}).pop("word", None)
        return {"description": cls.__doc__, "anyOf": [{"enum": list(WORDS)}, section | {"minProperties": 1}]}


class Cost(Section):
    """What a request takes from a bucket, in tokens."""

    tokens: Annotated[float, Amount(0.001, 1_000_000)] | None = Field(
        default=None, description="The same for every request; a bare number means this."
    )
    body: Annotated[int, Size("1B", "1GiB")] | None = Field(
        default=None,
        description="One token for each so many bytes of the request's body, and at least one. A body of unknown "
        "length is charged when it has come.",
    )
    rows: Annotated[float, Amount(0.001, 1_000_000)] | None = Field(
        default=None,
        description="Tokens for each row of the batch: 'instances', 'inputs' or 'examples' of TensorFlow Serving, the "
        "first dimension of an Open Inference Protocol request. The body (up to 1 MiB) is parsed for it.",
    )
    otherwise: Annotated[float, Amount(0.001, 100_000_000)] | None = Field(
        default=None,
        description="With 'rows': what a body costs that may hide its rows, because it streams, is larger than 1 MiB, "
        "begins like JSON and cannot be read, says its rows twice, or is all raw tensors. A whole burst if not given. "
        "What is no batch at all (no body, no JSON object, none of those members) costs as much as one row.",
    )
    header: Annotated[str, Text(HEADER_PATTERN, "a header name in lower case")] | None = Field(
        default=None,
        description="Header field of the backend's answer that says the cost, for example the tokens it generated: a "
        "decimal number from 0 to 100000000. Anything else is counted (metrics) and changes nothing.",
        examples=["x-tokens-used"],
    )
    reserve: Annotated[float, Amount(0.0, 100_000_000)] | None = Field(
        default=None,
        description="With 'header': what is taken first; the difference is charged or given back when the answer's "
        "head is there. 1 if not given.",
    )

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if is_number(value):
            return {"tokens": value}
        if not isinstance(value, (dict, Cost)) or (isinstance(value, dict) and not value):
            raise refuse(f"{COST_SENTENCE}, not {shown(value)}")
        return value

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("tokens", "body", "rows", "header") if getattr(self, name) is not None]
        if len(given) != 1:
            raise refuse(f"{COST_SENTENCE}, and one of them")
        for name, of in (("otherwise", "rows"), ("reserve", "header")):
            if getattr(self, name) is not None and given != [of]:
                raise refuse(f" belongs to '{of}'", at=name)
        return self

    @model_serializer
    def _as_written(self) -> Any:
        if self.tokens is not None:
            return self.tokens
        return {name: value for name, value in self if value is not None}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        section = handler.resolve_ref_schema(handler(schema))
        return {"description": cls.__doc__, "anyOf": [Amount(0.001, 1_000_000).json_schema(), section]}


class Figures(Section):
    """Keeps how the rate was written."""

    _rate: str = PrivateAttr(default="")

    @model_validator(mode="wrap")
    @classmethod
    def _keep_rate(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(value)
        if isinstance(value, dict) and isinstance(value.get("rate"), str):
            made._rate = value["rate"]  # noqa: SLF001 - of our own class
        return made

    @property
    def rate_as_written(self) -> str:
        """Such as 100/m; empty where none was written."""
        return self._rate


class Override(Figures):
    """Other figures for one key."""

    rate: Annotated[float, FIGURE_RATE] | None = Field(default=None, description="Tokens added per time.")
    burst: Annotated[int, FIGURE_BURST] | None = Field(default=None, description="Most tokens the bucket holds.")
    concurrent: Annotated[int, FIGURE_PLACES] | None = Field(
        default=None, description="Most requests under way, for a limit that counts those."
    )


class OverrideFile(Section):
    """The file that limits.NAME.overrides_file names."""

    version: Literal[1] = Field(description="Version of the file format; 1 is the only one.", examples=[1])
    overrides: Mapping[str, Override] = Field(description="Figures by key.", examples=["{alice: {rate: 1000/s}}"])


def _one_or_list(schema: dict[str, Any]) -> None:
    schema["anyOf"] = [schema["items"], {name: schema.pop(name) for name in ("type", "items", "minItems", "maxItems")}]


class Limit(Figures):
    """A token bucket ('burst' tokens deep, filled at 'rate'), or a number of requests under way ('concurrent')."""

    key: tuple[Scope, ...] = Field(
        min_length=1,
        max_length=6,
        description="What each bucket belongs to: a client (its IP address if anonymous), an api-key, a tenant (of the "
        "key file; the client if it has none), an ip (by default IPv6 by /64; {ip: {v4: 24, v6: 48}} says how much of "
        "the address counts), a {header: NAME}, a path, a route, a model, or global for everybody together. A list "
        "makes a bucket for each combination.",
        examples=["client"],
        json_schema_extra=_one_or_list,
    )
    rate: Annotated[float, FIGURE_RATE] | None = Field(
        default=None, description="Tokens added per time, for the whole fleet.", examples=["100/s"]
    )
    burst: Annotated[int, FIGURE_BURST] | None = Field(
        default=None, description="Most tokens a bucket holds: how many requests may come at once.", examples=[200]
    )
    concurrent: Annotated[int, FIGURE_PLACES] | None = Field(
        default=None,
        description="Instead of rate and burst: most requests under way at once, in the whole fleet. A place is free "
        "again when its answer has been sent, and within 10 s if the gateway that held it died.",
    )
    cost: Cost = Field(
        default=Cost.model_construct(tokens=1.0),
        description="What a request takes: a number of tokens, {body: 4KiB}, {rows: 1} or {header: NAME, reserve: N}. "
        "A request that never reached a backend costs nothing.",
    )
    mode: Literal["exact", "leased"] = Field(
        default="exact",
        description="'exact' asks the store about every request; in 'leased' a busy key's tokens are taken in advance, "
        "some for each worker, and most requests ask nobody. Neither ever admits more than the bucket allows.",
    )
    shadow: StrictBool = Field(
        default=False, description="Decide and count (metrics), but never refuse and say nothing in header fields."
    )
    overrides: Mapping[str, Override] = Field(
        default={},
        description="Other figures for single keys, by what they are called in the key: a client's name for 'client', "
        "several parts joined by '|'.",
        examples=["{alice: {rate: 1000/s, burst: 2000}}"],
    )
    overrides_file: FileName | None = Field(
        default=None,
        description="File with more of them, relative to this file: {version: 1, overrides: {KEY: {rate: ...}}}.",
    )
    on_store_failure: Literal["local", "open", "closed"] = Field(
        default="local",
        description="While the store does not answer: 'local' limits in each worker with its share of the rate (all "
        "workers of all gateways that share the store are counted), 'open' admits everything, 'closed' refuses "
        "everything (503). Answers then say 'Degraded: limits;mode=...'.",
    )
    unit: Annotated[str, Text("[a-z][a-z-]{0,31}", "a word of lower-case letters and '-'")] | None = Field(
        default=None, description="What is counted, as RateLimit-Policy says it ('qu'); by default what 'cost' counts."
    )
    partition_key: StrictBool = Field(
        default=False, description="Show in the header fields (pk) which bucket a request fell into, as a digest."
    )
    legacy_headers: StrictBool = Field(
        default=False, description="Also send X-RateLimit-Limit, -Remaining and -Reset, for old clients."
    )
    _overrides: dict[str, Override] = PrivateAttr(default_factory=dict)

    @field_validator("key", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [value] if isinstance(value, (str, dict, Scope)) else value

    @field_serializer("key")
    def _key_as_written(self, value: tuple[Scope, ...]) -> Any:
        return value[0] if len(value) == 1 else list(value)

    @field_validator("overrides_file")
    @classmethod
    def _readable(cls, value: str | None, info: ValidationInfo) -> str | None:
        files = surroundings(info.context)
        if files is not None and value is not None:
            files.overrides(value)
        return value

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> Self:
        if self.concurrent is None:
            for name in ("rate", "burst"):
                if getattr(self, name) is None:
                    raise refuse(" is missing: a limit has rate and burst, or concurrent", at=name)
        else:
            for name in ("rate", "burst", "cost", "mode"):
                if name in self.model_fields_set:
                    raise refuse(" does not go with 'concurrent', which counts requests under way", at=name)
        least = self.cost.tokens or self.cost.reserve or self.cost.rows or 0.0
        if self.burst is not None and least > self.burst:
            raise refuse(f" must not be more than the burst ({self.burst}), or nobody is ever admitted", at="cost")
        self._distinct()
        files = surroundings(info.context)
        self._overrides = dict(self.overrides)
        if files is not None and self.overrides_file is not None:
            self._overrides = {**files.overrides(self.overrides_file), **self.overrides}
        for key, override in self._overrides.items():
            self._override(key, override, least)
        return self

    def _distinct(self) -> None:
        seen: list[object] = []
        for index, scope in enumerate(self.key):
            what = scope.word or scope.header
            what = "ip" if scope.ip is not None else what
            if what in seen:
                raise refuse(f" has '{what}' twice; one of them is enough", at=("key", index))
            seen.append(what)

    def _override(self, key: str, override: Override, least: float) -> None:
        at = ("overrides", key) if key in self.overrides else "overrides_file"
        named = "" if key in self.overrides else f": {key!r}"
        given = {name for name in ("rate", "burst", "concurrent") if getattr(override, name) is not None}
        have = ("concurrent",) if self.concurrent is not None else ("rate", "burst")
        if not given:
            raise refuse(f"{named} changes nothing: say {' or '.join(have)}, or remove it", at=at)
        if not given <= set(have):
            raise refuse(f"{named} must have {' and '.join(have)}, as the limit has", at=at)
        if override.burst is not None and override.burst < least:
            message = f"{named} has a burst of {override.burst}, less than a request costs ({least:g}), so it is never"
            raise refuse(f"{message} admitted", at=at)

    @property
    def all_overrides(self) -> dict[str, Override]:
        """The overrides written here and those of the file; what is written here wins."""
        return self._overrides
