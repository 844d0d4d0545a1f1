"""The private line between the supervisor and one worker: framed messages over a socket pair.

Frames are a 4-byte length and a pickle. Both ends are the same program under the same user, so pickle is safe here;
nothing else ever reads or writes this line.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import struct
from dataclasses import dataclass, field
from typing import Any, Final

_HEAD: Final = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class UseSnapshot:
    """Supervisor to worker: put this configuration in force. `config` and `catalogue` are opaque here.

    `gateway` names this gateway among those that share its store; `secret` is known to its workers and to nobody else.
    """

    generation: int
    config: Any
    catalogue: Any
    store: Any
    gateway: bytes = b""
    secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class SetHealth:
    """Supervisor to worker: what the prober found, by backend key. Whoever is not named is not checked: healthy."""

    healthy: dict[str, bool]


Forced = tuple[str, int]  # "open" or "closed", and until when (monotonic nanoseconds, which all processes share)


@dataclass(frozen=True, slots=True)
class SetForced:
    """Supervisor to worker: breakers an operator holds open or closed, by backend key; all of them."""

    forced: dict[str, Forced]


@dataclass(frozen=True, slots=True)
class SetEjected:
    """Supervisor to worker: the keys of the backends that are ejected as outliers; all of them."""

    ejected: frozenset[str]


@dataclass(frozen=True, slots=True)
class SetWorkers:
    """Supervisor to worker: how many workers are alive (each spends 1/n of a limit while the store is away)."""

    count: int


@dataclass(frozen=True, slots=True)
class AskStatus:
    """Supervisor to worker."""

    number: int


@dataclass(frozen=True, slots=True)
class StartDrain:
    """Supervisor to worker; seconds."""

    timeout: float
    idle: float


@dataclass(frozen=True, slots=True)
class InForce:
    """Worker to supervisor: the snapshot is used from now on (`error` empty) or was refused."""

    generation: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class TellStatus:
    """Worker to supervisor."""

    number: int
    status: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TellSpans:
    """Worker to supervisor: finished spans, to be exported; opaque here."""

    spans: Any


Message = (
    UseSnapshot
    | SetHealth
    | SetForced
    | SetEjected
    | SetWorkers
    | AskStatus
    | StartDrain
    | InForce
    | TellStatus
    | TellSpans
)


class Channel:
    """One end of the line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, message: Message) -> None:
        """Queues a message; never waits (the line is local and messages are few). A closed line is ignored."""
        data = pickle.dumps(message)
        if not self._writer.is_closing():
            self._writer.write(_HEAD.pack(len(data)) + data)

    async def receive(self) -> Message | None:
        """The next message, or None when the other end is gone."""
        try:
            (length,) = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
            message: Message = pickle.loads(await self._reader.readexactly(length))  # noqa: S301 - see the header
        except (asyncio.IncompleteReadError, OSError):
            return None
        return message

    @property
    def backlog(self) -> int:
        """Bytes sent that the other end has not taken."""
        return self._writer.transport.get_write_buffer_size()

    def close(self) -> None:
        self._writer.close()

    async def finish(self, timeout: float) -> None:
        """Closes once the other end has what was sent, or after `timeout` seconds."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(timeout):
                await self._writer.wait_closed()
