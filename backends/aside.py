"""Where an unfinished result lies until it is renamed to its place: beside it, so that the rename is atomic.

Contract: `file` and `directory` make an empty one, after removing what processes that were killed have left;
the caller renames it or calls `remove`.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path


def name(final: Path) -> Path:
    return final.with_name(f".{final.name}.{os.getpid()}")


def file(final: Path) -> Path:
    _sweep(final)
    name(final).touch()
    return name(final)


def directory(final: Path) -> Path:
    _sweep(final)
    name(final).mkdir()
    return name(final)


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _sweep(final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    for left in final.parent.glob(f".{final.name}.*"):
        owner = left.name.rpartition(".")[2]
        if owner.isdecimal() and not _runs(int(owner)):
            remove(left)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
