"""Path templates: `/v1/models/{model}/versions/{version}:predict`, and `/v1/models/{model}/*` for all that is below.

A capture takes one or more characters of one segment, never a `/` and never dots alone (so that a capture put into
another path cannot climb). A segment may hold several captures with text between them; the first one then ends at the
first place where that text follows. Matching looks at each byte of the path a bounded number of times.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_PIECE: Final = re.compile(r"\{([^{}]*)\}|([^{}]+)|(.)", re.DOTALL)
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


class Segment(NamedTuple):
    """Text around captures: n captures stand between n + 1 texts; one text alone is a fixed segment."""

    texts: tuple[bytes, ...]

    def captures(self, value: bytes) -> list[bytes] | None:
        """What the captures take of `value`, or None if it does not fit."""
        texts = self.texts
        first, last = texts[0], texts[-1]
        if len(texts) == 1:
            return [] if value == first else None
        end = len(value) - len(last)
        at = len(first)
        if end <= at or not value.startswith(first) or not value.endswith(last):
            return None
        found: list[bytes] = []
        for text in texts[1:-1]:
            here = value.find(text, at + 1, end)
            if here < 0:
                return None
            found.append(value[at:here])
            at = here + len(text)
        if at >= end:
            return None
        found.append(value[at:end])
        return None if any(not each.strip(b".") for each in found) else found


class Template(NamedTuple):
    """`names` are the captures in the order they stand; `below`: the path goes on after the last segment with `/`."""

    segments: tuple[Segment, ...]
    names: tuple[str, ...]
    below: bool

    @property
    def head(self) -> bytes:
        """The text before the first capture: every path of the template starts with it."""
        out = b""
        for segment in self.segments:
            out += b"/" + segment.texts[0]
            if len(segment.texts) > 1:
                return out
        return out + b"/"

    def captures(self, path: bytes) -> tuple[bytes, ...] | None:
        """What the captures take of `path`, in the order of `names`, or None if it does not fit."""
        parts = path.split(b"/")[1:]
        if len(parts) <= len(self.segments) if self.below else len(parts) != len(self.segments):
            return None
        found: list[bytes] = []
        for segment, part in zip(self.segments, parts, strict=False):
            taken = segment.captures(part)
            if taken is None:
                return None
            found += taken
        return tuple(found)


def is_template(path: str) -> bool:
    """True if `path` is written with captures."""
    return "{" in path or "}" in path


def parse(path: str) -> Template:
    """The template that `path` spells. Raises ValueError with what is wrong."""
    below = path.endswith("/*")
    if path.endswith("*") and not below:
        raise ValueError("may end in '/*' but not in '*' alone, for it has captures")
    names: list[str] = []
    segments = []
    for part in (path[:-2] if below else path)[1:].split("/"):
        texts = [""]
        captured = False
        for found in _PIECE.finditer(part):
            name, text, stray = found.groups()
            if stray is not None:
                raise ValueError(f"has a '{stray}' without its other half")
            if text is not None:
                texts[-1] += text
                captured = False
                continue
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"has the capture '{{{name}}}'; a name is made of lower-case letters, digits and '_'")
            if name in names:
                raise ValueError(f"has the capture '{{{name}}}' twice")
            if captured:
                raise ValueError(f"has no text before '{{{name}}}' to tell it from the capture it follows")
            names.append(name)
            texts.append("")
            captured = True
        segments.append(Segment(tuple(text.encode() for text in texts)))
    return Template(tuple(segments), tuple(names), below)
