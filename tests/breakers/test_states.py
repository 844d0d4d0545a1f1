"""The table is the documentation, names only what is known, and every row of it can be walked."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.breakers.gate import BreakerSettings, Gate
from gateway.breakers.states import DOUBTS, MEANINGS, STATES, TRANSITIONS, TRIPS, table
from gateway.request import Outcome

PAGE = Path(__file__).parents[2] / "docs/breakers.md"
MS = 1_000_000
SETTINGS = BreakerSettings(
    failures=3, open_for=1.0, probes=1, error_rate=0.5, slow_rate=0.5, slow_after=0.1, silent_after=0.2, min_calls=4
)


def test_the_page_has_the_table():
    assert table() in PAGE.read_text(encoding="utf-8"), f"put this into {PAGE.name}:\n{table()}"


def test_only_known_words():
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(STATES)
    assert {event for _, event in TRANSITIONS} == MEANINGS.keys()
    assert set(TRIPS) == {event for (state, event), to in TRANSITIONS.items() if to == "open" and event[:5] != "force"}
    assert set(DOUBTS) == {
        event for (state, event), to in TRANSITIONS.items() if (state, to) == ("closed", "half-open")
    }


def in_state(state):
    """A gate in that state, and the time."""
    gate, now = Gate(SETTINGS), 1000 * MS
    if state != "closed":
        for _ in range(3):
            gate.release(gate.try_acquire(now), Outcome.FAILURE, now)
    if state == "half-open":
        now += 1000 * MS
        gate.release(gate.try_acquire(now), Outcome.IGNORE, now)
    assert gate.state == state
    return gate, now


def provoke(gate, event, now):
    """Does what the event is said to mean."""

    def call(outcome, took=1):
        permit = gate.try_acquire(now)
        if permit is not None:
            gate.release(permit, outcome, now + took * MS, took * MS)

    if event == "failures":
        for _ in range(3):
            call(Outcome.FAILURE)
    elif event == "error-rate":
        for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS, Outcome.FAILURE):
            call(outcome)
    elif event == "slow-rate":
        for took in (1, 150, 1, 150):
            call(Outcome.SUCCESS, took)
    elif event == "slow-row":
        for _ in range(3):
            call(Outcome.SUCCESS, 100)
    elif event == "silent":
        gate.try_acquire(now)
        gate.sweep(now + 199 * MS)
        gate.sweep(now + 200 * MS)
    elif event == "hint":
        gate.hint_failing(now)
    elif event == "probes-passed":
        call(Outcome.SUCCESS)
    elif event == "probe-failed":
        call(Outcome.FAILURE)
    elif event == "probe-slow":
        call(Outcome.SUCCESS, 150)
    elif event == "doubt-over":
        gate.sweep(now + 1000 * MS)
    elif event == "waited":
        gate.release(gate.try_acquire(now + 1000 * MS), Outcome.IGNORE, now + 1000 * MS)
    else:
        gate.force({"force-open": "open", "force-closed": "closed", "force-auto": ""}[event], now)


@pytest.mark.parametrize(("state", "event"), sorted(TRANSITIONS))
def test_every_row_can_be_walked(state, event):
    gate, now = in_state(state)
    if event == "doubt-over":
        gate, now = in_state("closed")
        gate.hint_failing(now)
    if event == "force-auto":
        gate.force("open", now)
    provoke(gate, event, now)
    assert gate.history[-1][1] == event
    assert gate.state == TRANSITIONS[state, event]


@pytest.mark.parametrize("event", ["failures", "hint", "probes-passed", "doubt-over", "probe-failed"])
@pytest.mark.parametrize("state", ["open"])
def test_an_event_without_a_row_changes_nothing(state, event):
    gate, now = in_state(state)
    before = repr(gate), list(gate.history)
    provoke(gate, event, now)
    assert (repr(gate), gate.history) == before
