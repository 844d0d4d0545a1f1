"""Places that workers share: who may take which, who learns, and what is left when one ends."""

import random

from gateway.admission.places import Places, alone


def shared(workers, first=0):
    memory = [7] * (first + Places.width(workers) + 3)  # what was there before counts for nothing
    for cell in range(first, first + 4):
        memory[cell] = 0  # the common row is the supervisor's
    return [Places(memory, first, number, workers) for number in range(workers)]


def taking(places, limit, count):
    for _ in range(count):
        assert places.free(limit)
        places.take()


def test_one_worker_has_them_all():
    places = alone()
    taking(places, 3, 3)
    assert not places.free(3)
    assert places.all == 3
    places.give()
    assert places.free(3)


def test_a_worker_may_take_all_while_nobody_else_waits():
    one, two = shared(2)
    taking(one, 5, 5)
    assert (one.all, two.all) == (5, 5)
    assert not one.free(5)
    assert not two.free(5)


def test_whoever_has_its_part_leaves_the_rest_to_those_who_wait():
    one, two = shared(2)
    taking(one, 6, 6)
    two.waits(100)
    for _ in range(3):
        one.give()
        assert one.taken <= 3 or not one.free(6)
        assert two.free(6)
        two.take()
    one.give()
    one.waits(200)
    assert one.free(6), "it has less than its part now"
    assert not two.free(6), "it has its part, though it has waited for longer"


def test_the_odd_place_is_for_whoever_has_waited_for_longest():
    one, two = shared(2)
    taking(one, 5, 2)
    taking(two, 5, 2)
    one.waits(200)
    two.waits(100)
    assert not one.free(5)
    assert two.free(5)
    two.waits(300)
    assert one.free(5)
    assert not two.free(5)


def test_a_single_place_goes_round():
    one, two = shared(2)
    taking(one, 1, 1)
    one.waits(20)
    two.waits(10)
    one.give()
    assert not one.free(1)
    assert two.free(1)


def test_workers_that_ask_for_nothing_have_no_part():
    workers = shared(4)
    taking(workers[2], 8, 4)
    workers[0].waits(1)
    taking(workers[0], 8, 4)
    assert not workers[1].free(8)


def test_of_a_worker_that_ended_nothing_is_left():
    one, two = shared(2)
    taking(one, 4, 3)
    one.waits(5)
    one.clear()
    taking(two, 4, 4)


def test_a_new_worker_in_the_same_row_begins_with_none():
    memory = [0] * Places.width(2)
    one, two = (Places(memory, 0, number, 2) for number in range(2))
    taking(one, 4, 4)
    again = Places(memory, 0, 0, 2)
    assert (again.taken, two.all) == (0, 0)


def test_pools_do_not_touch_one_another():
    memory = [0] * (2 * Places.width(2))
    here, there = Places(memory, 0, 1, 2), Places(memory, Places.width(2), 0, 2)
    taking(here, 9, 3)
    here.waits(1)
    here.lead()
    here.tell(9)
    assert (there.all, there.leads, there.led, there.level) == (0, False, False, 0)


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


def test_never_more_than_the_limit_and_never_nobody_while_there_is_one():
    """Any order of asking and giving back, with every worker always wanting more: all places are always in use."""
    chance = random.Random(4)
    for workers in (1, 2, 3, 5):
        fleet = shared(workers, first=11)
        since = [1 + number for number in range(workers)]
        for turn in range(1, 3000):
            limit = 1 + turn // 200
            one = chance.choice(fleet)
            if chance.random() < 0.5 and one.taken:
                one.give()
            for each in fleet:
                each.waits(since[each.number])
            while takers := [each for each in fleet if each.free(limit)]:
                taker = chance.choice(takers)
                taker.take()
                since[taker.number] = workers + turn
                taker.waits(since[taker.number])
                assert taker.taken <= -(-limit // workers)
            assert fleet[0].all == limit
            assert sum(each.taken for each in fleet) == limit
