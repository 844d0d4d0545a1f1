"""TLS on either side: at a listener, and with the backends of a pool.

The files are read with the configuration and travel with it, so that all workers use the same bytes and a reload takes
a renewed certificate or, where it is broken, keeps the one in force.
"""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, StrictBool, ValidationInfo, field_validator, model_validator

from gateway.certificates import CertificateError, ClientTls, Pem, client_context, not_after, server_context
from gateway.config.scalars import Text, refuse
from gateway.config.sections.base import FileName, Section, surroundings

ServerName = Annotated[str, Text(r"[A-Za-z0-9_:][A-Za-z0-9._:-]{0,252}", "a host name or address")]


class _Tls(Section):
    """What both sides have."""

    min_version: Literal["1.2", "1.3"] = Field(
        default="1.2", description="Oldest version of TLS that is spoken.", json_schema_extra={"type": "string"}
    )

    @field_validator("min_version", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        """YAML reads a bare 1.2 as a number."""
        return str(value) if isinstance(value, float) else value

    @field_validator("certificate", "key", "client_ca", "ca", check_fields=False)
    @classmethod
    def _readable(cls, value: str | None, info: ValidationInfo) -> str | None:
        files = surroundings(info.context)
        if files is not None and value is not None:
            files.read(value)
        return value


class Tls(_Tls):
    """TLS at the front door: HTTP/1.1 alone, TLS 1.2 with forward secrecy or newer."""

    certificate: FileName = Field(
        description="PEM file with the server's certificate, then the intermediate ones; relative to this file. "
        "Read again at every reload.",
        examples=["cert.pem"],
    )
    key: FileName = Field(
        description="PEM file with the certificate's private key, without a passphrase.", examples=["key.pem"]
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


class BackendTls(_Tls):
    """TLS with a pool's https:// backends: HTTP/1.1 alone, TLS 1.2 with forward secrecy or newer."""

    ca: FileName | None = Field(
        default=None,
        description="PEM file with the authorities that vouch for the backends, or with their own certificates; those "
        "the system trusts if not given. Read again at every reload, as are the other files.",
        examples=["backends-ca.pem"],
    )
    server_name: ServerName | None = Field(
        default=None,
        description="Name the certificate must be for, also sent as SNI; the host of the url if not given.",
    )
    certificate: FileName | None = Field(
        default=None, description="PEM file with the gateway's own certificate, for backends that ask for one."
    )
    key: FileName | None = Field(
        default=None, description="PEM file with the certificate's private key, without a passphrase."
    )
    verify: StrictBool = Field(
        default=True,
        description="Whether the backend must prove who it is. 'false' encrypts, and trusts whoever answers.",
    )
    _settings: ClientTls = PrivateAttr(default_factory=ClientTls)

    @model_validator(mode="after")
    def _load(self, info: ValidationInfo) -> Self:
        if (self.certificate is None) != (self.key is None):
            given, missing = ("certificate", "key") if self.key is None else ("key", "certificate")
            raise refuse(f": '{given}' is of no use without '{missing}'", f"add '{missing}'", at=given)
        files = surroundings(info.context)
        ca, certificate, key = (
            files.read(name) if files is not None and name is not None else None
            for name in (self.ca, self.certificate, self.key)
        )
        settings = ClientTls(ca, certificate or b"", key or b"", self.min_version, self.verify)
        try:
            client_context(settings)
        except CertificateError as error:
            raise refuse(f": '{getattr(self, error.part)}' {error}", at=error.part) from None
        self._settings = settings
        return self

    @property
    def settings(self) -> ClientTls:
        """The files' contents, read when the configuration was loaded, and the rest."""
        return self._settings

    @property
    def not_after(self) -> datetime | None:
        """When the gateway's own certificate ends; None where there is none."""
        return not_after(self._settings.certificate) if self._settings.certificate else None


class StoreTls(BackendTls):
    """TLS with a rediss:// store (and its sentinels): TLS 1.2 with forward secrecy or newer."""

    ca: FileName | None = Field(
        default=None,
        description="PEM file with the authorities that vouch for the store's servers, or with their own certificates; "
        "those the system trusts if not given.",
        examples=["store-ca.pem"],
    )
    server_name: ServerName | None = Field(
        default=None,
        description="Name the certificates must be for, also sent as SNI; the host of the url, or that a sentinel or a "
        "cluster names, if not given.",
    )
    certificate: FileName | None = Field(
        default=None, description="PEM file with the gateway's own certificate, for a store that asks for one."
    )
    verify: StrictBool = Field(
        default=True,
        description="Whether the store must prove who it is. 'false' encrypts, and trusts whoever answers.",
    )
