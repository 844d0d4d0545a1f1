"""How a connection becomes a link: a request for an Upgrade, and what the backend answers to it.

Contract: `docs/link.md`, after RFC 9110 section 7.8.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import ConnectFailed, LinkViolation
from gateway.link.frames import E_PROTOCOL, E_SIZE, PROTOCOL

_MAX_ANSWER: Final = 16 * 1024  # bytes of its head


class NotSpoken(ConnectFailed):
    """The backend answered the Upgrade as an ordinary request; `answered` is its status."""

    def __init__(self, detail: str, status: int) -> None:
        super().__init__(detail)
        self.answered = status


def upgrade_request(authority: bytes) -> bytes:
    """What asks `authority` for a link."""
    return b"GET /.sluice-link HTTP/1.1\r\nhost: %b\r\nconnection: Upgrade\r\nupgrade: %b\r\n\r\n" % (
        authority,
        PROTOCOL,
    )


def read_answer(answer: bytes) -> bytes | None:
    """What follows the head of the backend's consent; None while it is not whole.

    Raises NotSpoken, and LinkViolation for what is no answer at all.
    """
    head, end, rest = answer.partition(b"\r\n\r\n")
    if len(head) > _MAX_ANSWER:
        raise LinkViolation(E_SIZE, "the answer to the Upgrade is too long")
    if not end:
        return None
    line, *lines = head.split(b"\r\n")
    words = line.split(b" ", 2)
    if len(words) < 2 or words[0] not in (b"HTTP/1.1", b"HTTP/1.0") or not words[1].isdigit():
        raise LinkViolation(E_PROTOCOL, "not an HTTP response to the Upgrade")
    status = int(words[1])
    chosen = [
        value.strip() for name, _, value in (each.partition(b":") for each in lines) if name.lower() == b"upgrade"
    ]
    if status != 101 or chosen != [PROTOCOL]:
        raise NotSpoken(f"the backend does not speak {PROTOCOL.decode()}: it answered {status}", status)
    return rest
