"""What a reload may change, and what it says about itself."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from time import time
from typing import Any, Final

from gateway.config.model import Config

#: Sections that belong to processes and sockets, which a reload keeps.
FIXED: Final = ("workers", "admin", "store", "access_log")


@dataclass(frozen=True, slots=True)
class Reload:
    """`generation` is the one in force afterwards; `error` is what an operator reads."""

    applied: bool
    generation: int
    error: str
    at: float = field(default_factory=time)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def needs_restart(before: Config, after: Config) -> str:
    """The first section that differs and cannot change while running, or nothing."""
    return next(
        (name for name in FIXED if getattr(before, name) != getattr(after, name)), _socket_changed(before, after)
    )


def _socket_changed(before: Config, after: Config) -> str:
    """What stands before HTTP on a listener may change, its socket may not."""
    sockets = [[(each.address, each.mode) for each in config.listen] for config in (before, after)]
    return "the addresses of 'listen'" if sockets[0] != sockets[1] else ""
