"""What is learnt, of many kinds of backend, in virtual time. The load is open loop, and its clients give up after 500 ms.

The bars are those of the simulator's table with some room for chance; the seed is fixed, so a run is always the same.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from gateway.admission.admission import Admission, AdmissionSettings
from gateway.admission.limit import AdaptiveLimit, Limit
from gateway.request import Outcome

# Found by its place: where the compiled package is tested, the sources beside it are not on the path.
SIM = Path(__file__).parents[2] / "loadtests/admission/sim.py"
spec = importlib.util.spec_from_file_location("simulator_of_overload", SIM)
sim = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = sim
spec.loader.exec_module(sim)
MS, World, Stream, learning = sim.MS, sim.World, sim.Stream, sim.learning
Slots, Shared, Batches = sim.Slots, sim.Shared, sim.Batches

SETTLED = 3.0


def overloaded(make, capacity, *, factor=3.0, workers=1, until=8.0, seed=1):
    world = World(make, learning(workers), [Stream("all", capacity * factor)], seed=seed)
    world.run(until)
    return world


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


@pytest.mark.parametrize("kind", ["fixed", "exp"])
def test_below_capacity_nobody_is_refused(kind):
    world = World(lambda w: Slots(w, kind=kind), learning(), [Stream("all", 150)])
    world.run(60)
    seen = world.seen(0, 59)
    assert (seen.refused, seen.timeouts) == (0, 0)


def test_bursts_below_capacity_are_waited_for():
    world = World(Slots, learning(), [Stream("all", 100, burst=25, patience=5000 * MS)])
    world.run(30)
    assert world.seen(0, 28).refused == 0


@pytest.mark.parametrize(("slots", "kind"), [(4, "exp"), (16, "exp"), (4, "bimodal"), (16, "bimodal")])
def test_service_times_of_all_lengths_do_not_make_it_collapse(slots, kind):
    capacity = slots / (0.02 if kind == "exp" else 0.029)
    world = overloaded(lambda w: Slots(w, slots, kind=kind), capacity, until=14)
    assert world.seen(SETTLED, 14).goodput >= 0.92 * capacity
    assert slots * 0.75 <= limits(world)[0] <= 3 * slots


def test_threads_that_share_cores_are_no_other_than_slots():
    world = overloaded(lambda w: Shared(w, 4), 200)
    assert world.seen(SETTLED, 8).goodput >= 0.97 * 200
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


def test_two_workers_share_a_backend_evenly_without_knowing_of_one_another():
    world = overloaded(lambda w: Slots(w, 16), 800, workers=2, until=12)
    assert world.seen(SETTLED, 12).goodput >= 0.96 * 800
    few, many = sorted(limits(world))
    assert 15 <= few + many <= 26
    assert many <= 2 * few


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_that_are_more_than_the_slots_neither_lock_up_nor_starve(workers):
    streams = [Stream(f"w{n}", 50 * 3 / workers) for n in range(workers)]
    world = World(lambda w: Slots(w, 1), learning(workers), streams)
    world.run(10)
    assert world.seen(SETTLED, 10).goodput >= 0.85 * 50
    for stream in streams:
        assert world.seen(SETTLED, 10, stream.name).goodput >= 50 / workers / 3
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


def test_a_limit_that_never_bound_learns_nothing():
    world = World(lambda w: Slots(w, 64), learning(), [Stream("all", 100)])
    world.run(10)
    assert limits(world) == [8]
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
    assert admission.limit.rate == pytest.approx(200, rel=0.05)
    assert admission.limit.latency == pytest.approx(20 * MS, rel=0.05)


def test_results_of_an_earlier_block_count_for_nothing():
    limit = AdaptiveLimit(1, 100, 5 * MS, 4)
    mark = limit.sent(4, 0)
    assert mark == limit.block
    assert limit.sent(3, 0) == 0, "the limit did not bind"
    now = 0
    while limit.block == mark:
        now += 20 * MS
        limit.done(mark, 20 * MS, Outcome.SUCCESS, now)
    before = limit.allowed
    for _ in range(1000):
        limit.done(mark, 20 * MS, Outcome.SUCCESS, now)
    assert limit.allowed == before


def test_it_keeps_to_its_bounds_whatever_it_is_told():
    for seed, outcome in enumerate(Outcome):
        limit = AdaptiveLimit(2, 9, 5 * MS, 4)
        now = 0
        for turn in range(5000):
            now += 3 * MS
            took = (turn * 7919 + seed) % 40 * MS + 1
            limit.done(limit.sent(limit.allowed, now), took, outcome, now)
            assert 2 <= limit.allowed <= 9
