"""What is learnt, of many kinds of backend, in virtual time. The load is open loop, and its clients give up after 500 ms.

The bars are those of the simulator's table with some room for chance; the seed is fixed, so a run is always the same.
"""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest

from gateway.admission.adaptive import FIRST, AdaptiveLimit
from gateway.admission.admission import Admission, AdmissionSettings
from gateway.admission.limit import Limit
from gateway.request import Outcome

pytestmark = pytest.mark.long

# Found by its place: where the compiled package is tested, the sources beside it are not on the path.
SIM = Path(__file__).parents[2] / "loadtests/admission/sim.py"
spec = importlib.util.spec_from_file_location("simulator_of_overload", SIM)
sim = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = sim
spec.loader.exec_module(sim)
MS, S, World, Stream, Loop, Call = sim.MS, sim.S, sim.World, sim.Stream, sim.Loop, sim.Call
learning, strangers = sim.learning, sim.strangers
Slots, Shared, Batches, Roomy = sim.Slots, sim.Shared, sim.Batches, sim.Roomy

SETTLED = 3.0


def overloaded(make, capacity, *, factor=3.0, workers=1, until=8.0, seed=1):
    world = World(make, learning(workers), [Stream("all", capacity * factor)], seed=seed)
    world.run(until)
    return world


def numbers(workers, places):
    """A fixed number of places for all of them."""
    memory, settings = sim.Places.memory(workers), AdmissionSettings(places, 1024, 1024, 5 * MS)
    return [Admission(settings, 1, sim.Places(memory, 0, number, workers)) for number in range(workers)]


def limits(world):
    return [worker.limit.allowed for worker in world.workers]


@pytest.mark.parametrize(("slots", "most"), [(1, 2), (2, 3), (4, 6), (16, 20)])
def test_it_finds_the_slots_and_little_more(slots, most):
    world = overloaded(lambda w: Slots(w, slots), slots * 50.0, until=9)
    seen = world.seen(SETTLED if slots > 1 else 6, 9)  # 50 answers a second: everything takes longer
    assert slots < limits(world)[0] <= most
    assert seen.goodput >= (0.98 if slots > 2 else 0.96) * slots * 50
    assert seen.p(99) <= (60 if slots > 1 else 100)
    assert seen.refusal(50) <= 5


@pytest.mark.parametrize("factor", [2, 5, 10])
def test_however_much_is_offered_the_backend_is_busy_and_the_served_are_served_soon(factor):
    seen = overloaded(Slots, 200, factor=factor).seen(2, 8)
    assert seen.goodput >= 0.98 * 200
    assert seen.p(99) <= 60
    assert seen.refusal(99) <= 5
    assert seen.timeouts == 0


@pytest.mark.parametrize(("factor", "seed"), [(2, 10), (2, 23), (5, 13), (5, 31), (10, 7), (10, 37)])
def test_a_search_of_two_workers_does_not_go_where_it_has_just_been(factor, seed):
    """Chances with which it went on and on between levels that it knew, at the cost of 3 to 6 % of the answers."""
    seen = overloaded(Slots, 200, factor=factor, workers=2, until=12, seed=seed).seen(2, 11.9)
    assert seen.goodput >= 0.985 * 200
    assert seen.p(99) <= 60


@pytest.mark.parametrize(
    ("factor", "seed", "stalls", "shortest", "longest"), [(10, 44, 0, 0, 0), (2, 2, 10, 5, 25), (5, 11, 20, 2, 10)]
)
def test_one_block_that_was_off_does_not_keep_a_search_at_many_times_what_is_needed(
    factor, seed, stalls, shortest, longest
):
    """Chances with which the first look down seemed to cost too much, and the limit rested at 20 to 34 of 4 slots."""
    world = World(Slots, learning(2), [Stream("all", 200 * factor)], seed=seed)
    chance = random.Random(seed + 1000)

    def stall():
        world.backend.stalled = True
        world.clock.after(chance.uniform(shortest, longest) * MS, go_on)

    def go_on():
        world.backend.stalled = False
        world.backend.go_on()
        world.clock.after(chance.expovariate(stalls) * S, stall)

    if stalls:
        world.clock.after(chance.expovariate(stalls) * S, stall)
    world.run(6)
    assert world.seen(2, 6).p(50) <= 45
    assert 4 <= limits(world)[0] <= 7


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_moment_in_which_all_stands_still_is_not_another_backend(seed):
    """What stops the whole machine for a moment is in one block; only what is in the next one, too, is a change."""
    world = overloaded(Slots, 200, factor=5, until=4, seed=seed)
    levels = []
    for moment in range(20):
        world.backend.stalled = moment == 0
        world.run(4 + (moment + 1) * 0.03)
        world.backend.go_on()
        levels += limits(world)
    assert min(levels) >= 4


