"""A load's numbers as a text table and as JSON.

Contract: the JSON is stable (names as in ``Summary``, seconds everywhere); the text is for eyes and in milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from loadtests.load.load import Load
from loadtests.load.samples import Summary

HEADINGS = ("client", "phase", "offered", "rate/s", "answered/s", "p50", "p90", "p99", "p99.9", "max ms", "not ok")


def text(load: Load) -> str:
    """Per client and phase: rates, latencies, and below it what was counted; then the warnings."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    notes: list[str] = []
    for client, phase, summary in _parts(load):
        latencies = [*summary.percentiles.values(), summary.max_latency]
        rows.append(
            (
                client,
                phase or "whole run",
                str(summary.offered),
                f"{summary.offered_rate:.1f}",
                f"{summary.answered_rate:.1f}",
                *(_ms(value) for value in latencies),
                str(summary.failed),
            )
        )
        notes.append(f"{client}, {phase or 'whole run'}: {_counts(summary)}")
    return "\n".join([*aligned(rows, left=(0, 1)), "", *notes, *(f"warning: {warning}" for warning in load.warnings())])


def as_dict(load: Load) -> dict[str, Any]:
    """Everything, for ``--format json``."""
    return {
        "seconds": load.seconds,
        "warnings": load.warnings(),
        "parts": [
            {"client": client, "phase": phase, **summary_dict(summary)} for client, phase, summary in _parts(load)
        ],
        "timeline": [{"at": at, **summary_dict(summary)} for at, summary in load.timeline()],
    }


def summary_dict(summary: Summary) -> dict[str, Any]:
    """A summary in plain JSON types; a latency that does not exist is null."""
    return {
        "seconds": summary.seconds,
        "offered": summary.offered,
        "offered_rate": summary.offered_rate,
        "answered_rate": summary.answered_rate,
        "outcomes": {str(outcome): count for outcome, count in summary.outcomes.items()},
        "statuses": {str(status): count for status, count in summary.statuses.items()},
        "labels": summary.labels,
        "latency": {f"p{q:g}": _number(value) for q, value in summary.percentiles.items()}
        | {"max": _number(summary.max_latency)},
        "lag_p99": _number(summary.lag_p99),
    }


def _parts(load: Load) -> list[tuple[str, str | None, Summary]]:
    return [
        (client, phase, load.summary(client, phase=phase)) for client in load.clients for phase in (*load.phases, None)
    ]


def _counts(summary: Summary) -> str:
    groups = [", ".join(f"{outcome} {count}" for outcome, count in summary.outcomes.items())]
    groups.append(", ".join(f"{status}: {count}" for status, count in summary.statuses.items()))
    groups += [
        f"{name} " + ", ".join(f"{value}: {count}" for value, count in counts.items())
        for name, counts in summary.labels.items()
        if counts
    ]
    return " | ".join(group for group in groups if group) or "nothing"


def aligned(rows: Sequence[tuple[str, ...]], left: Sequence[int] = ()) -> list[str]:
    """Rows as lines of columns; those named in ``left`` start at the left."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines: list[str] = []
    for row in rows:
        cells = [f"{cell:<{widths[i]}}" if i in left else f"{cell:>{widths[i]}}" for i, cell in enumerate(row)]
        lines.append("  " + "  ".join(cells).rstrip())
    return lines


def _ms(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{seconds * 1e3:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
