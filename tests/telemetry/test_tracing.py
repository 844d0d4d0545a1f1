"""Traces: who decides, what is said, and nothing imported when nobody asks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.request import Request
from gateway.telemetry.tracing import Tracing, wanted

PARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exporter):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider, rand=lambda: 0.5)


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
    span = tracing.begin(request(parent), share)
    assert (span is not None) is sampled
    if span is not None:
        span.end()


def test_a_span_joins_its_parent_and_hands_the_trace_on(tracing, exporter):
    span = tracing.begin(request(PARENT + b"-01"), 0.0)
    said = Tracing.traceparent(span)
    Tracing.end(span, "GET all", {"http.response.status_code": 503}, failed=True)
    (done,) = exporter.get_finished_spans()
    assert done.parent.span_id == int("b" * 16, 16)
    assert done.context.trace_id == int("a" * 32, 16)
    assert said == b"00-" + b"a" * 32 + b"-%016x-01" % done.context.span_id
    assert done.attributes["http.response.status_code"] == 503
    assert done.name == "GET all"
    assert not done.status.is_ok
    assert "secret" not in str(dict(done.attributes))


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


def test_nothing_is_imported_when_not_wanted():
    code = (
        "import sys; from gateway.telemetry.tracing import Tracing; assert Tracing.from_environment() is None;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={}).returncode == 0