# -- what is no overload ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_long_and_short_requests_in_one_pool_do_not_wait_for_one_another(workers):
    streams = [Loop("long", 64, 2 * S), Loop("short", 8, 2 * MS, think=50 * MS)]
    world = World(Roomy, learning(workers), streams)
    world.run(12)
    short, long = world.seen(0, 10, "short"), world.seen(0, 10, "long")
    assert (short.refused, long.refused) == (0, 0)
    assert short.p(50) < 4
    assert short.p(98) < 100
    assert long.p(99) < 2700


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_that_take_seconds_are_no_reason_to_refuse_anybody_on_a_cold_start(workers):
    world = World(Roomy, learning(workers), [Loop("all", 200, 2 * S)])
    world.run(12)
    seen = world.seen(0, 9)
    assert seen.refused == 0
    assert seen.p(99) < 2800
    assert limits(world)[0] >= 200


def test_long_requests_after_short_ones_find_room():
    streams = [Loop("fast", 16, 2 * MS, ends=3), Loop("early", 8, 30 * MS, ends=3), Loop("late", 64, 2 * S, begins=3)]
    world = World(Roomy, learning(), streams)
    world.run(12)
    late = world.seen(3, 9.5, "late")
    assert late.refused == 0
    assert late.p(99) < 2700


def test_what_an_overload_taught_is_given_up_when_the_work_is_another():
    """Five places for four slots of 20 ms, and then requests of 2 s to a backend that has room for them."""
    late = [Loop("long", 64, 2 * S, begins=5), Loop("short", 8, 2 * MS, think=50 * MS, begins=5)]
    overload = Stream("all", 1000)
    world = World(Slots, learning(), [overload, *late])
    world.run(5)
    assert limits(world)[0] <= 7
    overload.rate, world.backend.slots = 0, 1000
    world.run(20)
    short = world.seen(10, 18, "short")
    assert limits(world)[0] >= 64
    assert short.refused == 0
    assert short.p(50) < 4


def test_a_limit_that_was_not_needed_for_long_is_forgotten():
    overload = Stream("all", 1000)
    world = World(Slots, learning(), [overload])
    world.run(5)
    assert limits(world)[0] <= 7
    overload.rate = 20
    world.run(60)
    assert limits(world)[0] >= FIRST


def test_a_limit_of_one_is_forgotten_too():
    """It binds whenever somebody comes, however seldom that is: a request of 2 s then kept all others waiting."""
    world = World(lambda w: Slots(w, 1), learning(), [overload := Stream("all", 500)])
    world.run(6)
    limit = world.workers[0].limit
    assert not limit.open
    limit.learnt = limit.allowed = 1
    overload.rate = 0
    world.run(8)
    now = 8 * S
    for _ in range(3):
        now += 40 * S
        limit.done(limit.sent(1, now), MS, Outcome.SUCCESS, now + MS)
    assert limit.open
    assert limit.allowed == FIRST


def test_a_backend_that_is_slow_for_another_reason_is_not_held_to_be_full():
    """Three times as slow with a steady rate: three times as many are in flight, and fewer would not help."""
    world = World(Roomy, learning(), [Stream("all", 1000, patience=5 * S)])
    for turn in range(3):
        world.run(16 * turn + 8)
        world.backend.service = 60 * MS
        world.run(16 * turn + 16)
        world.backend.service = 20 * MS
    seen = world.seen(0, 47)
    assert seen.refused <= 0.02 * seen.offered
    assert seen.p(95) < 100


@pytest.mark.parametrize("kind", ["fixed", "exp"])
def test_below_capacity_nobody_is_refused(kind):
    world = World(lambda w: Slots(w, kind=kind), learning(), [Stream("all", 150)])
    world.run(60)
    seen = world.seen(0, 59)
    assert (seen.refused, seen.timeouts) == (0, 0)


