"""OpenTelemetry traces, only when the environment asks (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_EXPORTER`).

The sampling decision is ours and comes before the SDK is touched (an unsampled SDK span costs 7 us): a caller's
`traceparent` decides, else the configured share. Export happens in the SDK's thread; a collector that is slow or
gone drops spans, never requests.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.request import Request

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

_TRACEPARENT: Final = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for traces."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return any(environ.get(name) for name in names)


class Tracing:
    """One per worker. `begin` returns None for the many requests that are not sampled."""

    def __init__(self, provider: TracerProvider, rand: Any = random.random) -> None:
        self._provider = provider
        self._tracer: Tracer = provider.get_tracer("sluicegate")
        self._rand = rand

    @classmethod
    def from_environment(cls) -> Tracing | None:
        """The SDK set up as `OTEL_*` says, or None. Imports the SDK only when asked for."""
        if not wanted(os.environ):
            return None
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        exporter: SpanExporter
        if os.environ.get("OTEL_TRACES_EXPORTER") == "console":
            exporter = ConsoleSpanExporter()
        else:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter()
        name = os.environ.get("OTEL_SERVICE_NAME", "sluicegate")
        provider = TracerProvider(sampler=ALWAYS_ON, resource=Resource.create({"service.name": name}))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    def begin(self, request: Request, share: float) -> Span | None:
        """A server span if this request is sampled. `share` counts where the caller has not decided."""
        parent = request.headers.get(b"traceparent")
        match = None
        if parent is None or (match := _TRACEPARENT.fullmatch(parent)) is None:
            if self._rand() >= share:
                return None
        elif not int(match[3], 16) & 1:
            return None
        from opentelemetry import trace

        context = None
        if match is not None and int(match[1], 16) and int(match[2], 16):
            remote = trace.SpanContext(
                int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=trace.TraceFlags(1)
            )
            context = trace.set_span_in_context(trace.NonRecordingSpan(remote))
        return self._tracer.start_span(
            request.method.decode(),
            context=context,
            kind=trace.SpanKind.SERVER,
        )

    @staticmethod
    def traceparent(span: Span) -> bytes:
        """What the backend is sent, so that its spans join ours."""
        context = span.get_span_context()
        return b"00-%032x-%016x-01" % (context.trace_id, context.span_id)

    @staticmethod
    def end(span: Span, name: str, attributes: Mapping[str, str | int | float | bool], *, failed: bool) -> None:
        """Closes a span; `failed` marks it as an error."""
        from opentelemetry.trace import StatusCode

        span.update_name(name)
        span.set_attributes(attributes)
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end()

    def close(self) -> None:
        """Flushes for at most 2 seconds."""
        self._provider.force_flush(2000)
        self._provider.shutdown()
