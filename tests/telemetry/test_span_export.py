"""Records of workers become OpenTelemetry's spans."""

from __future__ import annotations

import subprocess
import sys

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from gateway.telemetry.span_export import SpanExport
from gateway.telemetry.tracing import Span


def test_what_is_exported():
    exporter = InMemorySpanExporter()
    export = SpanExport(SimpleSpanProcessor(exporter), Resource({"service.name": "front"}))
    root, child = Span(7, 8, 0, 1_000), Span(7, 9, 8, 2_000)
    for span in (root, child):
        span.name, span.ended, span.facts = "GET all", 5_000, {"http.response.status_code": 503}
    child.failed = True
    export.put([root, child])
    export.close()
    first, second = exporter.get_finished_spans()
    assert first.parent is None
    assert (second.parent.trace_id, second.parent.span_id, second.parent.is_remote) == (7, 8, True)
    assert (second.context.trace_id, second.context.span_id) == (7, 9)
    assert (second.name, second.kind, second.start_time, second.end_time) == ("GET all", SpanKind.SERVER, 2_000, 5_000)
    assert second.attributes == {"http.response.status_code": 503}
    assert (first.status.is_ok, second.status.is_ok) == (True, False)
    assert second.resource.attributes["service.name"] == "front"
    assert second.instrumentation_scope.name == "sluicegate"


def test_nothing_is_imported_when_nobody_asks():
    code = (
        "import sys; from gateway.telemetry.span_export import SpanExport; assert SpanExport.from_environment() is None;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], env={}).returncode == 0
