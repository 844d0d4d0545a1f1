"""The operator's log: one line per event on standard error, never one per request."""

from __future__ import annotations

import logging
import os
import sys


def set_up_logs(process: str) -> None:
    """`process` names who speaks; `GATEWAY_LOG_LEVEL` sets the level (default INFO)."""
    logging.basicConfig(
        stream=sys.stderr,
        level=os.environ.get("GATEWAY_LOG_LEVEL", "INFO").upper(),
        format=f"%(asctime)s %(levelname)-7s {process:<10} %(message)s",
        force=True,
    )
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
