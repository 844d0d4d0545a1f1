"""A gate per model: what names a model, what counts for whom, and that clients cannot make gates without end."""

from __future__ import annotations

import pytest

from gateway.breakers.gate import BreakerSettings, Gate
from gateway.breakers.models import ModelGates, model_of, own_settings
from gateway.breakers.permit import UNCLEAR, UNREACHED
from gateway.request import Outcome

SETTINGS = BreakerSettings(failures=3, open_for=5.0, error_rate=0.5, slow_rate=0.5, slow_after=0.2, per_model=True)
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("target", "model"),
    [
        (b"/v1/models/digits:predict", b"digits"),
        (b"/v1/models/digits", b"digits"),
        (b"/v1/models/digits/metadata", b"digits"),
        (b"/v1/models/digits/versions/3:predict", b"digits/versions/3"),
        (b"/v1/models/digits/versions/3/metadata", b"digits/versions/3"),
        (b"/v1/models/digits/labels/canary:classify?x=1", b"digits/labels/canary"),
        (b"/v1/models/digits?x=/versions/3", b"digits"),
        (b"/v1/models/digits/versions/", b"digits"),
        (b"/v2/models/ranker/infer", b"ranker"),
        (b"/v2/models/ranker/versions/7/infer", b"ranker/versions/7"),
        (b"/v2/models/ranker/versions/7", b"ranker/versions/7"),
        (b"/v2/models/", b""),
        (b"/v2/health/ready", b""),
        (b"/predict", b""),
        (b"/v1/models/" + b"x" * 300, b""),
    ],
)
def test_what_names_a_model(target, model):
    assert model_of(target) == model


def gates(most=3):
    own = Gate(own_settings(SETTINGS))
    return own, ModelGates(own, lambda _: Gate(SETTINGS), most)


def attempt(gate, outcome, now=0, **more):
    permit = gate.try_acquire(now)
    assert permit is not None
    gate.release(permit, outcome, now, **more)


def test_a_model_that_fails_takes_only_itself_out():
    own, models = gates()
    for _ in range(3):
        attempt(models.of(b"bad"), Outcome.FAILURE)
    assert models.of(b"bad").try_acquire(0) is None
    assert models.of(b"good").try_acquire(0) is not None
    assert own.closed


def test_connections_that_cannot_be_had_are_the_backends():
    own, models = gates()
    for model in (b"a", b"b", b"c"):
        attempt(models.of(model), Outcome.FAILURE, contact=UNREACHED)
    assert not own.closed
    assert all(models.of(model).inner.closed and models.of(model).try_acquire(0) is None for model in (b"a", b"b"))
    attempt(models.of(b"a"), Outcome.FAILURE, now=5 * SECOND)  # an answer, if a bad one: it can be reached
    assert own.closed


def test_silence_speaks_for_nobody():
    own, models = gates()
    for _ in range(3):
        attempt(models.of(b"a"), Outcome.FAILURE, contact=UNREACHED)
    attempt(models.of(b"a"), Outcome.FAILURE, now=5 * SECOND, contact=UNCLEAR)
    assert own.state == "half-open"


def test_a_refused_model_gives_the_backends_slot_back():
    own, models = gates()
    for _ in range(3):
        attempt(models.of(b"a"), Outcome.FAILURE)
    for _ in range(3):
        attempt(models.of(b"b"), Outcome.FAILURE, contact=UNREACHED)
    assert models.of(b"a").try_acquire(4 * SECOND) is None
    now = 5 * SECOND
    for _ in range(3):
        attempt(models.of(b"a"), Outcome.IGNORE, now)
    assert len(own._out) == 0


def test_a_permit_handed_back_twice_counts_once():
    _own, models = gates()
    gate = models.of(b"a")
    permit = gate.try_acquire(0)
    for _ in range(5):
        gate.release(permit, Outcome.FAILURE, 0)
    assert gate.closed


def test_gates_are_bounded_and_those_with_something_to_say_stay():
    own, models = gates(most=3)
    for number, model in enumerate((b"a", b"b", b"c")):
        attempt(models.of(model), Outcome.SUCCESS, number)
    attempt(models.of(b"a"), Outcome.FAILURE, 9)
    attempt(models.of(b"d"), Outcome.SUCCESS, 10)
    assert set(models.all()) == {b"a", b"c", b"d"}, "b was unused for longest"
    for model in (b"c", b"d"):
        attempt(models.of(model), Outcome.FAILURE, 11)
    assert models.of(b"e") is own
    assert models.crowded == 1
    assert len(models.all()) == 3


def test_a_flood_of_names_stays_bounded():
    _own, models = gates(most=8)
    for number in range(1000):
        attempt(models.of(b"m%d" % number), Outcome.SUCCESS, number)
    assert len(models.all()) == 8


def test_no_name_is_the_backends_own_gate():
    own, models = gates()
    assert models.of(b"") is own
    assert models.find(b"", 0) is None
    assert models.find(b"a", 0) is models.of(b"a").inner
