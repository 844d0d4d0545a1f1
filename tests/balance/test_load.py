"""Reports of load, as they come over the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.balance.load import Load, read

NOW = 10**12


def figures(value, mine=0):
    load = Load()
    return (load.queued, load.running, load.capacity, load.utilisation) if read(load, value, mine, NOW) else None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # what our own benchmark server says
        (b'JSON {"application_utilization": 1.5, "named_metrics": {"queue_depth": 2, "capacity": 4}}', (2, 4, 4, 1.5)),
        # go_infer
        (b'JSON {"named_metrics": {"queued": 3, "running": 4, "capacity": 8}}', (3, 4, 8, 0.875)),
        # vLLM
        (
            b'JSON {"named_metrics": {"kv_cache_usage_perc": 0.5, "num_requests_waiting": 2, "num_requests_running": 7}}',
            (2, 7, 0, 0.5),
        ),
        (b"TEXT application_utilization=0.25, named_metrics.queue_depth=0, named_metrics.capacity=8", (0, 2, 8, 0.25)),
        (b"TEXT cpu_utilization=0.3,mem_utilization=0.8", (0, 0, 0, 0.3)),
        (b'JSON {"running": 1.5}', (0, 1.5, 0, -1)),
        (b'JSON {"queue_depth": 1, "running": null, "cpu_utilization": "high"}', (1, 0, 0, -1)),
        # nothing that is known, or that makes sense
        (b'JSON {"mem_utilization": 0.5}', None),
        (b'JSON {"queue_depth": -1}', None),
        (b'JSON {"queue_depth": 1e300}', None),
        (b'JSON {"queue_depth": true}', (1, 0, 0, -1)),
        (b"JSON [1]", None),
        (b"JSON {", None),
        (b"JSON", None),
        (b"", None),
        (b"BIN CgUI", None),
        (b"TEXT queue_depth=nan", None),
        (b"TEXT queue_depth", None),
        (b'JSON {"queue_depth": 1, "x": "' + b"y" * 5000 + b'"}', None),
    ],
)
def test_read(value, expected):
    assert figures(value) == expected


def test_where_the_running_ones_are_not_told_they_are_ours():
    assert figures(b'JSON {"queue_depth": 2, "capacity": 4}', mine=3) == (2, 3, 4, 1.25)


@given(st.binary(max_size=200), st.sampled_from([b"JSON ", b"TEXT ", b""]))
def test_nothing_that_a_backend_says_does_harm(value, form):
    load = Load()
    if read(load, form + value, 0, NOW):
        assert 0 <= load.queued <= 1e6
        assert 0 <= load.running <= 1e12
    else:
        assert load.heard == 0
