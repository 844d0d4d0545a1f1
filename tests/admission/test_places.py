"""Places that workers share: who may take which, who waits and learns, and what is left when one ends."""

import random

import pytest

from gateway.admission.places import GONE, STEADY, STILL, Places, alone
from gateway.admission.queue import PRIORITIES, Line

CRITICAL, DEFAULT, BATCH = range(3)
MS = 1_000_000
S = 1000 * MS


def shared(workers):
    memory = Places.memory(workers)
    return [Places(memory, 0, number, workers) for number in range(workers)]


def free(places, limit, priority, now):
    return places.room(limit, priority, now) >= 0


def taking(places, limit, count, priority=DEFAULT, now=0):
    for _ in range(count):
        assert free(places, limit, priority, now)
        places.take()


def wait(places, since, priority=DEFAULT, count=1, now=0):
    """So many wait there; 0: nobody."""
    lines = [Line(each) for each in range(len(PRIORITIES))]
    lines[priority].size = count if since else 0
    places.beat(now or since)
    places.waits([since] * len(PRIORITIES), lines)


def test_one_worker_has_them_all():
    places = alone()
    taking(places, 3, 3)
    assert not free(places, 3, DEFAULT, 0)
    assert places.all == 3
    places.give()
    assert free(places, 3, DEFAULT, 0)


def test_a_worker_may_take_all_while_nobody_else_waits():
    one, two = shared(2)
    taking(one, 5, 5)
    assert (one.all, two.all) == (5, 5)
    assert not free(one, 5, DEFAULT, 0)
    assert not free(two, 5, DEFAULT, 0)


def test_a_free_place_is_for_whoever_waits():
    one, two = shared(2)
    taking(one, 6, 6)
    wait(two, 100)
    for _ in range(3):
        one.give()
        assert not free(one, 6, DEFAULT, 101)
        assert free(two, 6, DEFAULT, 101)
        two.take()


def test_no_place_is_left_idle_for_one_that_does_not_wait():
    one, two, three = shared(3)
    taking(one, 6, 2)
    taking(two, 6, 2)
    taking(three, 6, 1)
    wait(one, 100)
    assert free(one, 6, DEFAULT, 101)


def test_of_those_that_wait_it_is_for_whoever_was_served_longest_ago():
    one, two = shared(2)
    taking(one, 5, 1)
    taking(two, 5, 3)
    wait(one, 200)
    wait(two, 100)
    assert not free(one, 5, DEFAULT, 201)
    assert free(two, 5, DEFAULT, 201)
    wait(two, 300)
    assert free(one, 5, DEFAULT, 301)
    assert not free(two, 5, DEFAULT, 301)


def test_a_single_place_goes_round():
    one, two = shared(2)
    taking(one, 1, 1)
    wait(one, 20)
    wait(two, 10)
    one.give()
    assert not free(one, 1, DEFAULT, 30)
    assert free(two, 1, DEFAULT, 30)


def test_a_higher_priority_is_first_wherever_it_waits():
    one, two = shared(2)
    taking(one, 4, 1)
    taking(two, 4, 2)
    wait(one, 100, BATCH)
    wait(two, 200, CRITICAL)
    assert not free(one, 4, BATCH, 201), "though it has fewer and waits for longer"
    assert free(two, 4, CRITICAL, 201)
    assert not free(one, 4, CRITICAL, 201), "one of its own comes later"
    wait(two, 200, BATCH)
    assert free(one, 4, DEFAULT, 201)


def test_what_one_worker_got_for_its_critical_ones_is_not_held_against_its_others():
    one, two = shared(2)
    lines = [Line(each) for each in range(len(PRIORITIES))]
    lines[BATCH].size = 1
    for each, since in ((one, [900, 0, 100]), (two, [0, 0, 200])):
        each.beat(900)
        each.waits(since, lines)
    assert free(one, 1, BATCH, 901)
    assert not free(two, 1, BATCH, 901)
    assert free(two, 2, BATCH, 901), "there is one for each"


