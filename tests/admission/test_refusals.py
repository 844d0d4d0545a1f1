"""Refusals that come of too much, and others."""

from gateway.admission.refusals import DEAF, WINDOW, Refusals


def feed(refusals, share, inflight, limit, windows=1):
    """The limits it asked for."""
    found = []
    for _ in range(windows):
        answers = max(WINDOW, 2 * limit)
        for n in range(answers):
            bound = refusals.seen(n < int(share * answers), inflight, limit)
            if bound:
                found.append(bound)
                limit = bound
    return found


def test_few_refusals_are_nothing():
    assert feed(Refusals(), 0.1, 6, 8, windows=20) == []


def test_the_limit_comes_down_to_what_was_in_flight_and_stays_if_that_helps():
    refusals = Refusals()
    assert feed(refusals, 0.9, 7, 20) == [6]
    assert feed(refusals, 0.0, 6, 6, windows=10) == []


def test_it_comes_down_further_while_it_helps():
    refusals = Refusals()
    assert feed(refusals, 0.9, 12, 20) == [11]
    assert feed(refusals, 0.4, 9, 11) == [8]
    assert feed(refusals, 0.0, 8, 8) == []


def test_refusals_that_stay_have_another_reason_and_the_limit_goes_back_for_long():
    refusals = Refusals()
    assert feed(refusals, 0.5, 7, 20) == [6]
    assert feed(refusals, 0.5, 6, 6) == [20]
    assert feed(refusals, 0.5, 20, 20, windows=DEAF) == []
    assert feed(refusals, 0.5, 20, 20) == [19], "and is tried again after that"


def test_one_place_is_always_left():
    assert feed(Refusals(), 1.0, 1, 1, windows=3) == []
