"""Where clients connect: an address, and what stands before HTTP there."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    Tag,
    model_serializer,
    model_validator,
)

from gateway.config.addresses import Listen
from gateway.config.scalars import Address, Kind, Text, refuse
from gateway.config.sections.base import Section
from gateway.config.sections.tls import Tls

ADDRESS = Address(Listen, "127.0.0.1:8080")


class Listener(Section):
    """One listening socket."""

    address: Annotated[Listen, ADDRESS] = Field(
        description="host:port, [ipv6]:port or unix:/path. Port 0 takes a free port.", examples=["127.0.0.1:8080"]
    )
    tls: Tls | None = Field(default=None, description="Speak HTTPS here; plain HTTP unless given.")
    proxy_protocol: StrictBool = Field(
        default=False,
        description="Every connection begins with a PROXY protocol header (version 1 or 2) that says who the client "
        "is; one without is closed, for a header that may be left out may be forged. With http.trusted_proxies, "
        "only those may connect.",
    )
    mode: Annotated[str, Text(r"0?[0-7]{3}", "the permissions of a unix socket in octal, such as '0660'")] = Field(
        default="0660", description="Permissions of a unix socket: who may connect."
    )

    @model_validator(mode="after")
    def _mode_of_a_socket(self) -> Self:
        if "mode" in self.model_fields_set and self.address.unix_path is None:
            raise refuse(" is for unix sockets, and the address is none", at="mode")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> Any:
        """The address alone where that says it all."""
        plain = self.tls is None and not self.proxy_protocol and "mode" not in self.model_fields_set
        return str(self.address) if plain else handler(self)

    def __str__(self) -> str:
        extras = ["tls"] * (self.tls is not None) + ["proxy_protocol"] * self.proxy_protocol
        return f"{self.address} ({', '.join(extras)})" if extras else str(self.address)


class _Plain(Kind):
    """A listener written as its address."""

    def accept(self, value: object) -> Listener:
        return Listener.model_construct(_fields_set={"address"}, address=ADDRESS.accept(value))

    def json_schema(self) -> dict[str, Any]:
        return ADDRESS.json_schema()


def _kind(value: object) -> str:
    return "<listener>" if isinstance(value, (Mapping, Listener)) else "<address>"


OneListener = Annotated[
    Annotated[Listener, _Plain(), Tag("<address>")] | Annotated[Listener, Tag("<listener>")], Discriminator(_kind)
]