def test_who_stands_still_is_waited_for_by_nobody():
    one, two = shared(2)
    wait(one, 100)
    assert not free(two, 1, DEFAULT, 101), "it waits"
    assert not free(two, 1, DEFAULT, 100 + STILL)
    assert free(two, 1, DEFAULT, 101 + STILL), "it has not been heard of since"
    one.beat(102 + STILL)
    assert not free(two, 1, DEFAULT, 103 + STILL)


def test_what_it_has_taken_is_free_after_a_while():
    one, two = shared(2)
    one.beat(1)
    taking(one, 4, 3)
    taking(two, 4, 1)
    two.beat(1 + GONE)
    assert not free(two, 4, DEFAULT, 1 + GONE)
    two.beat(2 + GONE)
    assert two.all == 1
    taking(two, 4, 3, now=2 + GONE)
    one.beat(3 + GONE)  # it goes on, with more taken than there is
    two.beat(3 + GONE)
    assert two.all == 7


def test_whoever_leaves_a_place_to_another_rings_for_it():
    one, two, three = shared(3)
    rung = []
    one.bell = rung.append
    taking(one, 2, 2)
    one.pass_on(3, 10)
    assert rung == [], "nobody waits"
    wait(two, 20)
    wait(three, 10)
    one.pass_on(2, 30)
    assert rung == [], "there is none"
    one.give()
    one.pass_on(2, 30)
    assert rung == [2]
    wait(two, 20, CRITICAL)
    one.pass_on(2, 30)
    assert rung == [2, 1]


def test_of_a_worker_that_ended_nothing_is_left_but_what_it_has_done():
    one, two = shared(2)
    taking(one, 4, 3)
    wait(one, 5)
    one.tell_overload(0b111)
    one.offer(DEFAULT)
    one.answer()
    one.clear()
    taking(two, 4, 4, now=6)
    assert (two.overload(6), two.waiting(DEFAULT), two.waited) == (0, 0, False)
    assert (two.offered(DEFAULT), two.answered) == (1, 1), "or a difference would be negative"


def test_a_new_worker_in_the_same_place_begins_with_none():
    memory = Places.memory(2)
    one, two = (Places(memory, 0, number, 2) for number in range(2))
    taking(one, 4, 4)
    again = Places(memory, 0, 0, 2)
    assert (again.taken, two.all) == (0, 0)


def test_pools_do_not_touch_one_another():
    memory = Places.memory(2, pools=2)
    here, there = Places(memory, 0, 1, 2), Places(memory, Places.width(2), 0, 2)
    taking(here, 9, 3)
    wait(here, 1)
    here.lead()
    here.tell(9)
    here.tell_overload(7)
    here.paced(MS, True, 3, S)
    for priority in range(3):
        here.offer(priority)
    assert (there.all, there.leads, there.led, there.level, there.waited) == (0, False, False, 0, False)
    assert (there.overload(1), there.rate, [there.offered(each) for each in range(3)]) == (0, 0.0, [0, 0, 0])


def test_places_move_with_what_is_taken():
    own, (common, other) = alone(), shared(2)
    taking(own, 4, 3)
    common.move(own)
    assert (own.taken, common.taken, other.all) == (0, 3, 3)
    common.move(common)
    assert common.taken == 3


def test_one_leads_and_tells_the_others():
    one, two = shared(2)
    assert not one.led
    one.lead()
    one.tell(-16)
    one.hear(5)
    assert (one.leads, two.leads, two.led, two.level, two.heard) == (True, False, True, -16, 5)
    two.lead()
    assert (one.leads, two.leads) == (False, True)


