"""Status codes and their reason phrases (RFC 9110 section 15; 499 is nginx's, for a client that went away)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

CLIENT_CLOSED_REQUEST: Final = 499

REASONS: Final[dict[int, str]] = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    422: "Unprocessable Content",
    CLIENT_CLOSED_REQUEST: "Client Closed Request",
}

STATUS_LINES: Final[dict[int, bytes]] = {
    code: f"HTTP/1.1 {code} {REASONS.get(code, 'Unknown')}\r\n".encode() for code in range(100, 600)
}
