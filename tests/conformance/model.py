"""A second reading of HTTP/1.1 messages, written from RFC 9112 alone: the oracle of the fuzzer.

It knows one spelling of everything the gateway may accept and raises `Unclear` for the rest, so whatever llhttp reads
more generously, or splits elsewhere, shows as a difference. It is slow and whole-message only.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_TOKEN: Final = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") +([\x21-\x7e]+) +HTTP/1\.([01])")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([0-9]{3})(?: [^\r\n]*)?")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]+)(?:;[^\r\n]*)?")
_LENGTH: Final = re.compile(rb"[0-9]+")


class Unclear(Exception):
    """Not a message with one meaning."""


class More(Exception):
    """The bytes end before the message does."""


class Message(NamedTuple):
    start: tuple[bytes, ...]
    fields: list[tuple[bytes, bytes]]
    body: bytes
    end: int  # where the next one begins
    until_close: bool = False

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]


def request(data: bytes, at: int) -> Message:
    """The request that begins at `at`; line ends in front of it are skipped, as llhttp does."""
    while at < len(data) and data[at] in b"\r\n":
        at += 1
    start, fields, at = _head(data, at, _REQUEST_LINE)
    body, at, _ = _body(data, at, fields, bodiless=False, until_close=False)
    return Message(start, fields, body, at)


def response(data: bytes, *, head_only: bool) -> Message:
    """The final answer in `data`; interim ones in front of it are skipped."""
    at = 0
    while True:
        start, fields, at = _head(data, at, _STATUS_LINE)
        status = int(start[1])
        if status == 101 or not 100 <= status <= 599:
            raise Unclear("status")
        if status >= 200:
            break
    bodiless = head_only or status in (204, 304)
    body, at, until_close = _body(data, at, fields, bodiless=bodiless, until_close=True)
    return Message(start, fields, body, at, until_close)


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\r\n", at)
    if end < 0:
        raise More
    return data[at:end], end + 2


def _head(data: bytes, at: int, shape: re.Pattern[bytes]) -> tuple[tuple[bytes, ...], list[tuple[bytes, bytes]], int]:
    line, at = _line(data, at)
    match = shape.fullmatch(line)
    if match is None:
        raise Unclear(f"start {line!r}")
    fields, at = _fields(data, at)
    return match.groups(), fields, at


def _fields(data: bytes, at: int) -> tuple[list[tuple[bytes, bytes]], int]:
    fields = []
    while True:
        line, at = _line(data, at)
        if not line:
            return fields, at
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Unclear(f"field {line!r}")
        fields.append((match[1].lower(), match[2].rstrip(b" \t")))


def _body(
    data: bytes, at: int, fields: list[tuple[bytes, bytes]], *, bodiless: bool, until_close: bool
) -> tuple[bytes, int, bool]:
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1 or any(_LENGTH.fullmatch(value) is None for value in lengths):
        raise Unclear("framing")
    if any(value.lower() != b"chunked" for value in codings):
        raise Unclear("coding")
    if bodiless:
        return b"", at, False
    if codings:
        return (*_chunks(data, at), False)
    if not lengths:
        return (data[at:], len(data), True) if until_close else (b"", at, False)
    length = int(lengths[0])
    if len(data) - at < length:
        raise More
    return data[at : at + length], at + length, False


def _chunks(data: bytes, at: int) -> tuple[bytes, int]:
    body = b""
    while True:
        line, at = _line(data, at)
        match = _SIZE.fullmatch(line)
        if match is None:
            raise Unclear(f"size {line!r}")
        size = int(match[1], 16)
        if not size:
            return body, _fields(data, at)[1]
        if len(data) - at < size + 2:
            raise More
        body += data[at : at + size]
        if data[at + size : at + size + 2] != b"\r\n":
            raise Unclear("end of a chunk")
        at += size + 2
