"""A trip told to the fleet, and what is made of one that is heard: words for `store.fleet`, which carries them.

A hint is never truth: whoever hears it lets his own probes find out (`Gate.hint_failing`). Invariants: only a gate that
opened by what it saw itself is told, so nothing is told again and no echo runs; a backend (and model) is told, and
heeded, at most once in `EVERY`, so one gateway with a bad line costs the others a probe every few seconds; what cannot
be read, or names a backend that is not known here, is ignored. Whoever can publish in the store can hint: the store's
own access is the only authentication, and the most that a forged hint costs is that moment of probes.

A backend is named as `pool/address`. An address on this machine alone (loopback, a unix socket) means something only to
a gateway in the same place, so it goes with the name of the place.
"""

from __future__ import annotations

from typing import Final, NamedTuple

EVERY: Final = 5_000_000_000  # nanoseconds
_MOST: Final = 4096  # names remembered; beyond, all are forgotten
_LONGEST: Final = 1024  # bytes of a hint
_VERSION: Final = b"1"
_LOCAL: Final = ("/127.", "/[::1]", "/localhost:", "/unix:")

TOPIC: Final = b"breakers"


class Hint(NamedTuple):
    """The backend's key, and the model, or nothing for the backend's own gate."""

    backend: str
    model: bytes


class Hints:
    """One per worker. `place` names the machine (and network namespace) without line breaks."""

    __slots__ = ("_heeded", "_place", "_told", "heeded", "ignored", "told")

    def __init__(self, place: bytes) -> None:
        self._place = place
        self._told: dict[Hint, int] = {}
        self._heeded: dict[Hint, int] = {}
        self.told = 0
        self.heeded = 0
        self.ignored = 0

    def tell(self, backend: str, model: bytes, now: int) -> bytes | None:
        """The message that says that this gate opened, or None if that was said a moment ago."""
        if not _first(self._told, Hint(backend, model), now):
            return None
        self.told += 1
        place = self._place if any(each in backend for each in _LOCAL) else b""
        return b"\n".join((_VERSION, place, backend.encode(), model))

    def hear(self, message: bytes, known: frozenset[str], now: int) -> Hint | None:
        """What to probe, if the message means something here."""
        parts = message.split(b"\n", 3)
        if len(message) <= _LONGEST and len(parts) == 4 and parts[0] == _VERSION and parts[1] in (b"", self._place):
            hint = Hint(parts[2].decode("utf-8", "replace"), parts[3])
            local = any(each in hint.backend for each in _LOCAL)
            if hint.backend in known and (parts[1] or not local) and _first(self._heeded, hint, now):
                self.heeded += 1
                return hint
        self.ignored += 1
        return None


def _first(seen: dict[Hint, int], hint: Hint, now: int) -> bool:
    """Whether it is the first in `EVERY`; remembers it if so."""
    last = seen.get(hint)
    if last is not None and now - last < EVERY:
        return False
    if len(seen) >= _MOST:
        seen.clear()
    seen[hint] = now
    return True