def test_bursts_below_capacity_are_waited_for():
    """Sometimes so many come that it is overload for a second; but for those nobody is refused."""
    refused = []
    for seed in range(1, 7):
        world = World(Slots, learning(), [Stream("all", 100, burst=25, patience=5 * S)], seed=seed)
        world.run(20)
        refused.append(world.seen(0, 18).refused)
    assert sorted(refused)[2] == 0
    assert sum(refused) <= 0.05 * 6 * 18 * 100


@pytest.mark.parametrize(("slots", "kind"), [(4, "exp"), (16, "exp"), (4, "bimodal"), (16, "bimodal")])
def test_service_times_of_all_lengths_do_not_make_it_collapse(slots, kind):
    capacity = slots / (0.02 if kind == "exp" else 0.029)
    world = overloaded(lambda w: Slots(w, slots, kind=kind), capacity, until=14)
    assert world.seen(SETTLED, 14).goodput >= 0.92 * capacity
    assert slots * 0.75 <= limits(world)[0] <= 3 * slots


def test_threads_that_share_cores_are_no_other_than_slots():
    world = overloaded(lambda w: Shared(w, 4), 200)
    assert world.seen(SETTLED, 8).goodput >= 0.96 * 200
    assert limits(world)[0] <= 7


@pytest.mark.parametrize(
    ("fixed", "each", "batch", "places"),
    [(5, 0.1, 32, 64), (4, 1, 8, 16)],
)
def test_a_backend_that_gathers_batches_is_given_two_of_them_though_latency_grows_with_it(fixed, each, batch, places):
    capacity = batch / (fixed + each * batch) * 1000
    world = overloaded(lambda w: Batches(w, fixed * MS, each * MS, batch), capacity, factor=1.5, until=5)
    assert world.seen(2, 5).goodput >= 0.93 * capacity
    assert 0.8 * places <= limits(world)[0] <= 1.4 * places


def test_below_its_target_latency_nothing_is_held_back():
    """A backend (or a gateway) so fast that queueing does not matter: 32 in 0.94 ms."""
    world = overloaded(lambda w: Batches(w, 0.3 * MS, 0.02 * MS), 34_000, factor=1.2, until=0.5)
    assert limits(world)[0] >= 100


STEPS = [
    ("slots halve", {"slots": 2}),
    ("slots double", {"slots": 8}),
    ("service halves", {"service": 10 * MS}),
    ("service doubles", {"service": 40 * MS}),
]


@pytest.mark.parametrize("change", [change for _, change in STEPS], ids=[name for name, _ in STEPS])
def test_it_follows_within_two_seconds(change):
    world = overloaded(Slots, 200, factor=5, until=6)
    for name, value in change.items():
        setattr(world.backend, name, value)
    world.backend.go_on()
    world.run(12)
    seen = world.seen(8, 12)
    service = world.backend.service / MS
    capacity = world.backend.slots * 1000 / service
    assert seen.goodput >= 0.97 * capacity
    assert seen.p(99) <= 3 * service
    world.backend.slots, world.backend.service = 4, 20 * MS
    world.backend.go_on()
    world.run(18)
    seen = world.seen(14, 18)
    assert seen.goodput >= 0.97 * 200
    assert seen.p(99) <= 60


@pytest.mark.parametrize("seed", range(9, 17))
def test_a_pool_that_grows_is_found_though_answers_spread_so_much_that_one_look_shows_little(seed):
    world = World(lambda w: Slots(w, 8, kind="exp"), learning(), [Stream("all", 1200)], seed=seed)
    world.run(6)
    world.backend.slots = 32
    world.backend.go_on()
    world.run(16)
    seen = world.seen(12, 15.5)
    assert seen.goodput >= 0.9 * 1200


