"""Integer cells, and their text form as prometheus-client's own parser reads it."""

from __future__ import annotations

import os
import pickle

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.errors import StartError
from gateway.telemetry.cells import SECONDS, Catalogue, Cells, Metric
from gateway.telemetry.prometheus import render

COUNTER = Metric("things_total", "counter", "Things.")
GAUGE = Metric("level", "gauge", "A level.")
HISTOGRAM = Metric("took_seconds", "histogram", "How long.")


@pytest.fixture
def make():
    fds = []

    def one():
        fds.append(Cells.create("test"))
        return Cells(fds[-1])

    yield one
    for fd in fds:
        os.close(fd)


def parse(catalogue, *blocks):
    return {f.name: f for f in text_string_to_metric_families(render(catalogue, [b.values for b in blocks]))}


def test_workers_are_summed(make):
    catalogue, one, two = Catalogue(), make(), make()
    place = catalogue.place(COUNTER, (("route", "digits"),))
    one.add(place)
    two.add(place, 41)
    (sample,) = parse(catalogue, one, two)["things"].samples
    assert (sample.name, sample.labels, sample.value) == ("things_total", {"route": "digits"}, 42)


def test_a_histogram_is_cumulative_and_both_sides_of_a_bound_are_right(make):
    catalogue, block = Catalogue(), make()
    place = catalogue.place(HISTOGRAM, (("route", "r"),))
    durations = [1, 500_000, 500_001, 10_000_000_000, 10_000_000_001]
    for nanoseconds in durations:
        block.observe(place, nanoseconds)
    samples = parse(catalogue, block)["took_seconds"].samples
    buckets = {s.labels["le"]: s.value for s in samples if s.name == "took_seconds_bucket"}
    assert len(buckets) == len(SECONDS) + 1
    assert buckets["0.0005"] == 2  # at the bound is inside
    assert buckets["0.001"] == 3
    assert buckets["10.0"] == 4
    assert buckets["+Inf"] == 5
    values = list(buckets.values())
    assert values == sorted(values)
    assert {s.name: s.value for s in samples if s.name.endswith("count")} == {"took_seconds_count": 5}
    assert next(s.value for s in samples if s.name.endswith("sum")) == pytest.approx(sum(durations) / 1e9)


def test_untouched_series_are_left_out_but_for_gauges(make):
    catalogue, block = Catalogue(), make()
    for metric in (COUNTER, GAUGE, HISTOGRAM):
        catalogue.place(metric)
    families = parse(catalogue, block)
    assert list(families) == ["level"]
    assert families["level"].samples[0].value == 0


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "ü", "", "a{b}=,c"])
def test_labels_are_escaped(make, value):
    catalogue, block = Catalogue(), make()
    block.add(catalogue.place(COUNTER, (("name", value),)))
    assert parse(catalogue, block)["things"].samples[0].labels == {"name": value}


def test_help_and_type_are_said_once_per_metric(make):
    catalogue, block = Catalogue(), make()
    for route in ("a", "b"):
        block.add(catalogue.place(COUNTER, (("route", route),)))
        block.add(catalogue.place(GAUGE, (("route", route),)))
    text = render(catalogue, [block.values])
    assert text.count("# TYPE things_total counter") == 1
    assert text.endswith("\n")


def test_a_scale_divides_on_the_way_out(make):
    catalogue, block = Catalogue(), make()
    block.add(catalogue.place(Metric("x", "gauge", "X.", 1000.0)), 1500)
    assert parse(catalogue, block)["x"].samples[0].value == 1.5


def test_places_do_not_overlap_and_keep_their_meaning(make):
    catalogue = Catalogue()
    first = catalogue.place(HISTOGRAM)
    second = catalogue.place(COUNTER)
    assert second == first + HISTOGRAM.width
    assert pickle.loads(pickle.dumps(catalogue)).place(COUNTER) == second
    assert catalogue.place(COUNTER) == second
    block = make()
    block.observe(first, 10**18)
    assert block.values[second] == 0


def test_too_many_series_are_refused():
    catalogue = Catalogue(3)
    for number in range(3):
        catalogue.place(COUNTER, (("n", str(number)),))
    with pytest.raises(StartError, match="too many metric series"):
        catalogue.place(COUNTER, (("n", "3"),))


def test_two_processes_see_the_same_cells(make):
    one = make()
    fd = Cells.create("shared")
    try:
        worker, supervisor = Cells(fd), Cells(fd)
        worker.add(7, 3)
        assert supervisor.values[7] == 3
        assert one.values[7] == 0
    finally:
        os.close(fd)


def test_memory_that_workers_share_is_told_to_nobody_and_is_as_wide_as_was_asked_for(make):
    catalogue, block = Catalogue(), make()
    shared = catalogue.place(Metric("places", "shared", "Not a metric."), (("pool", "p"),), width=12)
    after = catalogue.place(COUNTER)
    assert after == shared + 12
    assert catalogue.place(Metric("places", "shared", "Not a metric."), (("pool", "p"),)) == shared
    block.values[shared] = 7
    block.add(after)
    assert set(parse(catalogue, block)) == {"things"}
