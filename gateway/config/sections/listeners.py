"""Where clients connect: an address, and what stands before HTTP there.

A certificate's files are read with the configuration and travel with it, so that all workers use the same bytes and a
reload takes a renewed certificate or, where it is broken, keeps the one in force.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    StrictBool,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from gateway.certificates import CertificateError, Pem, not_after, server_context
from gateway.config.addresses import Listen
from gateway.config.scalars import Address, Kind, Text, refuse
from gateway.config.sections.base import FileName, Section, surroundings

ADDRESS = Address(Listen, "127.0.0.1:8080")


class Tls(Section):
    """TLS at the front door: HTTP/1.1 alone, TLS 1.2 with forward secrecy or newer."""

    certificate: FileName = Field(
        description="PEM file with the server's certificate, then the intermediate ones; relative to this file. "
        "Read again at every reload.",
        examples=["cert.pem"],
    )
    key: FileName = Field(
        description="PEM file with the certificate's private key, without a passphrase.", examples=["key.pem"]
    )
    min_version: Literal["1.2", "1.3"] = Field(
        default="1.2", description="Oldest version of TLS that is spoken.", json_schema_extra={"type": "string"}
    )
    client_ca: FileName | None = Field(
        default=None,
        description="PEM file with the authorities whose client certificates are accepted; none are asked for without.",
    )
    client_certificate: Literal["require", "request"] = Field(
        default="require",
        description="With client_ca: 'require' refuses clients without a certificate, 'request' lets them in. A "
        "certificate that does not verify is refused either way.",
    )
    _pem: Pem = PrivateAttr(default_factory=Pem)

    @field_validator("min_version", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """YAML reads a bare 1.2 as a number."""
        return str(value) if isinstance(value, float) else value

    @field_validator("certificate", "key", "client_ca")
    @classmethod
    def _readable(cls, value: str | None, info: ValidationInfo) -> str | None:
        files = surroundings(info.context)
        if files is not None and value is not None:
            files.read(value)
        return value

    @model_validator(mode="after")
    def _load(self, info: ValidationInfo) -> Self:
        files = surroundings(info.context)
        if files is None:
            return self
        pem = Pem(
            files.read(self.certificate),
            files.read(self.key),
            files.read(self.client_ca) if self.client_ca is not None else None,
        )
        try:
            server_context(pem, self.min_version, self.client_certificate)
        except CertificateError as error:
            raise refuse(f": '{getattr(self, error.part)}' {error}", at=error.part) from None
        self._pem = pem
        return self

    @property
    def pem(self) -> Pem:
        """The files' contents, read when the configuration was loaded."""
        return self._pem

    @property
    def not_after(self) -> datetime | None:
        """When the certificate ends; None for a model made in Python."""
        return not_after(self._pem.certificate) if self._pem.certificate else None


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
