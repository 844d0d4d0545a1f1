"""Human units: ``250ms``, ``16MiB``, ``100/s`` to plain numbers and back.

Contract: durations are float seconds, sizes whole bytes, rates floats per second. ``parse_*`` raises ``ValueError``
whose text completes the sentence "... must be"; ``format_*`` gives the shortest spelling that parses back to the same
value.

One number and one unit, no sums (``1h30m``) and no guessing: ``5`` is not a duration and ``16k`` is not a size,
because the two ways of reading them are both in use elsewhere (nginx: seconds; Envoy: needs a unit; Kubernetes:
``16k`` is 16000).
"""

import re

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
BYTES = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
}
PERIODS = {"s": 1.0, "m": 60.0, "h": 3600.0}

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h)$"
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?(B|KB|MB|GB|KiB|MiB|GiB)$"
RATE_PATTERN = r"^[0-9]+(\.[0-9]+)? ?/ ?(s|m|h)$"

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(/? ?[A-Za-z]*)", re.ASCII)


def _split(text: str) -> tuple[str, str] | None:
    found = _QUANTITY.fullmatch(text.strip())
    return (found[1], found[2].replace(" ", "")) if found else None


def parse_duration(text: str) -> float:
    """``500ms``, ``5s``, ``2m``, ``1h`` (or a bare ``0``) to seconds."""
    parts = _split(text)
    if parts == ("0", ""):
        return 0.0
    if parts is None or parts[1] not in SECONDS:
        raise ValueError("a duration such as 500ms, 5s, 2m or 1h")
    number, unit = parts
    # Dividing keeps 25ms == 0.025 exactly; 25 * 0.001 is one rounding away from it.
    return float(number) / 1000 if unit == "ms" else float(number) * SECONDS[unit]


def parse_size(text: str) -> int:
    """``16KiB``, ``1MiB``, ``64KB``, ``512B`` to bytes. KB is 1000, KiB is 1024."""
    parts = _split(text)
    if parts is None or parts[1] not in BYTES:
        raise ValueError("a size such as 16KiB, 1MiB or 64KB")
    number, unit = parts
    size = float(number) * BYTES[unit] if "." in number else int(number) * BYTES[unit]
    if size != int(size):
        raise ValueError("a whole number of bytes")
    return int(size)


def parse_rate(text: str) -> float:
    """``100/s``, ``6000/m``, ``1000/h`` to events per second."""
    parts = _split(text)
    if parts is None or not parts[1].startswith("/") or parts[1][1:] not in PERIODS:
        raise ValueError("a rate such as 100/s, 6000/m or 1000/h")
    number, unit = parts
    return float(number) / PERIODS[unit[1:]]


def _decimal(value: float) -> str:
    """The value without an exponent and without trailing zeros."""
    return f"{value:.15f}".rstrip("0").rstrip(".") if value != int(value) else str(int(value))


def format_duration(seconds: float) -> str:
    for unit in ("h", "m", "s"):
        if seconds and seconds % SECONDS[unit] == 0:
            return f"{_decimal(seconds / SECONDS[unit])}{unit}"
    if seconds == 0:
        return "0s"
    millis = _decimal(seconds * 1000)
    return f"{millis}ms" if float(millis) / 1000 == seconds else f"{_decimal(seconds)}s"


def format_size(size: int) -> str:
    for unit in ("GiB", "MiB", "KiB", "GB", "MB", "KB"):
        if size and size % BYTES[unit] == 0:
            return f"{size // BYTES[unit]}{unit}"
    return f"{size}B"


def format_rate(per_second: float) -> str:
    for unit, period in PERIODS.items():
        count = round(per_second * period)
        if count and count / period == per_second:
            return f"{count}/{unit}"
    return f"{_decimal(per_second)}/s"
