"""A folder for this process alone, of which nothing stays even if the process is killed: the next one clears it away.

Its owner keeps the file `lock` in it locked, which the kernel ends with the process (flock(2)). Invariants: nothing is
removed but folders of our own name and user whose lock nobody holds; no link is followed; one without a lock stays.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"


class PrivateFolder:
    """`path` is there, and belongs to this process, until `remove`. Raises OSError where none can be made."""

    def __init__(self, prefix: str) -> None:
        place = Path(tempfile.gettempdir())
        for left in place.glob(f"{prefix}*"):
            with contextlib.suppress(OSError):
                _remove_if_left(left)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
            try:
                self._lock = _hold(self.path, os.O_CREAT)
            except BlockingIOError:
                continue  # somebody found it before it was locked, and is about to remove it
            except OSError:
                shutil.rmtree(self.path, ignore_errors=True)
                raise
            if (self.path / _LOCK).exists():
                return
            os.close(self._lock)  # somebody has

    def remove(self) -> None:
        """With all that is in it."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def _hold(folder: Path, flags: int) -> int:
    """The locked lock of a folder of our own. Raises OSError: it is no such folder, has no lock, or is held."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(place).st_uid != os.geteuid():
            raise PermissionError
        lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | flags, 0o600, dir_fd=place)
    finally:
        os.close(place)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove_if_left(folder: Path) -> None:
    lock = _hold(folder, 0)
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
