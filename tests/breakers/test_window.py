"""The window against a plain list of calls, and its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.breakers.window import FAILED, GOOD, SLOW, VOID, Window

KINDS = st.sampled_from([GOOD, FAILED, SLOW, FAILED | SLOW, VOID])


def counted(calls):
    kinds = [kind for _, kind in calls if not kind & VOID]
    return len(kinds), sum(bool(kind & FAILED) for kind in kinds), sum(bool(kind & SLOW) for kind in kinds)


def shown(window):
    return window.calls, window.failures, window.slow


@given(
    size=st.integers(1, 12),
    span=st.integers(1, 50),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 20), KINDS),
            st.tuples(st.just("amend"), st.integers(0, 30), KINDS),
            st.tuples(st.just("expire"), st.integers(0, 60), st.just(0)),
            st.tuples(st.just("resize"), st.integers(1, 12), st.integers(1, 50)),
        ),
        max_size=80,
    ),
)
def test_counts_are_those_of_the_calls_it_holds(size, span, steps):
    window, model, now, added = Window(size, span), [], 0, 0
    for what, number, kind in steps:
        if what == "add":
            now += number
            assert window.add(now, kind) == added
            model.append([now, kind, added])
            added += 1
        elif what == "expire":
            now += number
            window.expire(now)
        elif what == "resize":
            size, span = number, kind
            window.resize(size, span)
            model = model[len(model) - min(len(model), size) :]
        else:
            window.amend(number % (added + 1), kind) if number % (added + 1) < added else None
            for entry in model:
                if entry[2] == number % (added + 1):
                    entry[1] = kind
        if what in ("add", "expire"):
            model = [entry for entry in model if entry[0] > now - span][-size:]
        assert shown(window) == counted([(at, kind) for at, kind, _ in model])


def test_the_last_calls_within_the_last_time():
    window = Window(3, 10)
    for at in (0, 1, 2, 3):
        window.add(at, FAILED)
    assert shown(window) == (3, 3, 0)
    window.add(12, GOOD)  # what ended at 2 is ten old
    assert shown(window) == (2, 1, 0)
    window.expire(22)
    assert shown(window) == (0, 0, 0)


def test_what_has_left_is_not_amended():
    window = Window(2, 100)
    first = window.add(0, SLOW)
    window.add(1, GOOD)
    window.add(2, GOOD)
    window.amend(first, FAILED)
    assert shown(window) == (2, 0, 0)


def test_repr():
    window = Window(2, 100)
    window.add(0, FAILED | SLOW)
    assert repr(window) == "<Window 1 calls, 1 failed, 1 slow>"
