"""Certificates and keys in memory: checked when the configuration is read, made into TLS contexts by who uses them.

OpenSSL's loader wants file names, so what is in memory is shown to it as a memory file (Linux); nothing is written to
disk, and workers use exactly the bytes that were checked. Every `CertificateError` is a sentence for the operator.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from gateway.errors import GatewayError

Version = Literal["1.2", "1.3"]
ClientCertificate = Literal["require", "request"]
Part = Literal["certificate", "key", "client_ca", "ca"]

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
#: TLS 1.2: forward secrecy and AEAD alone (Mozilla's "intermediate", without the DHE suites); TLS 1.3 has no others.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class CertificateError(GatewayError):
    """What is wrong with a certificate or key. `part` is the file to blame."""

    def __init__(self, part: Part, why: str) -> None:
        super().__init__(why)
        self.part = part


@dataclass(frozen=True, slots=True)
class Pem:
    """The files of one listener. Two are always equal: a renewed certificate is not another configuration."""

    certificate: bytes = field(default=b"", compare=False, repr=False)
    key: bytes = field(default=b"", compare=False, repr=False)
    client_ca: bytes | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How backends are spoken to. Two are equal when their files are too: a renewed one makes new connections.

    `ca`: whom to believe, None for those the system trusts. `certificate` and `key`: who we are, if we say so.
    """

    ca: bytes | None = field(default=None, repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)
    min_version: Version = "1.2"
    verify: bool = True


def server_context(
    pem: Pem, min_version: Version = "1.2", client_certificate: ClientCertificate = "require"
) -> ssl.SSLContext:
    """A context for the front door. Raises CertificateError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, min_version)
    _load_chain(context, pem.certificate, pem.key)
    if pem.client_ca is not None:
        _believe(context, pem.client_ca, "client_ca")
        context.verify_mode = ssl.CERT_REQUIRED if client_certificate == "require" else ssl.CERT_OPTIONAL
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """A context for connections to backends. Raises CertificateError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, tls.min_version)
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.ca is None:
        context.load_default_certs()
    else:
        _believe(context, tls.ca, "ca")
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # what is named is believed, be it a root or not
    if tls.certificate:
        _load_chain(context, tls.certificate, tls.key)
    return context


def _context(side: ssl._SSLMethod, min_version: Version) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = _VERSIONS[min_version]
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _believe(context: ssl.SSLContext, authorities: bytes, part: Part) -> None:
    try:
        context.load_verify_locations(cadata=b"\n".join(_PEM.findall(authorities)).decode("ascii"))
    except (ssl.SSLError, ValueError):
        raise CertificateError(part, "holds no certificate in PEM form") from None


def _load_chain(context: ssl.SSLContext, own: bytes, private: bytes) -> None:
    if _PEM.search(own) is None:
        raise CertificateError("certificate", "holds no certificate in PEM form")
    if b"PRIVATE KEY-----" not in private:
        raise CertificateError("key", "holds no private key in PEM form")
    asked = False

    def password() -> str:
        nonlocal asked
        asked = True
        return ""

    with _file(own) as certificate, _file(private) as key:
        try:
            context.load_cert_chain(certificate, key, password)
        except (ssl.SSLError, ValueError, OSError) as error:
            if asked:
                raise CertificateError("key", "is protected by a passphrase, which is not supported") from None
            reason = getattr(error, "reason", "") or ""
            if "KEY_VALUES_MISMATCH" in reason or "KEY_TYPE_MISMATCH" in reason:
                raise CertificateError("key", "does not belong to the certificate") from None
            try:
                ssl.PEM_cert_to_DER_cert(_first(own))
                not_after(own)
            except ValueError:
                raise CertificateError("certificate", "cannot be read: its first certificate is damaged") from None
            why = reason.replace("_", " ").lower() or str(error)
            raise CertificateError("key", f"cannot be used with the certificate: {why}") from None


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    fd = os.memfd_create("pem", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _first(certificate: bytes) -> str:
    found = _PEM.search(certificate)
    if found is None:
        raise ValueError("no certificate")
    return found[0].decode("ascii", "replace")


def not_after(certificate: bytes) -> datetime:
    """When the first certificate of a PEM file ends. Raises ValueError for anything that is not one."""
    der = ssl.PEM_cert_to_DER_cert(_first(certificate))
    try:
        body = _inside(der, 0, 0x30)  # Certificate (RFC 5280 section 4.1)
        at = _inside(der, body, 0x30)  # TBSCertificate
        if der[at] == 0xA0:
            at = _behind(der, at)  # version
        for _ in range(3):
            at = _behind(der, at)  # serial number, algorithm, issuer
        end = _behind(der, _inside(der, at, 0x30))  # Validity, past its notBefore
        text = der[_inside(der, end, der[end]) : _behind(der, end)].decode("ascii")
        if der[end] == 0x17:  # UTCTime: years of two digits, 1950 to 2049
            text = ("20" if text[:2] < "50" else "19") + text
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except (IndexError, UnicodeDecodeError):
        raise ValueError("not a certificate") from None


def _length(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at `at` begins, and its length."""
    length = der[at + 1]
    if length < 0x80:
        return at + 2, length
    size = length & 0x7F
    if not 1 <= size <= 4:
        raise ValueError("not DER")
    return at + 2 + size, int.from_bytes(der[at + 2 : at + 2 + size], "big")


def _inside(der: bytes, at: int, tag: int) -> int:
    if der[at] != tag:
        raise ValueError("not the element that should be here")
    return _length(der, at)[0]


def _behind(der: bytes, at: int) -> int:
    start, length = _length(der, at)
    return start + length
