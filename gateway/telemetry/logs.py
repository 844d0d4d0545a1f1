"""The operator's log: one line per event on standard error, never one per request."""

from __future__ import annotations

import logging
import os
import sys
from typing import Final, TextIO

from gateway.errors import StartError

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class _Stderr(logging.StreamHandler[TextIO]):
    """What cannot be written for want of room is not told either: a traceback would be more of the same."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def set_up_logs(process: str) -> None:
    """`process` names who speaks; `GATEWAY_LOG_LEVEL` sets the level (default INFO). Raises StartError for another."""
    level = os.environ.get("GATEWAY_LOG_LEVEL") or "INFO"
    if level.upper() not in LEVELS:
        raise StartError(f"GATEWAY_LOG_LEVEL must be one of {', '.join(LEVELS).lower()}, not '{level}'")
    logging.basicConfig(
        handlers=[_Stderr(sys.stderr)],
        level=level.upper(),
        format=f"%(asctime)s %(levelname)-7s {process:<10} %(message)s",
        force=True,
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