@pytest.mark.parametrize("shares", [(0.75, 1.3), (1.3, 0.75), (1.0, 1.3), (1.0, 1.0, 1.3)])
def test_blocks_that_are_far_off_to_this_side_and_that_do_not_keep_a_limit_from_looking_again(shares):
    limit = AdaptiveLimit(1, 64, 5 * MS)
    now = 0
    took = 20 * MS
    levels = []
    for block in range(600):
        number = limit.block
        off = shares[block % len(shares)] if block > 100 else 1.0
        for _ in range(10_000):
            if limit.block != number:
                break
            took = int(off * 5 * MS * max(4, limit.allowed))  # four slots
            now += took // limit.allowed + 1
            limit.done(limit.sent(limit.allowed, now), took, Outcome.SUCCESS, now)
        levels.append(limit.allowed)
    assert not limit.open
    assert len(set(levels[-200:])) > 1, levels[-20:]


def test_gateways_share_a_backend_evenly_though_they_only_know_how_many_they_are():
    world = World(lambda w: Slots(w, 16), strangers(2), [Stream("all", 2400)])
    world.run(14)
    assert world.seen(4, 14).goodput >= 0.95 * 800
    few, many = sorted(limits(world))
    assert 15 <= few + many <= 30
    assert many <= 2.5 * few


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_have_one_limit_and_equal_parts_of_it(workers):
    world = overloaded(lambda w: Slots(w, 16), 800, workers=workers, until=10)
    assert len(set(limits(world))) == 1
    assert 15 <= limits(world)[0] <= 22
    assert world.seen(SETTLED, 10).goodput >= 0.97 * 800
    places = [worker.places.taken for worker in world.workers]
    assert min(places) >= 16 // workers // 2


def test_a_worker_with_little_to_do_leaves_its_places_to_the_others():
    world = World(lambda w: Slots(w, 16), learning(2), [Stream("all", 1600)])
    busy, idle = world.workers
    world.chance.choice = lambda workers: idle if world.chance.random() < 0.02 else busy
    world.run(10)
    assert world.seen(SETTLED, 10).goodput >= 0.97 * 800
    assert busy.places.taken >= 14


def test_when_the_worker_that_learns_has_gone_another_goes_on():
    world = World(Slots, learning(2), [Stream("all", 1000)])
    world.run(5)
    leader, other = sorted(world.workers, key=lambda worker: not worker.places.leads)
    assert leader.places.leads
    world.workers = [other]
    world.run(5.5)
    leader.places.clear()  # as the supervisor does
    world.backend.slots = 8
    world.backend.go_on()
    world.run(12)
    assert other.places.leads
    assert world.seen(9, 12).goodput >= 0.97 * 400
    assert 8 <= other.limit.allowed <= 11


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_are_more_than_the_slots_neither_lock_up_nor_starve(workers):
    streams = [Stream(f"w{n}", 50 * 3 / workers) for n in range(workers)]
    world = World(lambda w: Slots(w, 1), learning(workers), streams)
    world.run(24)
    assert world.seen(14, 24).goodput >= 0.9 * 50
    for stream in streams:
        assert world.seen(14, 24, stream.name).goodput >= 50 / workers / 2
    assert all(limit >= 1 for limit in limits(world))


def test_it_stays_below_what_the_backend_itself_refuses():
    world = overloaded(lambda w: Slots(w, most=6), 200)
    assert limits(world)[0] <= 6
    assert world.seen(SETTLED, 8).goodput >= 0.97 * 200


def test_a_stall_leaves_what_was_learnt_and_is_over_when_it_is_over():
    world = overloaded(Slots, 200, factor=2, until=6)
    before = limits(world)
    world.backend.stalled = True
    world.run(16)
    world.backend.stalled = False
    world.backend.go_on()
    world.run(24)
    assert limits(world)[0] <= 2 * before[0]
    assert world.seen(18, 24).goodput >= 0.97 * 200


@pytest.mark.parametrize(("workers", "seed"), [(1, 4), (2, 2), (2, 4), (2, 5), (2, 8), (2, 10)])
def test_after_a_stall_there_is_no_overload_where_there_was_none_before(workers, seed):
    """What the stall had held up was taken for the rate of answers, and what came for more than that."""
    world = World(Slots, learning(workers), [Stream("all", 150, patience=S)], seed=seed)
    world.run(5)
    world.backend.stalled = True
    world.run(15)
    world.backend.stalled = False
    world.backend.go_on()
    world.run(45)
    assert world.seen(17, 44).refused == 0


