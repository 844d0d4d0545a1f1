"""Refusals that come of too much, and others."""

from gateway.admission.refusals import DEAF, WINDOW, Refusals


def feed(refusals, share, inflight, limit, windows=1):
    """The limits it asked for, once what was sent before the last of them is answered."""
    found = []
    for _ in range(refusals.outstanding):
        assert not refusals.seen(True, inflight, limit)
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


def test_the_least_that_was_refused_counts_and_not_what_was_in_flight_by_then():
    refusals = Refusals()
    for n in range(WINDOW - 1):
        assert not refusals.seen(True, 7 + n, 4)
    assert refusals.seen(True, 30, 8) == 6


def test_answers_to_what_was_sent_before_the_limit_came_down_count_for_nothing():
    refusals = Refusals()
    assert feed(refusals, 0.9, 7, 20) == [6]
    assert refusals.outstanding == 7
    for _ in range(7):
        assert not refusals.seen(True, 9, 6)
    assert feed(refusals, 0.0, 6, 6, windows=3) == []


def test_one_place_is_always_left():
    assert feed(Refusals(), 1.0, 1, 1, windows=3) == []
