"""Exports the workers' spans with OpenTelemetry's SDK, in the supervisor, as `OTEL_*` says.

The SDK batches and sends in a thread of its own: a collector that is slow or gone drops spans, never requests.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.telemetry.tracing import Span, wanted

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanProcessor


class SpanExport:
    """One per gateway."""

    def __init__(self, processor: SpanProcessor, resource: Resource) -> None:
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        self._processor = processor
        self._resource = resource
        self._scope = InstrumentationScope("sluicegate")

    @classmethod
    def from_environment(cls) -> SpanExport | None:
        """The SDK set up, or None if nobody asks. Imports the SDK only when asked for."""
        if not wanted(os.environ):
            return None
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

        exporter: SpanExporter
        if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
            exporter = ConsoleSpanExporter()
        else:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
        name = os.environ.get("OTEL_SERVICE_NAME", "sluicegate")
        return cls(BatchSpanProcessor(exporter), Resource.create({"service.name": name}))

    def put(self, spans: Iterable[Span]) -> None:
        """Queues spans for export; never waits."""
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

        sampled = TraceFlags(TraceFlags.SAMPLED)
        for span in spans:
            parent = None
            if span.parent_id:
                parent = SpanContext(span.trace_id, span.parent_id, is_remote=True, trace_flags=sampled)
            self._processor.on_end(
                ReadableSpan(
                    span.name,
                    SpanContext(span.trace_id, span.span_id, is_remote=False, trace_flags=sampled),
                    parent,
                    self._resource,
                    span.facts,
                    kind=SpanKind.SERVER,
                    status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
                    start_time=span.began,
                    end_time=span.ended,
                    instrumentation_scope=self._scope,
                )
            )

    def close(self) -> None:
        """Flushes for at most 2 seconds."""
        self._processor.force_flush(2000)
        self._processor.shutdown()