def test_a_limit_that_never_bound_learns_nothing():
    world = World(lambda w: Slots(w, 64), learning(), [Stream("all", 100)])
    world.run(10)
    assert limits(world) == [FIRST]
    assert 20 * MS < world.workers[0].limit.latency < 22 * MS


def test_critical_is_served_whatever_batch_offers_and_batch_gets_the_rest():
    streams = [Stream("critical", 100, priority=0), Stream("batch", 2000, priority=2)]
    world = World(Slots, learning(), streams)
    world.run(12)
    critical, batch = world.seen(2, 12, "critical"), world.seen(2, 12, "batch")
    assert len(critical.served) >= 0.99 * critical.offered
    assert critical.p(99) <= 60
    assert critical.goodput + batch.goodput >= 0.97 * 200
    assert batch.goodput >= 90


def test_equal_tenants_get_the_same_however_much_they_offer():
    offered = {"ann": 60, "bob": 200, "cy": 600, "dee": 1600}
    world = World(Slots, learning(), [Stream(name, rate) for name, rate in offered.items()])
    world.run(12)
    got = [world.seen(2, 12, name).goodput for name in offered]
    assert sum(got) ** 2 / (4 * sum(each * each for each in got)) >= 0.95
    assert sum(got) >= 0.97 * 200


def test_many_clients_that_wait_for_their_answers_are_no_overload():
    """40 that ask again at once before 4 slots: as many places as are of use, and everybody is answered in its turn."""
    for workers in (1, 2, 3):
        world = World(Slots, learning(workers), [Loop("all", 40, 0)])
        world.run(12)
        seen = world.seen(4, 11)
        assert (seen.refused, seen.timeouts) == (0, 0)
        assert seen.goodput >= 0.94 * 200
        assert seen.p(100) <= 3 * 40 * 20 / 4, "nobody is overtaken for ever"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_loops_that_are_fewer_than_the_open_limit_are_looked_at_too(workers):
    """12 before 4 slots never take the 16 places of the beginning; what is critical must still go first."""
    critical, batch = Loop("critical", 3, 0), Loop("batch", 9, 0)
    critical.priority, batch.priority = 0, 2
    world = World(Slots, learning(workers), [critical, batch])
    world.run(20)
    assert world.seen(8, 20, "critical").p(50) < 45, "60 with no limit"
    assert world.seen(8, 19).goodput >= 0.94 * 200
    assert world.seen(0, 20).refused == 0


@pytest.mark.parametrize(("kind", "rate"), [("fixed", 2400), ("bimodal", 800), ("bimodal", 1600)])
@pytest.mark.parametrize("workers", [1, 2])
def test_nobody_is_held_back_to_see_whether_fewer_would_do_where_nobody_waits_for_answers(kind, rate, workers):
    """A fifth to half of what 96 slots hold; what is in flight sways slowly, and looks steady for a moment."""
    for seed in range(1, 5):
        world = World(
            lambda w: Slots(w, 96, kind=kind), learning(workers), [Stream("all", rate, patience=5 * S)], seed=seed
        )
        world.run(9)
        assert world.seen(2, 8).p(90) <= 22


@pytest.mark.parametrize(("workers", "seed"), [(1, 4), (2, 1), (3, 2), (4, 5)])
def test_answers_that_spread_are_no_jump(workers, seed):
    """Exponential ones, an eighth of the capacity: 92 ms is their own p99."""
    world = World(
        lambda w: Slots(w, 96, kind="exp"), learning(workers), [Stream("all", 600, patience=5 * S)], seed=seed
    )
    world.run(20)
    assert world.seen(0, 20).refused == 0
    assert world.seen(0, 19).p(99) <= 110


@pytest.mark.parametrize(("burst", "rate"), [(40, 80), (90, 180)])
def test_bursts_with_nothing_between_them_are_not_clients_that_wait(burst, rate):
    world = World(lambda w: Slots(w, 96), learning(), [Stream("all", rate, burst=burst, patience=5 * S)])
    world.run(30)
    late = [took for took in world.seen(2, 29).served if took > 30 * MS]
    assert len(late) <= 0.04 * world.seen(2, 29).offered


