"""Places: taken, waited for, handed on, given back; and what standing overload is."""

from __future__ import annotations

import random

import pytest

from gateway.admission.adaptive import AdaptiveLimit
from gateway.admission.admission import LONGEST_AWAY, Admission, AdmissionSettings
from gateway.admission.places import Places
from gateway.admission.queue import FULL, LATE, OVERLOAD, Ticket
from gateway.request import Outcome

MS = 1_000_000
S = 1_000_000_000


def fixed(places=2, waiting=10):
    return Admission(AdmissionSettings(places, 100, waiting, 5 * MS))


class Waiting:
    """A ticket and what it was told."""

    def __init__(self, admission, now=0, priority=1, flow=b"a", deadline=1 << 60, here=True):
        self.here, self.told = here, 0
        self.ticket = Ticket(priority, flow, now, deadline, self.wake)
        self.waits = admission.wait(self.ticket, now)

    def wake(self):
        self.told += 1
        return self.here

    @property
    def placed(self):
        return self.ticket.mark >= 0


def warmed(admission, took=20 * MS, now=0):
    """Has seen the latency of full places a few times."""
    for _ in range(100):
        marks = [admission.enter(1, now) for _ in range(admission.limit.allowed)]
        now += took
        for mark in marks:
            admission.release(mark, took, Outcome.SUCCESS, now)
    return now


def test_places_are_taken_until_there_are_none():
    admission = fixed(2)
    assert admission.enter(1, 0) >= 0
    assert admission.enter(1, 0) >= 0
    assert admission.enter(1, 0) == -1
    assert admission.inflight == 2


def test_a_place_that_is_given_back_goes_to_who_waits():
    admission = fixed(1)
    mark = admission.enter(1, 0)
    first, second = Waiting(admission), Waiting(admission)
    assert (first.waits, first.placed) == (True, False)
    admission.release(mark, MS, Outcome.SUCCESS, MS)
    assert (first.placed, first.told, second.placed) == (True, 1, False)
    assert admission.inflight == 1
    admission.release(first.ticket.mark, MS, Outcome.SUCCESS, 2 * MS)
    assert second.placed


def test_nobody_overtakes_those_who_wait():
    admission = fixed(2)
    marks = [admission.enter(1, 0) for _ in range(2)]
    Waiting(admission), Waiting(admission)
    admission.release(marks[0], MS, Outcome.SUCCESS, MS)
    assert admission.enter(0, MS) == -1


def test_whoever_has_gone_when_its_turn_comes_is_passed_over_and_holds_nothing():
    admission = fixed(1)
    mark = admission.enter(1, 0)
    gone, here = Waiting(admission, here=False), Waiting(admission)
    admission.release(mark, MS, Outcome.SUCCESS, MS)
    assert here.placed
    admission.leave(gone.ticket, MS)
    assert admission.inflight == 1


def test_leaving_the_queue_gives_up_the_wait_and_leaving_with_a_place_gives_it_back():
    admission = fixed(1)
    mark = admission.enter(1, 0)
    quitter, placed, last = Waiting(admission), Waiting(admission), Waiting(admission)
    admission.leave(quitter.ticket, 0)
    assert admission.queue.size == 2
    admission.release(mark, MS, Outcome.SUCCESS, MS)
    assert placed.placed
    admission.leave(placed.ticket, MS)  # cancelled in the moment between
    assert last.placed
    admission.leave(last.ticket, MS)
    assert (admission.inflight, admission.queue.size) == (0, 0)


def test_leaving_after_a_refusal_changes_nothing():
    admission = fixed(1, waiting=0)
    admission.enter(1, 0)
    refused = Waiting(admission)
    assert refused.ticket.reason == FULL
    admission.leave(refused.ticket, 0)
    assert admission.inflight == 1


def test_who_cannot_be_answered_in_time_is_refused_when_it_comes():
    admission = fixed(4)
    now = warmed(admission)
    for _ in range(4):
        admission.enter(1, now)
    assert Waiting(admission, now, deadline=now + 200 * MS).waits
    hasty = Waiting(admission, now, deadline=now + 5 * MS)  # an answer takes 20 ms
    assert (hasty.waits, hasty.ticket.reason) == (False, LATE)


def test_the_wait_that_is_to_be_expected_counts():
    """4 places and 20 ms: 200 answers a second, so behind ten others a place is 50 ms away."""
    admission = fixed(4, waiting=100)
    now = warmed(admission)
    for _ in range(4):
        admission.enter(1, now)
    for _ in range(10):
        assert Waiting(admission, now).waits
    assert Waiting(admission, now, deadline=now + 55 * MS).ticket.reason == LATE
    assert Waiting(admission, now, deadline=now + 90 * MS).waits
    assert Waiting(admission, now, priority=0, deadline=now + 55 * MS).waits, "it goes before the others"


def test_who_has_become_too_late_in_the_queue_is_refused_by_the_sweep_and_never_gets_a_place():
    admission = fixed(1)
    now = warmed(admission)
    mark = admission.enter(1, now)
    late = Waiting(admission, now, deadline=now + 60 * MS)
    admission.sweep(now + 50 * MS)
    assert (late.ticket.reason, late.told) == (LATE, 1)
    admission.release(mark, 50 * MS, Outcome.SUCCESS, now + 50 * MS)
    assert not late.placed
    assert admission.inflight == 0