def test_what_waits_and_comes_is_counted_for_all():
    one, two, three = shared(3)
    wait(one, 10, DEFAULT, 4)
    wait(two, 10, DEFAULT, 3)
    wait(three, 10, BATCH, 2)
    assert [each.waiting(DEFAULT) for each in (one, two, three)] == [3, 4, 7], "in the others"
    assert one.waiting(BATCH) == 2
    for each in (one, two, two):
        each.offer(DEFAULT)
        each.answer()
    assert (three.offered(DEFAULT), three.offered(BATCH), three.answered) == (3, 0, 3)


def test_what_another_finds_to_be_overload_holds_while_it_is_heard_of():
    one, two = shared(2)
    one.beat(5)
    one.tell_overload(0b110)
    assert (one.overload(6), two.overload(6)) == (0, 0b110)
    assert two.overload(6 + GONE) == 0


class TestRate:
    def test_it_is_places_over_the_time_an_answer_takes(self):
        one, two = shared(2)
        assert one.rate == 0
        for _ in range(200):
            one.paced(20 * MS, True, 4, S)
        assert two.rate == pytest.approx(200, rel=0.01)

    def test_a_few_long_ones_among_short_ones_count_with_all_their_time(self):
        """2 places; nine of ten answers take 2 ms, one 400 ms: an answer takes 41.8 ms of a place."""
        places = alone()
        chance = random.Random(1)
        seen = []
        for _ in range(20_000):
            places.paced(400 * MS if chance.random() < 0.1 else 2 * MS, True, 2, S)
            seen.append(1e9 / places.rate)
        assert sum(seen[1000:]) / len(seen[1000:]) == pytest.approx(41.8 * MS / 2, rel=0.1)

    def test_what_was_given_up_has_had_its_time_too(self):
        places = alone()
        for _ in range(100):
            places.paced(60 * MS, False, 4, S)
            places.paced(20 * MS, True, 4, S)
        assert places.rate == pytest.approx(50, rel=0.01)

    def test_it_follows_within_a_few_times_its_weight(self):
        places = alone()
        for _ in range(200):
            places.paced(20 * MS, True, 4, S)
        for _ in range(4 * STEADY):
            places.paced(40 * MS, True, 4, S)
        assert places.rate == pytest.approx(100, rel=0.05)

    def test_forgotten_it_is_not_known(self):
        places = alone()
        places.paced(20 * MS, True, 4, S)
        places.forget_pace()
        assert places.rate == 0
        places.paced(10 * MS, True, 4, S)
        assert places.rate == pytest.approx(400, rel=0.01), "and begins anew"


def test_never_more_than_the_limit_and_never_nobody_while_there_is_one():
    """Any order of asking and giving back, with every worker always wanting more: all places are always in use."""
    chance = random.Random(4)
    for workers in (1, 2, 3, 5):
        fleet = shared(workers)
        since = [1 + number for number in range(workers)]
        for turn in range(1, 3000):
            limit = 1 + turn // 200
            one = chance.choice(fleet)
            if chance.random() < 0.5 and one.taken:
                one.give()
            for each in fleet:
                wait(each, since[each.number], now=turn)
            while takers := [each for each in fleet if free(each, limit, DEFAULT, turn)]:
                taker = chance.choice(takers)
                taker.take()
                since[taker.number] = workers + turn
                wait(taker, since[taker.number], now=turn)
            assert fleet[0].all == limit
            assert sum(each.taken for each in fleet) == limit

    def test_what_a_stall_has_held_up_tells_nothing(self):
        places = alone()
        for _ in range(64):
            places.paced(20 * MS, True, 4, S)
        for _ in range(400):  # clients that give up
            places.paced(500 * MS, False, 4, 20 * S)
        places.resume(31 * S)
        for late in range(4):
            places.paced(30 * S, True, 4, (31 + late) * S)
        assert places.rate == pytest.approx(200, rel=0.01)
        for _ in range(4 * STEADY):
            places.paced(40 * MS, True, 4, 35 * S)
        assert places.rate == pytest.approx(100, rel=0.05)
