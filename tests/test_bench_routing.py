"""The benchmark of look-ups still asks for what is there."""

import pytest

from loadtests import bench_routing
from loadtests.bench_routing import BARRED, KINDS, measure


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_finds_its_route(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_routing, "LOOPS", 1)
    monkeypatch.setattr(bench_routing, "REPEATS", 1)
    assert measure(KINDS[name], 50, miss="miss" in name) > 0


def test_the_bar_is_on_kinds_that_exist() -> None:
    assert set(BARRED) <= KINDS.keys()
