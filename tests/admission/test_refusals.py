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
            refused = n < int(share * answers)
            bound = refusals.seen(refused, inflight if refused else inflight // 2, limit)
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


def test_what_was_in_flight_when_it_was_sent_counts_but_for_a_few_that_had_another_reason():
    refusals = Refusals()
    for n in range(WINDOW - 1):
        assert not refusals.seen(True, 7 + n, 4)
    assert refusals.seen(True, 30, 8) == 7
    for n in range(2, 2 + 8):
        refusals = Refusals()
        found = [refusals.seen(True, n if i % 8 == 0 else 12, 20) for i in range(2 * 20)]
        assert found[-1] == 11


def test_refusals_among_answers_with_as_many_in_flight_are_a_quota():
    refusals = Refusals()
    for n in range(50 * WINDOW):
        assert not refusals.seen(n % 5 == 0, 1 + n % 7, 8)


def test_answers_to_what_was_sent_before_the_limit_came_down_count_for_nothing():
    refusals = Refusals()
    assert feed(refusals, 0.9, 7, 20) == [6]
    assert refusals.outstanding == 3
    for _ in range(3):
        assert not refusals.seen(True, 9, 6)
    assert feed(refusals, 0.0, 6, 6, windows=3) == []


def test_one_place_is_always_left():
    assert feed(Refusals(), 1.0, 1, 1, windows=3) == []
