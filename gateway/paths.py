"""Replacing the beginning of a path, for rewrites, redirects and the ladder's other pools.

Invariant: a replacement never makes a dot segment or an empty segment that the client's own path did not have, so
`/old../secret` cannot climb out of where `/old` was sent (nginx's `alias` is known for that). Such a replacement is
not made.
"""

from __future__ import annotations

Prefixes = tuple[tuple[bytes, bytes], ...]  # (from, to), the longest `from` first


def replace_prefix(target: bytes, prefixes: Prefixes) -> bytes:
    """`target` (path, perhaps with a query) with the first matching prefix of its path replaced."""
    for start, replacement in prefixes:
        if target.startswith(start):
            rest = target[len(start) :]
            if replacement.endswith(b"/") and rest.startswith(b"/"):
                rest = rest[1:]
            path, mark, query = rest.partition(b"?")
            path = replacement + path
            return target if climbs(path) else path + mark + query
    return target


def climbs(path: bytes) -> bool:
    """True if `path` has a segment `.` or `..`."""
    if b"/." not in path:
        return False
    segments = path.split(b"/")
    return b"." in segments or b".." in segments
