"""What moves a breaker from one state to another, as data: the gate looks it up, `docs/breakers.md` is written from it.

An event that has no row for a state changes nothing there.
"""

from __future__ import annotations

from typing import Final

CLOSED: Final = "closed"
HALF_OPEN: Final = "half-open"
OPEN: Final = "open"
STATES: Final = (CLOSED, HALF_OPEN, OPEN)  # index = the value of the state gauge

TRANSITIONS: Final[dict[tuple[str, str], str]] = {
    (CLOSED, "failures"): OPEN,
    (CLOSED, "slow-row"): OPEN,
    (CLOSED, "error-rate"): OPEN,
    (CLOSED, "slow-rate"): OPEN,
    (CLOSED, "silent"): HALF_OPEN,
    (CLOSED, "hint"): HALF_OPEN,
    (HALF_OPEN, "probes-passed"): CLOSED,
    (HALF_OPEN, "probe-failed"): OPEN,
    (HALF_OPEN, "probe-slow"): OPEN,
    (HALF_OPEN, "doubt-over"): CLOSED,
    (OPEN, "waited"): HALF_OPEN,
    (CLOSED, "force-open"): OPEN,
    (HALF_OPEN, "force-open"): OPEN,
    (HALF_OPEN, "force-closed"): CLOSED,
    (OPEN, "force-closed"): CLOSED,
    (OPEN, "force-auto"): HALF_OPEN,
}

#: The events that open a gate by what its calls proved: the values of the label `reason` of the trips.
TRIPS: Final = ("failures", "slow-row", "error-rate", "slow-rate", "probe-failed", "probe-slow")
#: The events that make a closed gate doubt: it lets only probes through for a moment.
DOUBTS: Final = ("silent", "hint")

MEANINGS: Final[dict[str, str]] = {
    "failures": "`failures` calls failed in a row",
    "slow-row": "`failures` calls in a row took `slow_after` or longer, or are out so long; not if `slow_rate` is 0",
    "error-rate": "the share of failed calls in the window reached `error_rate`, with `min_calls` or more in it",
    "slow-rate": "the share of calls that took `slow_after` or longer reached `slow_rate`, with `min_calls` or more; a "
    "call that is still out counts once it has been out so long",
    "silent": "a call was made `silent_after` ago, and nothing at all came back from the backend since",
    "hint": "another worker or gateway says that its own breaker for the backend opened",
    "probes-passed": "`probes` probes succeeded",
    "probe-failed": "a probe failed",
    "probe-slow": "a probe took `slow_after` or longer, or is out for `silent_after`",
    "doubt-over": "half-open by `silent` or `hint` alone, and nothing confirmed it within a moment (1 to 5 s)",
    "waited": "the open time has passed, a health check saw the backend come back, or the first of a lost pool did",
    "force-open": "an operator: `gateway breaker open`",
    "force-closed": "an operator: `gateway breaker close`",
    "force-auto": "an operator: `gateway breaker auto`, or the time given with `--for` has passed",
}


def table() -> str:
    """The transitions as a Markdown table."""
    rows = ["| in state | when | it becomes |", "| --- | --- | --- |"]
    rows += [f"| {state} | **{event}**: {MEANINGS[event]} | {to} |" for (state, event), to in TRANSITIONS.items()]
    return "\n".join(rows) + "\n"