class Offered:
    """`factor` times what 4 places of 20 ms answer, one after the other, without end; nobody ever leaves."""

    def __init__(self, admission, now):
        self.admission, self.now = admission, now
        self.running, self.waiting, self.refused, self.given = [], [], 0, 0

    def run(self, seconds, factor, priority=1):
        gap = int(5 * MS / factor)
        end = self.now + int(seconds * S)
        while self.now < end:
            self.now += gap
            self.settle()
            self.given += 1
            mark = self.admission.enter(priority, self.now)
            if mark >= 0:
                self.running.append((self.now + 20 * MS, mark))
                continue
            one = Waiting(self.admission, self.now, priority)
            self.waiting.append(one) if one.waits else None
            self.refused += not one.waits

    def settle(self):
        while self.running and self.running[0][0] <= self.now:
            _, mark = self.running.pop(0)
            self.admission.release(mark, 20 * MS, Outcome.SUCCESS, self.now)
            self.collect()
        self.admission.sweep(self.now)
        self.collect()

    def collect(self):
        for one in list(self.waiting):
            if one.placed:
                self.running.append((self.now + 20 * MS, one.ticket.mark))
            if one.placed or one.ticket.reason >= 0:
                self.waiting.remove(one)
                self.refused += not one.placed


class TestStandingOverload:
    def test_it_is_seen_within_two_seconds_and_ends_with_the_load(self):
        admission = fixed(4, waiting=1024)
        load = Offered(admission, warmed(admission))
        load.run(1.2, factor=3)
        assert admission.overloaded[0] == "default"
        assert admission.queue.size <= 3
        load.run(2.0, factor=0.5)
        assert admission.overloaded == []

    def test_below_capacity_there_is_none_and_nobody_is_refused(self):
        admission = fixed(4, waiting=1024)
        load = Offered(admission, warmed(admission))
        load.run(5.0, factor=0.95)
        assert (admission.overloaded, load.refused) == ([], 0)

    def test_a_burst_is_none_however_large(self):
        admission = fixed(4, waiting=1024)
        load = Offered(admission, warmed(admission) + 2 * S)
        load.run(0.001, factor=500 * 5)
        load.run(6.0, factor=0.5)
        assert load.refused == 0
        assert admission.overloaded == []
        assert admission.queue.size == 0

    def test_what_a_higher_priority_takes_is_not_there_for_a_lower_and_not_the_other_way_round(self):
        admission = fixed(4, waiting=1024)
        load = Offered(admission, warmed(admission))
        load.run(1.0, factor=5, priority=2)
        assert admission.overloaded == ["batch"]
        before = admission.queue.refused[OVERLOAD]
        critical = Waiting(admission, load.now, priority=0)
        assert critical.waits
        assert admission.queue.refused[OVERLOAD] == before

    def test_a_client_is_told_to_stay_away_for_longer_the_more_is_offered(self):
        seen = []
        for factor in (1.5, 4, 20, 100):
            admission = fixed(4, waiting=1024)
            load = Offered(admission, warmed(admission))
            load.run(1.2, factor)
            seen.append(admission.retry_after(1))
        assert seen == sorted(seen)
        assert seen[0] <= 3 <= seen[1] <= 6 <= seen[2]
        assert seen[3] == LONGEST_AWAY
        assert fixed().retry_after(1) == 1


class TestReload:
    ADAPTIVE = AdmissionSettings(0, 100, 10, 5 * MS)

    def test_what_was_learnt_stays(self):
        admission = Admission(self.ADAPTIVE)
        now = warmed(admission)
        limit, learnt = admission.limit, admission.limit.allowed
        admission.configure(self.ADAPTIVE._replace(waiting=50, most=200), 1, now)
        assert admission.limit is limit
        assert (admission.limit.allowed, admission.queue.most) == (learnt, 50)

    def test_a_number_in_place_of_learning_counts_at_once_and_places_taken_stay_taken(self):
        admission = Admission(self.ADAPTIVE)
        now = warmed(admission)
        marks = [admission.enter(1, now) for _ in range(admission.limit.allowed)]
        waiting = [Waiting(admission, now) for _ in range(3)]
        latency = admission.limit.latency
        admission.configure(AdmissionSettings(len(marks) + 2, 100, 10, 0), 1, now)
        assert [one.placed for one in waiting] == [True, True, False]
        assert admission.inflight == len(marks) + 2
        assert admission.limit.latency == latency
        admission.configure(self.ADAPTIVE, 1, now)
        assert isinstance(admission.limit, AdaptiveLimit)
        for mark in [*marks, *(one.ticket.mark for one in waiting[:2])]:
            admission.release(mark, 20 * MS, Outcome.SUCCESS, now)
        assert admission.inflight == 1

    def test_fewer_places_than_are_taken_admit_nobody_until_enough_are_given_back(self):
        admission = fixed(4)
        marks = [admission.enter(1, 0) for _ in range(4)]
        admission.configure(AdmissionSettings(2, 100, 10, 0), 1, 0)
        waiting = Waiting(admission)
        for mark in marks[:2]:
            admission.release(mark, MS, Outcome.SUCCESS, MS)
            assert not waiting.placed
        admission.release(marks[2], MS, Outcome.SUCCESS, MS)
        assert waiting.placed


