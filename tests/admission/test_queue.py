"""Who is served next, who is refused, and that nobody is lost on the way."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from gateway.admission.queue import BURST, FULL, LATE, OVERLOAD, QUICK, REMEMBERED, Queue, Ticket

MS = 1_000_000
NO_DEADLINE = 1 << 60


class Waiter:
    """Remembers what it was told."""

    def __init__(self):
        self.woken = 0
        self.here = True

    def wake(self):
        self.woken += 1
        return self.here


def ticket(flow="a", since=0, deadline=NO_DEADLINE, priority=1):
    waiter = Waiter()
    return Ticket(priority, flow.encode(), since, deadline, waiter.wake)


def filled(*tickets, most=100, short=100, now=0):
    queue = Queue(most)
    for each in tickets:
        queue.add(each, now, short)
    return queue


def order(queue, now=0):
    served = []
    while (found := queue.next(now, 0)) is not None:
        served.append(found)
    return served


def test_the_earliest_deadline_is_first_and_equals_stay_in_order():
    late, soon, same = ticket(deadline=30 * MS), ticket(deadline=10 * MS), ticket(deadline=30 * MS)
    assert order(filled(late, soon, same)) == [soon, late, same]


def test_a_higher_priority_is_served_first_whatever_its_deadline():
    batch, normal, critical = (ticket(priority=p, deadline=(3 - p) * MS) for p in (2, 1, 0))
    assert order(filled(batch, normal, critical)) == [critical, normal, batch]


def test_flows_take_turns_however_much_each_has_waiting():
    hog = [ticket("hog") for _ in range(6)]
    shy = [ticket("shy") for _ in range(2)]
    served = order(filled(*hog, *shy))
    assert [each.flow for each in served[:4]] in ([b"hog", b"shy"] * 2, [b"shy", b"hog"] * 2)
    assert len(served) == 8


def test_a_flow_that_was_idle_starts_with_the_others_and_has_saved_nothing_up():
    queue = filled(*[ticket("old") for _ in range(20)])
    for _ in range(10):
        queue.next(0, 0)
    for _ in range(10):
        queue.add(ticket("new"), 0, 100)
    counts = Counter(queue.next(0, 0).flow for _ in range(10))
    assert abs(counts[b"old"] - counts[b"new"]) <= 1


def test_a_flow_that_leaves_ahead_of_the_others_cannot_come_back_for_a_better_turn():
    """It empties its queue each time it is served: without memory it would have every second turn of three flows."""
    queue = filled(*[ticket(name) for name in ("a", "b") for _ in range(60)], most=1000)
    counts = Counter()
    for _ in range(60):
        if not any(flow == b"c" for flow in queue.lines[1].flows):
            queue.add(ticket("c"), 0, 1000)
        counts[queue.next(0, 0).flow] += 1
    assert max(counts.values()) - min(counts.values()) <= 1


def test_while_the_backlog_grows_the_newest_is_first():
    tickets = [ticket(since=n) for n in range(6)]
    queue = filled(*tickets)
    queue.lines[1].grows = True
    assert order(queue) == tickets[::-1]
    assert order(filled(*tickets)) == tickets, "and if it only is long whoever came first"


def test_who_cannot_be_answered_in_time_is_refused_on_the_way_and_never_served():
    dead, alive = ticket(deadline=5 * MS), ticket(deadline=50 * MS)
    queue = filled(dead, alive)
    assert queue.next(0, 10 * MS) is alive
    assert (dead.reason, dead.waiting) == (LATE, False)
    assert queue.refused[LATE] == 1
    assert queue.size == 0


def test_the_sweep_refuses_the_late_before_their_turn():
    dead, alive = ticket(deadline=5 * MS), ticket(deadline=50 * MS)
    queue = filled(alive, dead)
    queue.sweep(now=0, needed=10 * MS, patience=MS)
    assert dead.reason == LATE
    assert alive.waiting


def test_the_sweep_ends_the_patience_of_overloaded_lines_alone():
    old, new = ticket(since=0, priority=2), ticket(since=9 * MS, priority=2)
    other = ticket(since=0, priority=1)
    queue = filled(old, new, other)
    queue.lines[2].overloaded = True
    queue.sweep(now=10 * MS, needed=0, patience=5 * MS)
    assert (old.reason, new.waiting, other.waiting) == (OVERLOAD, True, True)


def test_a_full_queue_makes_room_at_the_expense_of_the_lowest_priority():
    batch = [ticket(priority=2, since=n) for n in range(3)]
    queue = filled(*batch, most=3)
    critical = ticket(priority=0)
    assert queue.add(critical, 0, 100)
    assert batch[0].reason == FULL
    assert queue.size == 3


def test_a_full_queue_refuses_who_comes_with_a_lower_priority_than_all_that_wait():
    queue = filled(*[ticket(priority=0) for _ in range(3)], most=3)
    batch = ticket(priority=2)
    assert not queue.add(batch, 0, 100)
    assert (batch.reason, batch.waiting) == (FULL, False)


def test_a_full_queue_that_is_long_keeps_the_newest():
    tickets = [ticket(since=n) for n in range(BURST + 1)]
    queue = filled(*tickets, most=BURST + 1)
    assert queue.add(ticket(since=99), 99, 100)
    assert tickets[0].reason == FULL
    assert queue.size == BURST + 1


def test_a_queue_of_no_length_lets_nobody_wait():
    queue = Queue(0)
    one = ticket()
    assert not queue.add(one, 0, 100)
    assert one.reason == FULL


class TestOverload:
    """A line under standing overload keeps 2 entries here."""

    @staticmethod
    def overloaded(*tickets, short=2, now=0):
        queue = Queue(100)
        queue.lines[1].overloaded = True
        for each in tickets:
            queue.add(each, now, short)
        return queue

    def test_what_came_last_takes_the_place_of_the_oldest_that_can_still_be_refused_quickly(self):
        one, two, three = ticket(since=0), ticket(since=MS), ticket(since=2 * MS)
        queue = self.overloaded(one, two)
        assert queue.add(three, 2 * MS, 2)
        assert (one.reason, two.waiting, three.waiting) == (OVERLOAD, True, True)

    def test_who_has_waited_longer_is_kept_and_who_comes_is_refused_at_once(self):
        one, two, three = ticket(since=0), ticket(since=0), ticket(since=QUICK + MS)
        queue = self.overloaded(one, two)
        assert not queue.add(three, QUICK + MS, 2)
        assert (three.reason, one.waiting, two.waiting) == (OVERLOAD, True, True)

    def test_who_has_waited_longer_is_served_next_and_otherwise_the_newest(self):
        old, new = ticket(since=0), ticket(since=QUICK)
        queue = self.overloaded(old, new)
        assert queue.next(QUICK, 0) is old
        fresh, fresher = ticket(since=QUICK), ticket(since=QUICK + 1)
        queue = self.overloaded(fresh, fresher)
        assert queue.next(QUICK + 2, 0) is fresher

    def test_room_is_made_by_the_flow_that_waits_for_most(self):
        hog = [ticket("hog", since=n) for n in range(2)]
        shy = ticket("shy", since=3)
        queue = self.overloaded(*hog)
        assert queue.add(shy, 3, 2)
        assert [each.waiting for each in hog] == [False, True]
        again = ticket("hog", since=4)
        queue.add(again, 4, 2)
        assert shy.waiting, "the hog may only take its own places"

    def test_shedding_leaves_the_newest_of_every_flow(self):
        tickets = [ticket(flow, since=n) for n in range(5) for flow in ("a", "b")]
        queue = filled(*tickets)
        queue.shed(queue.lines[1], 2)
        assert [each for each in tickets if each.waiting] == tickets[-2:]
        assert queue.refused[OVERLOAD] == 8


def test_every_ticket_ends_exactly_once_whatever_happens():
    """Also: never more than may wait, and no flow is remembered for nothing."""
    chance = random.Random(5)
    told = Counter()

    class Counted:
        def __init__(self, number):
            self.number = number

        def wake(self):
            told[self.number] += 1
            return True

    queue, now, alive, ends = Queue(50), 0, {}, Counter()
    for number in range(20_000):
        now += chance.randrange(MS)
        queue.lines[1].overloaded = (now // (200 * MS)) % 2 == 1
        act = chance.random()
        if act < 0.5:
            one = Ticket(
                chance.randrange(3), b"%d" % chance.randrange(2000), now, now + chance.randrange(100 * MS),
                Counted(number).wake,
            )  # fmt: skip
            if queue.add(one, now, 5):
                alive[number] = one
            else:
                ends[number] += 1
        elif act < 0.8:
            queue.next(now, MS)
        elif act < 0.95:
            queue.sweep(now, MS, 20 * MS)
        elif alive:
            gone = chance.choice(list(alive))
            if alive[gone].waiting:
                queue.remove(alive[gone])
        for each, one in list(alive.items()):
            if not one.waiting:
                ends[each] += 1
                del alive[each]
                assert told[each] == (one.reason >= 0)
        assert queue.size == len(alive) == sum(line.size for line in queue.lines) <= 50
        for line in queue.lines:
            assert line.size == sum(flow.size for flow in line.flows.values())
            assert all(flow.size for flow in line.flows.values())
            assert len(line._rested) <= REMEMBERED
    assert set(ends.values()) == {1}


@pytest.mark.parametrize("newest", [False, True])
def test_entries_that_left_are_not_kept_for_ever(newest):
    """One order's entries would pile up while the other is served."""
    queue = Queue(100)
    keeper = ticket(deadline=0 if newest else NO_DEADLINE, since=0)
    queue.add(keeper, 0, 100)
    queue.lines[1].grows = newest
    for n in range(1, 5000):
        queue.add(ticket(since=n, deadline=NO_DEADLINE - 5000 + n), n, 100)
        assert queue.next(-NO_DEADLINE, 0) is not keeper or not newest
        if not keeper.waiting:
            keeper = ticket(deadline=NO_DEADLINE, since=n)
            queue.add(keeper, n, 100)
    [flow] = queue.lines[1].flows.values()
    assert max(len(flow.due), len(flow.arrived)) < 2 * BURST
