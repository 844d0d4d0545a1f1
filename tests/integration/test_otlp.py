"""go_infer's spans at a real receiver of OTLP, decoded with OpenTelemetry's own messages: over HTTP, gRPC and the link."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from demo.layout import GO_INFER, MODELS
from gateway.http.client import ClientLimits
from gateway.http.dial import Address
from gateway.link.connection import LinkLimits
from gateway.link.pool import LinkPool
from loadtests.peers.processes import Process, free_ports
from tests.integration.served import wait_until_ready
from tests.link.peer import DROPPED, request

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
BODY = json.dumps({"instances": [[0.0] * 64]}).encode()
PREDICT = "/v1/models/digits:predict"


def parent(number: int, flags: str = "01") -> str:
    return f"00-{TRACE}-{number:016x}-{flags}"


class Collector:
    """Takes spans on a port; ``codes`` are what it answers first."""

    def __init__(self) -> None:
        self.codes, self.spans, self.headers, self.resource = (
            list[int](),
            list[Span](),
            dict[str, str](),
            dict[str, str](),
        )
        self.hanging = False
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                while collector.hanging:
                    time.sleep(0.02)
                code = collector.codes.pop(0) if collector.codes else 200
                if code == 200 and self.path == "/v1/traces":
                    collector.take(body, dict(self.headers))
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        self.headers = headers
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = {each.key: each.value.string_value for each in group.resource.attributes}
            for scope in group.scope_spans:
                assert scope.scope.name == "sluicegate/go_infer"
                self.spans.extend(scope.spans)

    def eventually(self, condition: Callable[[Collector], bool]) -> None:
        end = time.monotonic() + 15
        while not condition(self):
            assert time.monotonic() < end, self.spans
            time.sleep(0.02)

    def close(self) -> None:
        self.hanging = False
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


class Server(Process):
    def __init__(self, folder: Path, environment: dict[str, str], *flags: str) -> None:
        self.rest, self.grpc = free_ports(2)
        base = [str(GO_INFER.resolve()), "--model_name=digits", f"--model_base_path={(MODELS / 'digits').resolve()}"]
        ports = [f"--rest_api_port={self.rest}", f"--port={self.grpc}"]
        super().__init__("go_infer", [*base, *ports, *flags], folder, environment)
        self.wait_for_port(self.rest)
        wait_until_ready(self.rest)

    def ask(self, traceparent: str, path: str = PREDICT) -> int:
        headers = {"traceparent": traceparent}
        asked = urllib.request.Request(f"http://127.0.0.1:{self.rest}{path}", BODY, headers)
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}/metrics", timeout=5) as answer:
            lines = [line.split() for line in answer.read().decode().splitlines()]
        return sum(float(line[1]) for line in lines if line[0] == name)


@pytest.fixture
def server(collector: Collector, tmp_path: Path) -> Iterator[Server]:
    """Its exporter is set up by OpenTelemetry's own variables alone, but for the interval."""
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_SERVICE_NAME": "digits-a",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
    }
    made = Server(tmp_path, environment, "--otlp_interval=50ms")
    yield made
    made.stop()


def facts(span: Span) -> dict[str, Any]:
    return {each.key: getattr(each.value, str(each.value.WhichOneof("value"))) for each in span.attributes}


def test_requests_over_http_are_joined_to_their_callers_trace(collector: Collector, server: Server) -> None:
    assert server.ask(parent(1)) == 200
    assert server.ask(parent(2, flags="00")) == 200, "not sampled"
    assert server.ask(parent(3), "/v1/models/none:predict") == 404
    collector.eventually(lambda got: len(got.spans) == 2)
    good, bad = sorted(collector.spans, key=lambda span: span.parent_span_id)
    assert good.trace_id.hex() == TRACE and good.parent_span_id.hex() == f"{1:016x}" and len(good.span_id) == 8
    assert good.kind == Span.SPAN_KIND_SERVER and good.name == f"POST {PREDICT}"
    assert 0 < good.end_time_unix_nano - good.start_time_unix_nano < 10**10
    assert abs(good.start_time_unix_nano - time.time_ns()) < 60 * 10**9
    assert facts(good)["http.response.status_code"] == 200 and facts(bad)["http.response.status_code"] == 404
    assert good.status.code == bad.status.code == 0, "a client's mistake is no failure of the server"
    assert collector.headers["Api-Key"] == "a b"
    assert collector.resource["service.name"] == "digits-a" and collector.resource["deployment.environment"] == "test"
    assert server.metric("go_infer_spans_sent_total") == 2


def test_calls_over_grpc(collector: Collector, server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc}") as channel:
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        live(b"", metadata=(("traceparent", parent(7)),), timeout=10)
        predict = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError):
            predict(b"", metadata=(("traceparent", parent(8)),), timeout=10)
    collector.eventually(lambda got: len(got.spans) == 2)
    first, second = sorted(collector.spans, key=lambda span: span.parent_span_id)
    assert first.trace_id.hex() == TRACE and first.parent_span_id.hex() == f"{7:016x}"
    assert first.name == "inference.GRPCInferenceService/ServerLive"
    assert facts(first) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ServerLive",
        "rpc.grpc.status_code": 0,
    }
    assert facts(second)["rpc.grpc.status_code"] == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_requests_over_the_link(collector: Collector, server: Server) -> None:
    async def ask() -> int:
        times = LinkLimits(30.0, 30.0)
        pool = LinkPool(Address("127.0.0.1", server.rest), ClientLimits(), required=True, times=times)
        asked = request(
            b"POST", PREDICT.encode(), BODY, content_type=b"application/json", traceparent=parent(9).encode()
        )
        deadline = asyncio.get_running_loop().time() + 10
        answer = await pool.ask(asked, PREDICT.encode(), b"a", 10**10, DROPPED, deadline=deadline)
        pool.close()
        return int(answer.status)

    assert asyncio.run(ask()) == 200
    collector.eventually(lambda got: len(got.spans) == 1)
    [span] = collector.spans
    assert span.trace_id.hex() == TRACE and span.parent_span_id.hex() == f"{9:016x}"


def test_a_busy_collector_is_asked_again_and_a_hung_one_delays_nobody(collector: Collector, server: Server) -> None:
    collector.codes = [503, 429]
    assert server.ask(parent(1)) == 200
    collector.eventually(lambda got: len(got.spans) == 1)
    collector.hanging = True
    began = time.monotonic()
    for number in range(50):
        assert server.ask(parent(number + 10)) == 200
    assert time.monotonic() - began < 10
    collector.hanging = False
    collector.eventually(lambda got: len(got.spans) == 51)


def test_what_waits_is_sent_when_the_server_stops(collector: Collector, tmp_path: Path) -> None:
    server = Server(tmp_path, {}, f"--otlp_endpoint={collector.endpoint}", "--otlp_interval=1h")
    try:
        assert server.ask(parent(1)) == 200
        assert not collector.spans
        os.kill(server.pid, signal.SIGTERM)
        collector.eventually(lambda got: len(got.spans) == 1)
    finally:
        server.stop()


def test_a_hung_collector_does_not_keep_the_server_from_ending(collector: Collector, tmp_path: Path) -> None:
    flags = [f"--otlp_endpoint={collector.endpoint}", "--otlp_interval=1h", "--drain_timeout=1m", "--otlp_timeout=1m"]
    server = Server(tmp_path, {}, *flags)
    collector.hanging = True
    assert server.ask(parent(1)) == 200
    began = time.monotonic()
    server.stop(grace=20)
    assert time.monotonic() - began < 19
    assert '"msg":"stopped"' in server.tail()