@pytest.mark.parametrize("rate", [150, 300])
@pytest.mark.parametrize("workers", [1, 2])
def test_deadlines_near_the_service_time_take_no_answers_from_the_others(rate, workers):
    short = Stream("short", rate / 2, patience=40 * MS, deadline=40 * MS)
    long = Stream("long", rate / 2, patience=1 * S, deadline=1 * S)
    world = World(Slots, learning(workers), [short, long], seed=3)
    world.run(12)
    assert world.seen(4, 11).goodput >= 0.72 * min(rate, 200)
    assert world.seen(4, 11, "long").goodput >= 0.5 * min(rate / 2, 100)


@pytest.mark.parametrize("outcome", [Outcome.DROPPED, Outcome.FAILURE])
@pytest.mark.parametrize("share", [0.05, 0.25])
def test_answers_that_are_no_success_are_answers(outcome, share, monkeypatch):
    """A backend that fails or has a quota is no overload, and no reason to give it less and less."""

    def back(self, real):
        answered(self, outcome if real is Outcome.SUCCESS and self._world.chance.random() < share else real)

    answered = Call._back
    monkeypatch.setattr(Call, "_back", back)
    for fleet in (learning(2), numbers(2, 4)):
        world = World(Slots, fleet, [Loop("all", 40, 0)], seed=3)
        world.run(10)
        seen = world.seen(3, 9.5)
        assert seen.goodput >= (1 - share) * 0.9 * 200 - 10
        assert not any(worker.overloaded for worker in world.workers)


def test_a_backend_that_becomes_smaller_is_noticed_though_the_number_in_flight_never_varies():
    for workers in (1, 2):
        world = World(lambda w: Slots(w, 100), learning(workers), [Loop("all", 36, 0)])
        world.run(4)
        assert limits(world)[0] >= 36
        world.backend.slots = 8
        world.run(8)
        assert 8 <= limits(world)[0] <= 24
        assert world.seen(6, 7.5).goodput >= 0.95 * 400
        assert world.seen(0, 8).refused == 0


def test_priorities_hold_between_workers():
    """What is critical comes to one worker only, and batch work to all."""
    for workers in (2, 3):
        world = World(Slots, learning(workers), [Stream("batch", 400, 2)])
        world.run(4)
        first = world.workers[:1]
        for _ in range(600):
            world.clock.after(world.chance.uniform(0, 4) * S, Call, world, Stream("critical", 0, 0), first[0])
        world.run(9)
        critical = world.seen(4, 8, "critical")
        assert len(critical.served) >= 0.99 * critical.offered
        assert critical.p(99) <= 100


# -- the parts --------------------------------------------------------------------------------------------------


def test_a_fixed_limit_stays_and_still_learns_what_is_needed_to_judge_waiting():
    admission = Admission(AdmissionSettings(4, 100, 10, 5 * MS))
    now = 0
    for _ in range(200):
        marks = [admission.enter(1, now) for _ in range(4)]
        now += 20 * MS
        for mark in marks:
            admission.release(mark, 20 * MS, Outcome.SUCCESS, now)
    assert admission.limit.allowed == 4
    assert type(admission.limit) is Limit
    assert admission.rate == pytest.approx(200, rel=0.05)
    assert admission.limit.latency == pytest.approx(20 * MS, rel=0.05)


def test_results_of_an_earlier_block_count_for_nothing():
    world = overloaded(Slots, 200)
    limit, now = world.workers[0].limit, world.clock.now
    assert not limit.open
    assert limit.sent(limit.allowed - 1, now) == 0, "the limit did not bind"
    mark, block = limit.sent(limit.allowed, now), limit.block
    assert mark
    while limit.block == block:
        now += 20 * MS
        limit.done(mark, 20 * MS, Outcome.SUCCESS, now)
    before = limit.allowed
    for _ in range(1000):
        limit.done(mark, 20 * MS, Outcome.SUCCESS, now)
    assert limit.allowed == before


def test_it_keeps_to_its_bounds_whatever_it_is_told():
    for seed, outcome in enumerate(Outcome):
        limit = AdaptiveLimit(2, 9, 5 * MS)
        now = 0
        for turn in range(5000):
            now += 3 * MS
            took = (turn * 7919 + seed) % 40 * MS + 1
            limit.done(limit.sent(limit.allowed, now), took, outcome, now)
            assert 2 <= limit.allowed <= 9