def test_no_place_is_ever_lost_whatever_happens():
    """Random entries, releases, departures and reloads: what is in flight is always exactly what was not given back."""
    chance = random.Random(3)
    admission = Admission(AdmissionSettings(0, 64, 30, 5 * MS))
    now, held, waiting = 0, [], []
    for _ in range(30_000):
        now += chance.randrange(2 * MS)
        act = chance.random()
        if act < 0.5:
            mark = admission.enter(chance.randrange(3), now)
            if mark >= 0:
                held.append(mark)
            else:
                one = Waiting(admission, now, chance.randrange(3), b"%d" % chance.randrange(5), now + 100 * MS)
                one.here = chance.random() < 0.95
                waiting.append(one) if one.waits else None
        elif act < 0.9 and held:
            mark = held.pop(chance.randrange(len(held)))
            outcome = chance.choice(list(Outcome))
            admission.release(mark, chance.randrange(1, 40 * MS), outcome, now)
        elif act < 0.93 and waiting:
            one = waiting.pop(chance.randrange(len(waiting)))
            admission.leave(one.ticket, now)
        elif act < 0.931:
            places = chance.choice((0, 0, 3, 9))
            admission.configure(AdmissionSettings(places, 64, 30, 5 * MS), chance.randrange(1, 4), now)
        else:
            admission.sweep(now)
        for one in list(waiting):
            if one.ticket.waiting:
                continue
            waiting.remove(one)
            if one.placed:
                held.append(one.ticket.mark)
        assert admission.inflight == len(held)
        assert admission.queue.size == len(waiting)
        assert not waiting or admission.inflight >= admission.limit.allowed


class TestWorkers:
    SETTINGS = AdmissionSettings(3, 100, 10, 0)

    def fleet(self, workers=2):
        memory = Places.memory(workers)
        return [Admission(self.SETTINGS, 1, Places(memory, 0, number, workers)) for number in range(workers)]

    def test_a_number_is_for_all_of_them(self):
        one, two = self.fleet()
        marks = [one.enter(1, 0), one.enter(1, 0), two.enter(1, 0)]
        assert min(marks) >= 0
        assert (one.enter(1, 0), two.enter(1, 0)) == (-1, -1)
        one.release(marks[0], MS, Outcome.SUCCESS, MS)
        assert two.enter(1, MS) >= 0

    def test_a_place_that_another_gave_back_is_found_by_the_next_sweep(self):
        one, two = self.fleet()
        marks = [one.enter(1, 0) for _ in range(3)]
        waiting = Waiting(two)
        one.release(marks[0], MS, Outcome.SUCCESS, MS)
        assert not waiting.placed
        two.sweep(2 * MS)
        assert waiting.placed
        assert (one.inflight, two.inflight) == (2, 1)

    def test_while_another_waits_nobody_takes_more_than_its_part(self):
        one, two = self.fleet()
        marks = [one.enter(1, 0) for _ in range(3)]
        early, late = Waiting(two, 1), Waiting(one, 2)
        one.release(marks[0], MS, Outcome.SUCCESS, MS)
        assert not late.placed, "two of three are more than half"
        two.sweep(2 * MS)
        assert early.placed

    def test_whoever_stops_waiting_makes_room_for_the_others_again(self):
        one, two = self.fleet()
        marks = [one.enter(1, 0) for _ in range(3)]
        gone = Waiting(two, 1)
        two.leave(gone.ticket, MS)
        waiting = Waiting(one, 2)
        one.release(marks[0], MS, Outcome.SUCCESS, MS)
        assert waiting.placed

    def test_all_know_what_all_answer(self):
        one, two = self.fleet()
        now = 0
        for _ in range(300):
            marks = [(one, one.enter(1, now)), (two, two.enter(1, now)), (two, two.enter(1, now))]
            now += 10 * MS
            for each, mark in marks:
                each.release(mark, 10 * MS, Outcome.SUCCESS, now)
        assert one.rate == two.rate == pytest.approx(300, rel=0.01)

    def test_switched_off_each_has_its_own_and_switched_on_what_is_taken_counts(self):
        one, two = self.fleet()
        off = AdmissionSettings(3, 3, 0, 0, shared=False)
        marks = [one.enter(1, 0) for _ in range(2)]
        for each in (one, two):
            each.configure(off, 1, 0)
        assert [two.enter(1, 0) >= 0 for _ in range(4)] == [True, True, True, False]
        assert one.inflight == 2
        for each in (one, two):
            each.configure(self.SETTINGS, 1, 0)
        assert (one.inflight, two.inflight, one.places.all) == (2, 3, 5)
        one.release(marks[0], MS, Outcome.SUCCESS, MS)
        assert one.enter(1, MS) == -1
