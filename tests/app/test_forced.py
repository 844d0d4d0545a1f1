"""The operator's word: who is known, for how long, and what a reload leaves of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.app.forced import ForcedBreakers, over_workers
from gateway.breakers.permit import FOREVER
from gateway.config.load import load_text

CONFIG = """version: 1
pools:
  models: {backends: [{url: "http://10.0.0.1:80"}, {url: "http://10.0.0.2:80", name: two}]}
routes: [{name: all, match: {path: "/*"}, pool: models}]
"""
SECOND = 1_000_000_000


@pytest.fixture
def config():
    return load_text(CONFIG, Path("x.yaml"))


def test_open_closed_auto(config):
    forced = ForcedBreakers()
    assert forced.set(config, "models", "two", "open", None, 0) == ""
    assert forced.set(config, "models", "10.0.0.1:80", "closed", 10.0, 0) == ""
    assert forced.at(0) == {"models/10.0.0.2:80": ("open", FOREVER), "models/10.0.0.1:80": ("closed", 10 * SECOND)}
    assert forced.left(4 * SECOND) == {"models/10.0.0.2:80": None, "models/10.0.0.1:80": 6.0}
    assert forced.at(10 * SECOND) == {"models/10.0.0.2:80": ("open", FOREVER)}
    assert forced.set(config, "models", "two", "auto", None, 0) == ""
    assert forced.at(0) == {}


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        (("model", "two", "open", None), "there is no pool named 'model'; did you mean 'models'?"),
        (("models", "tow", "open", None), "there is no backend of 'models' named 'tow'; did you mean 'two'?"),
        (("models", "x", "open", None), "there is no backend of 'models' named 'x'; known: 10.0.0.1:80, two"),
        (("models", "two", "half", None), "the state must be open, closed or auto, not 'half'"),
        (("models", "two", "auto", 5.0), "a time goes with open and closed, and is above 0 s and at most a year"),
        (("models", "two", "open", 0.0), "a time goes with open and closed, and is above 0 s and at most a year"),
        (
            ("models", "two", "open", float("nan")),
            "a time goes with open and closed, and is above 0 s and at most a year",
        ),
    ],
)
def test_what_is_wrong_changes_nothing(config, asked, wrong):
    forced = ForcedBreakers()
    assert forced.set(config, *asked, 0) == wrong
    assert forced.at(0) == {}


def test_a_reload_forgets_backends_that_are_gone(config):
    forced = ForcedBreakers()
    forced.set(config, "models", "two", "open", None, 0)
    forced.use(load_text(CONFIG.replace("name: two", "name: second"), Path("x.yaml")))
    assert forced.at(0) == {"models/10.0.0.2:80": ("open", FOREVER)}
    forced.use(load_text(CONFIG.replace("10.0.0.2", "10.0.0.3"), Path("x.yaml")))
    assert forced.at(0) == {}


def test_workers_are_added_up():
    window = {"calls": 3, "failures": 1, "slow": 0, "dropped": 2}
    one = {
        "breaker": "open",
        "forced": None,
        "ejected": False,
        "trips": 1,
        "tripped": {"failures": 1},
        "doubted": {},
        "window": window,
    }
    other = one | {
        "breaker": "closed",
        "forced": "closed",
        "models": {"troubled": {"m": {"breaker": "open"}, "n": {"breaker": "closed"}}},
    }
    about = over_workers("p", "b", [one, other], 12.34)
    assert about["states"] == {"closed": 1, "open": 1}
    assert (about["forced"], about["forced_for_s"], about["trips"]) == ("closed", 12.3, 2)
    assert about["window"] == {"calls": 6, "failures": 2, "slow": 0, "dropped": 4}
    assert about["models"] == {"m": 1}
