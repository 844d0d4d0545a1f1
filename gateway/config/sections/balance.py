"""How a pool's requests are shared among its backends."""

from typing import Annotated, Any, Literal, Self, get_args

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

from gateway.config.diagnosis import suggest
from gateway.config.scalars import Duration, Ratio, Text, Whole, refuse, shown
from gateway.config.sections.base import FileName, Section, surroundings
from gateway.config.sections.matching import FIELD
from gateway.config.sections.policies import HEADER_PATTERN

Policy = Literal["least-request", "maglev", "peak-ewma", "prequal", "random", "ring-hash", "weighted-round-robin"]

COOKIE = Text(HEADER_PATTERN.replace("a-z", "A-Za-z"), "the name of a cookie")
KEY_SENTENCE = "must be client, ip, path, {header: NAME} or {cookie: NAME}"
HASHING = ("maglev", "ring-hash")
#: Which policies a setting is for.
SETTINGS = {
    "key": HASHING,
    "bound": HASHING,
    "choices": ("least-request",),
    "decay": ("peak-ewma",),
    "hot": ("prequal",),
}
LEAST_SECRET = 16  # bytes: 128 bits


class HashKey(Section):
    """What a request is known by: client (by address if anonymous), ip, path, a header field or a cookie."""

    by: Literal["client", "ip", "path"] | None = Field(default=None, exclude=True, description="The bare words.")
    header: Annotated[str, FIELD] | None = Field(default=None, description="Header field whose value is the key.")
    cookie: Annotated[str, COOKIE] | None = Field(default=None, description="Cookie whose value is the key.")

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        if isinstance(value, HashKey):
            return value
        if isinstance(value, str) and value in ("client", "ip", "path"):
            return {"by": value}
        if not isinstance(value, dict) or len(value) != 1 or "by" in value:
            raise refuse(f"{KEY_SENTENCE}, not {shown(value)}")
        return value

    @property
    def kind(self) -> str:
        return "header" if self.header else "cookie" if self.cookie else self.by or "client"

    @property
    def name(self) -> str:
        """Of the header field or the cookie."""
        return self.header or self.cookie or ""

    @model_serializer
    def _as_written(self) -> str | dict[str, str]:
        return {self.kind: self.name} if self.name else self.kind

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        section = handler.resolve_ref_schema(handler(schema))
        section["properties"].pop("by", None)
        return {"description": cls.__doc__, "anyOf": [{"enum": ["client", "ip", "path"]}, section]}


class Balance(Section):
    """A balancing policy (docs/balancing.md): the bare name of one, or a mapping with its settings."""

    type: Policy = Field(description="Which policy.", examples=["maglev"])
    key: HashKey | None = Field(
        default=None,
        description="ring-hash, maglev: what is hashed: client (the default; by address if anonymous), ip, path, "
        "{header: NAME} or {cookie: NAME}. A request without it is drawn by lot.",
    )
    bound: Annotated[float, Ratio(1.0, 100.0)] | None = Field(
        default=None,
        description="ring-hash, maglev: no backend takes more than this times its fair part of what is in flight in a "
        "worker; what is above goes on to another. Default 1.25; 100 lets a hot key drown one backend.",
    )
    choices: Annotated[int, Whole(2, 1000)] | None = Field(
        default=None,
        description="least-request: up to so many backends all are looked at, of more two that are drawn by lot. "
        "Default 32; 2 is the power of two choices at any number.",
    )
    decay: Annotated[float, Duration("100ms", "10m")] | None = Field(
        default=None, description="peak-ewma: time in which a slow answer is forgotten to 1/e. Default 5s."
    )
    hot: Annotated[float, Ratio(0.05, 0.99)] | None = Field(
        default=None,
        description="prequal: quantile of the loads seen above which a backend is only picked if all are; "
        "default 0.84.",
    )

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = get_args(Policy)
        if value not in names:
            raise refuse(f"must be one of {', '.join(names)}, not {shown(value)}", suggest(value, names))
        return {"type": value}

    @model_validator(mode="after")
    def _its_own(self) -> Self:
        for name, policies in SETTINGS.items():
            if getattr(self, name) is not None and self.type not in policies:
                raise refuse(f" is a setting of {' and '.join(policies)}; {self.type} has none such", at=name)
        return self

    @model_serializer
    def _as_written(self) -> str | dict[str, Any]:
        given = {name: value for name in SETTINGS if (value := getattr(self, name)) is not None}
        return {"type": self.type, **given} if given else self.type

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        section = handler.resolve_ref_schema(handler(schema))
        return {"description": cls.__doc__, "anyOf": [{"enum": list(get_args(Policy))}, section]}


class Session(Section):
    """Sticky sessions: a cookie set by the gateway brings a client back to the backend that it came to first."""

    cookie: Annotated[str, COOKIE] = Field(
        default="sluice",
        description="Name of the cookie. Its value says nothing about addresses, and cannot be made up.",
    )
    secret_file: FileName | None = Field(
        default=None,
        description="File with the secret that the cookies are made with, at least 16 bytes; give all gateways the "
        "same. Without it one is made when the gateway starts, and sessions are placed anew after a restart.",
    )
    max_age: Annotated[float, Duration("0s", "8760h")] = Field(
        default=0.0, description="How long a browser keeps the cookie; 0s is until it is closed."
    )
    secure: StrictBool = Field(default=False, description="Whether the cookie is for https only.")
    _secret: bytes = PrivateAttr(default=b"")

    @field_validator("secret_file")
    @classmethod
    def _long_enough(cls, value: str | None, info: ValidationInfo) -> str | None:
        files = surroundings(info.context)
        if files is not None and value is not None and len(files.read(value).strip()) < LEAST_SECRET:
            raise refuse(
                f": {value!r} must hold at least {LEAST_SECRET} bytes",
                "for example: head -c 32 /dev/urandom | base64 > FILE",
            )
        return value

    @model_validator(mode="after")
    def _read(self, info: ValidationInfo) -> Self:
        files = surroundings(info.context)
        if files is not None and self.secret_file is not None:
            self._secret = files.read(self.secret_file).strip()
        return self

    @property
    def secret(self) -> bytes:
        """The file's content, read when the configuration was loaded; empty if there is none."""
        return self._secret
