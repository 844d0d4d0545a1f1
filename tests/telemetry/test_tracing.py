"""Traces in a worker: who decides, what is noted, what bounds it, and nothing imported for it."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from gateway.request import Request
from gateway.telemetry.tracing import MAX_WAITING, Tracing, wanted

PARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16


@pytest.fixture
def tracing():
    return Tracing(rand=lambda: 0.5)


def request(parent=None):
    headers = {} if parent is None else {b"traceparent": parent}
    return Request(b"GET", b"/x?secret", b"/x", headers, peer=b"10.0.0.9")


@pytest.mark.parametrize(
    ("parent", "share", "sampled"),
    [
        (None, 0.0, False),
        (None, 0.5, False),
        (None, 0.51, True),
        (PARENT + b"-01", 0.0, True),  # the caller decides
        (PARENT + b"-00", 1.0, False),
        (PARENT + b"-03", 0.0, True),
        (b"nonsense", 1.0, True),
        (b"nonsense", 0.0, False),
        (PARENT.upper() + b"-01", 0.0, False),
    ],
)
def test_who_is_sampled(tracing, parent, share, sampled):
    assert (tracing.begin(request(parent), share) is not None) is sampled


def test_a_span_joins_its_parent_and_hands_the_trace_on(tracing):
    span = tracing.begin(request(PARENT + b"-01"), 0.0)
    tracing.end(span, "GET all", {"http.response.status_code": 503}, failed=True)
    (done,) = pickle.loads(pickle.dumps(tracing.take()))  # as it reaches the supervisor
    assert done.parent_id == int("b" * 16, 16)
    assert done.traceparent == b"00-" + b"a" * 32 + b"-%016x-01" % done.span_id
    assert done.facts == {"http.response.status_code": 503}
    assert (done.name, done.failed) == ("GET all", True)
    assert 0 < done.began <= done.ended
    assert not tracing.take()


@pytest.mark.parametrize("parent", [None, b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01", b"00-" + b"a" * 32 + b"-" + b"0" * 16 + b"-01"])  # fmt: skip
def test_a_trace_of_its_own_where_the_parent_is_none_or_invalid(tracing, parent):
    one, other = (tracing.begin(request(parent), 1.0) for _ in range(2))
    assert one.parent_id == 0
    assert one.trace_id != other.trace_id
    assert one.span_id != other.span_id


def test_what_nobody_takes_is_bounded_and_counted(tracing):
    for _ in range(MAX_WAITING + 3):
        tracing.end(tracing.begin(request(), 1.0), "GET all", {}, failed=False)
    assert (len(tracing.take()), tracing.dropped) == (MAX_WAITING, 3)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_wanted(environ, expected):
    assert wanted(environ) is expected


def test_a_worker_never_imports_what_exports():
    code = (
        "import sys, gateway.app.worker as worker; assert worker.Tracing.from_environment() is not None;"
        "sys.exit(any(name in sys.modules for name in ('gateway.telemetry.span_export', 'opentelemetry.sdk.trace.export')))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={"OTEL_TRACES_EXPORTER": "console"}).returncode == 0
