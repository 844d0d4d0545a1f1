"""What the workers of all gateways that share a store tell each other: short messages over pub/sub, and who is alive.

Each worker has a connection of its own for it (RESP3, so that it publishes and hears on the same one), made again by
itself. Nothing here raises or waits: a message that cannot be sent now is dropped and counted, for it is a hint and
never truth. Membership is by heartbeat: one of a gateway's workers says about once a second how many of them are
alive, and the others, who hear it, keep still (suppression as in IGMP, RFC 3376 section 4.1). A gateway unheard for
`FORGET` seconds is gone; while the store is away nobody can be heard, so what was last known stays in force.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any, Final

import hiredis

from gateway.store.address import StoreAddress
from gateway.store.connection import StoreConnection
from gateway.store.link import StoreLink, StoreTimes

log = logging.getLogger(__name__)

BEAT: Final = 1.0  # seconds between two heartbeats of a gateway
FORGET: Final = 3.5  # seconds without one after which a gateway is gone
SOON: Final = 0.1  # seconds within which somebody answers a newcomer
DEADLINE: Final = 1.0  # seconds for a reply; hints may be slower than limit decisions
LAST_WORDS: Final = 0.05  # seconds to say that we end
MAX_UNANSWERED: Final = 256  # messages on their way to the store; more are dropped
MAX_MESSAGE: Final = 64 * 1024  # bytes; larger ones on our channels are not ours
ID: Final = 8  # bytes that name a worker, in front of every message

_HEARTBEAT: Final = b"alive"
_TELL: Final = b"="  # a heartbeat that asks for none back
_ASK: Final = b"?"  # a newcomer's: tell me soon who you are

Heard = Callable[[bytes], None]


class Membership:
    """How many workers every other gateway has. `now` is monotonic seconds; everything here is arithmetic."""

    def __init__(self) -> None:
        self._gateways: dict[bytes, tuple[int, float]] = {}
        self._away_since: float | None = None

    def heard(self, gateway: bytes, workers: int, now: float) -> None:
        """A heartbeat; no workers means that the gateway has ended."""
        if workers > 0:
            self._gateways[gateway] = (workers, now)
        else:
            self._gateways.pop(gateway, None)

    def away(self, now: float) -> None:
        """Nobody can be heard from now on, so nobody is forgotten."""
        if self._away_since is None:
            self._away_since = now

    def back(self, now: float) -> None:
        """Those who were known have their whole time to be heard again."""
        if self._away_since is not None:
            self._gateways = {name: (workers, now) for name, (workers, _) in self._gateways.items()}
            self._away_since = None

    def workers(self, now: float) -> int:
        """Workers of all other gateways, the forgotten ones left out."""
        if self._away_since is None:
            gone = [name for name, (_, at) in self._gateways.items() if now - at > FORGET]
            for name in gone:
                del self._gateways[name]
        return sum(workers for workers, _ in self._gateways.values())


class Fleet:
    """One per worker. `gateway` names the gateway this worker belongs to, `prefix` the keys that are shared.

    `changed(members)` is called when the number of live workers of the whole fleet is another than before.
    """

    def __init__(
        self,
        address: StoreAddress,
        times: StoreTimes,
        prefix: str,
        gateway: bytes,
        changed: Callable[[int], None] = lambda _: None,
    ) -> None:
        slow = StoreTimes(DEADLINE, times.connect_timeout, times.reconnect_min, times.reconnect_max)
        self.dropped = 0
        self.members = 1
        self._link = StoreLink(
            address,
            slow,
            commands=[(b"HELLO", b"3")],
            purpose="fleet messages",
            pushed=self._pushed,
            turned=self._turned,
        )
        self._loop = self._link.loop
        self._channel = f"{prefix}:fleet:".encode()
        self._gateway = gateway
        self._changed = changed
        self._id = secrets.token_bytes(ID)
        self._membership = Membership()
        self._listeners: dict[bytes, Heard] = {}
        self._own = 1
        self._unanswered = 0
        self._timer: TimerHandle | None = None
        self._closed = False
        self.listen(_HEARTBEAT, self._heartbeat)

    @property
    def connected(self) -> bool:
        return self._link.connection is not None

    def start(self) -> None:
        """Begins connecting in the background."""
        self._membership.away(self._loop.time())
        self._link.start()

    async def close(self) -> None:
        """Says that this gateway ends, and drops the connection."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._beat_with(_TELL, 0)
        end = self._loop.time() + LAST_WORDS
        while self._unanswered and self._loop.time() < end:
            await asyncio.sleep(0.002)
        await self._link.close()

    # -- messages -----------------------------------------------------------------------------------------------

    def tell(self, topic: bytes, message: bytes) -> None:
        """To every other worker of the fleet that listens, if the store is there; never waits, never raises."""
        connection = self._link.connection
        if connection is None or self._unanswered >= MAX_UNANSWERED or len(message) > MAX_MESSAGE - ID:
            self.dropped += 1
            return
        self._unanswered += 1
        command = (b"PUBLISH", self._channel + topic, self._id + message)
        connection.send(hiredis.pack_command(command), self._told)  # type: ignore[arg-type]  # the stub says 1-tuple

    def _told(self, reply: Any) -> None:
        self._unanswered -= 1
        if isinstance(reply, Exception):
            self.dropped += 1

    def listen(self, topic: bytes, heard: Heard) -> None:
        """Calls `heard(message)` for what the other workers tell on `topic`; one listener a topic."""
        self._listeners[topic] = heard
        if self._link.connection is not None:
            self._subscribe(self._link.connection, [topic])

    def _subscribe(self, connection: StoreConnection, topics: list[bytes]) -> None:
        # Confirmed by pushes and not by a reply, so nobody waits for one. A refusal (an ACL) is a reply too many,
        # which drops the connection; it is then tried again with growing pauses.
        command = (b"SUBSCRIBE", *(self._channel + topic for topic in topics))
        connection.write(hiredis.pack_command(command))  # type: ignore[arg-type]  # the stub says 1-tuple

    def _pushed(self, push: list[Any]) -> None:
        """One push of the server: `message`, a channel and what was published, or a confirmation."""
        if len(push) != 3 or push[0] != b"message" or not isinstance(push[2], bytes):
            return
        message: bytes = push[2]
        if len(message) < ID or len(message) > MAX_MESSAGE or message[:ID] == self._id:
            return
        heard = self._listeners.get(push[1][len(self._channel) :])
        if heard is not None:
            try:
                heard(message[ID:])
            except Exception:
                log.exception("a fleet message could not be used")

    # -- membership ---------------------------------------------------------------------------------------------

    def set_own(self, workers: int) -> None:
        """The live workers of this gateway, from its supervisor; the others hear of a change at once."""
        if workers != self._own:
            self._own = workers
            self._count()
            self._beat_with(_TELL, workers)

    def _turned(self, connection: StoreConnection | None) -> None:
        """The connection is there, or is gone."""
        if connection is None:
            self._membership.away(self._loop.time())
            return
        self._membership.back(self._loop.time())
        self._subscribe(connection, list(self._listeners))
        self._beat_with(_ASK, self._own)
        self._again(BEAT)

    def _again(self, within: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed:
            delay = within * random.uniform(0.8, 1.2)  # noqa: S311 - so that one of the workers is the first
            self._timer = self._loop.call_later(delay, self._beat)

    def _beat(self) -> None:
        self._beat_with(_TELL, self._own)
        self._count()
        self._again(BEAT)

    def _beat_with(self, kind: bytes, workers: int) -> None:
        if self._link.connection is not None:
            self.tell(_HEARTBEAT, b"%s%d %s" % (kind, workers, self._gateway))

    def _heartbeat(self, message: bytes) -> None:
        count, _, gateway = message[1:].partition(b" ")
        if not (count.isdigit() and len(count) < 6 and gateway):
            return
        if message[:1] == _ASK:
            self._again(SOON * random.random())  # noqa: S311 - so that not everybody answers
        if gateway != self._gateway:
            self._membership.heard(gateway, int(count), self._loop.time())
            self._count()
        elif message[:1] == _TELL and int(count) == self._own:
            self._count()
            self._again(BEAT)  # a worker of our own gateway has said it

    def _count(self) -> None:
        members = self._own + self._membership.workers(self._loop.time())
        if members != self.members:
            self.members = members
            self._changed(members)


def make_gateway_id() -> bytes:
    """A name for a gateway that no other has; made by its supervisor."""
    return secrets.token_hex(8).encode()
