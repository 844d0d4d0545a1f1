"""When is a built thing still good?  A stamp file says what it was made from.

Contract: `fingerprint` hashes file contents and plain strings; `matches` compares it with the stamp left beside
the result.
Invariant: the stamp is written last, so a build that was interrupted is never taken for a finished one.
Imports nothing but the standard library's lightest modules: the check that skips a build must itself cost almost
nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from backends import aside


def fingerprint(files: Iterable[Path], facts: Iterable[str]) -> str:
    """Hash of the files' names and contents (in sorted order) and of `facts`, in hex."""
    digest = hashlib.sha256()
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    for fact in facts:
        digest.update(f"fact {len(fact)} {fact}\n".encode())
    return digest.hexdigest()


def matches(stamp: Path, expected: str) -> bool:
    """True if `stamp` holds `expected`; a missing or unreadable stamp is simply no match."""
    try:
        return stamp.read_text(encoding="ascii").strip() == expected
    except (OSError, UnicodeDecodeError):
        return False


def write(stamp: Path, value: str) -> None:
    """Leave the stamp, atomically."""
    unfinished = aside.name(stamp)
    try:
        unfinished.write_text(value + "\n", encoding="ascii")
        unfinished.replace(stamp)
    finally:
        aside.remove(unfinished)
