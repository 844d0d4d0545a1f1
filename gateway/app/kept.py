"""What operators have said of breakers, in a file: it outlasts the gateway, however that ends.

The file is never half there (`whole.py`). What a full disk refuses is `owed`: it is in force, and for the caller to
write again later. Times are of the wall clock,
for the monotonic one begins anew with the machine; what a clock that was set wrongly does to them, it does to one
operator's order. A file that says something else is somebody else's, and is never written over.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from gateway.breakers.permit import FOREVER
from gateway.errors import DISK_FULL, StartError
from gateway.whole import write_whole
from gateway.workers.control import Forced

log = logging.getLogger(__name__)

VERSION: Final = 1
_STATES: Final = ("open", "closed")


class KeptBreakers:
    """One file, of one gateway. `now` is monotonic nanoseconds, `clock` seconds since 1970."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.owed = False  # the file does not say what was said last
        self.failures = 0

    def read(self, now: int, clock: float) -> dict[str, Forced]:
        """What is still in force, by backend key. Raises StartError for a file that is not ours, or cannot be ours."""
        try:
            content = self._path.read_bytes()
            forced = _parsed(json.loads(content), now, clock) if content else {}
        except FileNotFoundError:
            forced = {}
        except OSError as error:
            raise StartError(f"admin.state_file: cannot read '{self._path}': {error.strerror}") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            what = f"'{self._path}' is no state of a gateway; name another file, or move it away"
            raise StartError(f"admin.state_file: {what}") from None
        try:
            self._write(forced, now, clock)
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise StartError(f"admin.state_file: cannot write '{self._path}': {error.strerror}") from None
            self._failed(error)
        return forced

    def write(self, forced: Mapping[str, Forced], now: int, clock: float) -> None:
        """Keeps what is said now. A disk that is full does not take back an operator's word: that is logged once."""
        try:
            self._write(forced, now, clock)
        except OSError as error:
            self._failed(error)
            return
        if self.owed:
            self.owed = False
            log.warning("admin.state_file: '%s' is written again", self._path)

    def _failed(self, error: OSError) -> None:
        self.failures += 1
        if not self.owed:
            self.owed = True
            log.error("admin.state_file: cannot write '%s', so a restart will not know: %s", self._path, error.strerror)

    def _write(self, forced: Mapping[str, Forced], now: int, clock: float) -> None:
        breakers = {
            key: {"state": state, "until": None if until >= FOREVER else round(clock + (until - now) / 1e9, 3)}
            for key, (state, until) in sorted(forced.items())
        }
        write_whole(self._path, json.dumps({"version": VERSION, "breakers": breakers}, indent=2) + "\n", 0o600)


def _parsed(content: Any, now: int, clock: float) -> dict[str, Forced]:
    """Raises ValueError, TypeError, KeyError or AttributeError for what is no such content."""
    if content["version"] != VERSION:
        raise ValueError
    forced = {}
    for key, each in content["breakers"].items():
        state, until = each["state"], each["until"]
        if state not in _STATES:
            raise ValueError
        if until is None:
            forced[key] = state, FOREVER
        elif until > clock:
            forced[key] = state, now + int(min(until - clock, 366 * 86_400.0) * 1e9)
    return forced
