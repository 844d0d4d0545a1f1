"""The gateway's end of the link and the real go_infer, with its real models."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from demo.layout import GO_INFER, MODELS
from gateway.balance.weighted_round_robin import WeightedRoundRobin
from gateway.breakers.gate import BreakerSettings
from gateway.errors import BadUpstreamResponse, ConnectFailed, ConnectionBroken, StaleConnection, UpstreamTimeout
from gateway.http.dial import Address
from gateway.http.upstream import ClientLimits
from gateway.link import encoder
from gateway.link.pool import LinkPool
from gateway.link.pulse import LinkLimits
from gateway.processes import die_with_parent
from gateway.retries.budget import RetryBudget
from gateway.retries.rules import RetryRules
from gateway.telemetry.cells import Cells
from gateway.upstreams.backend import Backend
from gateway.upstreams.caller import Caller
from gateway.upstreams.pool import Pool
from loadtests.peers.processes import free_ports
from tests.integration.gateways import running
from tests.link.peer import DROPPED, request
from tests.upstreams.scene import CELLS

PREDICT = b"/v1/models/digits:predict"


class ModelServer:
    """One go_infer on a free port."""

    def __init__(self, *flags):
        [self.port] = free_ports(1)
        self.process = subprocess.Popen(
            [str(GO_INFER), "--model_name=digits", f"--model_base_path={MODELS / 'digits'}", *flags,
             f"--rest_api_port={self.port}"],
            stderr=subprocess.DEVNULL, preexec_fn=die_with_parent,  # noqa: PLW1509 - one prctl(2), no lock
        )  # fmt: skip

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return answer.read().decode()

    def metric(self, name):
        """The sum of a metric's series."""
        lines = [line.split() for line in self.get("/metrics").splitlines()]
        return sum(float(line[-1]) for line in lines if line[0].partition("{")[0] == name)

    def wait_ready(self):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                self.get("/readyz")
                return
            time.sleep(0.02)
        raise AssertionError("go_infer is not ready")

    def signal(self, number):
        os.kill(self.process.pid, number)

    def end(self):
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.kill()
        return self.process.wait()


@contextlib.contextmanager
def serving(*flags):
    server = ModelServer(*flags)
    try:
        server.wait_ready()
        yield server
    finally:
        server.end()


@pytest.fixture(scope="module")
def server():
    with serving() as one:
        yield one


@pytest.fixture
def fresh():
    with serving("--drain_grace=150ms") as one:
        yield one


@pytest.fixture(scope="module")
def heldout():
    digits = json.loads((MODELS / "digits" / "heldout.json").read_text())
    return list(zip(digits["instances"], digits["labels"], strict=True))


class Gateway:
    """A pool of one worker at one server."""

    def __init__(self, server, *, required=True, times=None):
        self.pool = LinkPool(
            Address("127.0.0.1", server.port), ClientLimits(), required=required, times=times or LinkLimits(30.0, 30.0)
        )

    async def ask(self, path=PREDICT, body=b"", method=b"POST", seconds=30.0):
        asked = request(method, path, body, content_type=b"application/json")
        deadline = asyncio.get_running_loop().time() + seconds
        return await self.pool.ask(asked, path, b"a", int(seconds * 1e9), DROPPED, deadline=deadline)

    async def whole(self, body):
        """The body of an answer that is so large that it streams."""
        stream = (await self.ask(body=body)).stream
        got = b""
        while piece := await stream.read():
            got += piece
        return got

    async def predict(self, digit, **options):
        response = await self.ask(body=json.dumps({"instances": [digit]}).encode(), **options)
        return json.loads(response.body)["predictions"][0]["label"] if response.status == 200 else response.status

    async def linked(self):
        """Waits until the link is open."""
        async with asyncio.timeout(30):
            while self.pool.link is None:
                with contextlib.suppress(ConnectFailed):
                    await self.ask(b"/livez", method=b"GET")
                await asyncio.sleep(0.01)
        return self


async def test_right_answers_a_thousand_at_once(server, heldout):
    one = Gateway(server)
    before = server.metric("go_infer_link_violations_total")
    digits = (heldout * 3)[:1000]
    got = await asyncio.gather(*(one.predict(digit) for digit, _ in digits))
    right = sum(label == wanted for label, (_, wanted) in zip(got, digits, strict=True))
    assert right >= 970, f"{right} of 1000"
    assert one.pool.protocol == "sluice-link/1"
    assert server.metric("go_infer_link_violations_total") == before
    await asyncio.sleep(0.05)
    assert one.pool.link.load.capacity == 32
    assert one.pool.link.load.service > 0
    one.pool.close()


async def test_the_answers_are_the_same_as_over_http(server, heldout):
    link, http = Gateway(server), Gateway(server)
    one = json.dumps({"instances": [heldout[0][0]] * 200}).encode()
    for method, path, body in [
        (b"POST", PREDICT, one), (b"POST", PREDICT, b"{"), (b"GET", b"/v1/models/digits", b""), (b"GET", b"/readyz", b""),
        (b"HEAD", b"/readyz", b""), (b"GET", b"/v1/models/digits/metadata", b""), (b"GET", b"/nowhere?a=b", b""),
        (b"POST", b"/predict?version=1", one), (b"POST", b"/infer?version=x", one), (b"GET", b"/classify", b""),
        (b"POST", PREDICT, b" " * 3_000_000), (b"POST", PREDICT, b"[" * (16 << 20) + b"["),
    ]:  # fmt: skip
        asked = request(method, path, body, content_type=b"application/json")
        deadline = asyncio.get_running_loop().time() + 10
        plain = await super(LinkPool, http.pool).ask(asked, path, b"a", 10**10, DROPPED, deadline=deadline)
        linked = await link.ask(path, body, method)
        assert (linked.status, linked.body) == (plain.status, plain.body), path
        assert sorted(linked.headers) == sorted(each for each in plain.headers if each[0] != b"date"), path
    link.pool.close()
    http.pool.close()


async def test_large_bodies_both_ways(heldout):
    digits = heldout[:300] * 40  # 12,000 rows: over a megabyte each way, in many frames
    body = json.dumps({"instances": [digit for digit, _ in digits]}).encode()
    with serving("--max_queue=100000") as server:
        one = Gateway(server)
        for answer in await asyncio.gather(*(one.whole(body) for _ in range(3))):
            assert len(body) > 1 << 20 < len(answer)
            labels = [each["label"] for each in json.loads(answer)["predictions"]]
            assert sum(a == b for a, (_, b) in zip(labels, digits, strict=True)) > 11_600
        one.pool.close()


async def until_it_runs(server):
    """Waits until the first rows have been through the model, that is, a whole request has arrived."""
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(server.metric, "go_infer_batch_rows_sum"):
            await asyncio.sleep(0.01)


async def test_cancelled_requests_cost_no_run(heldout):
    count, each = 24, 6400
    with serving("--max_queue=1000000") as server:
        one = await Gateway(server).linked()
        body = json.dumps({"instances": [digit for digit, _ in heldout[:320]] * (each // 320)}).encode()
        tasks = [asyncio.create_task(one.ask(body=body)) for _ in range(count)]
        await until_it_runs(server)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = sum(isinstance(each, asyncio.CancelledError) for each in ended)
        assert cancelled >= count / 2  # on a busy machine some may have been answered before that
        label = await one.predict(heldout[0][0])
        assert label == heldout[0][1]
        for _ in range(3000):
            if not one.pool.streams:
                break
            await asyncio.sleep(0.01)
        assert not one.pool.streams  # the server has said its last word on each
        dropped, run, told = [
            await asyncio.to_thread(server.metric, name)
            for name in ("go_infer_dropped_total", "go_infer_batch_rows_sum", "go_infer_link_cancelled_total")
        ]
        # Whoever was not given up has had all its rows run, however late the word of it came: those are few.
        assert count - run // each <= told <= cancelled
        assert 0 < dropped <= told  # the others had not come whole
        assert run < count * each / 2, run
        one.pool.close()


async def test_a_deadline_is_the_servers_too(server, heldout):
    one = await Gateway(server).linked()
    rows = json.dumps({"instances": [digit for digit, _ in heldout[:320]]}).encode()
    busy = [asyncio.create_task(one.ask(body=rows)) for _ in range(3)]  # what the queue holds
    await asyncio.sleep(0.005)
    try:
        late = await one.predict(heldout[0][0], seconds=0.002)
    except UpstreamTimeout:
        late = 504
    assert late in (503, 504, heldout[0][1])  # 503: told by the queue that it would be late
    await asyncio.gather(*busy)
    one.pool.close()


@pytest.mark.parametrize("speaks", ["auto", "link", "http"])
async def test_drain_under_load_fails_no_request(fresh, server, heldout, speaks):
    backends = [
        Backend(f"p/{each.port}", "b", Address("127.0.0.1", each.port), 1, BreakerSettings(), ClientLimits(), speaks)
        for each in (fresh, server)
    ]
    pool = Pool("p", tuple(backends), WeightedRoundRobin, 1000, budget=RetryBudget(1.0, 10_000.0, 0))
    cells = Cells(Cells.create("test"))
    caller = Caller(cells)
    for number, backend in enumerate(backends):
        backend.series = 100 * number
    rules = RetryRules(CELLS, 2, frozenset(("connect", "reset")), replayable=True)
    ended = asyncio.Event()
    answered = right = 0

    async def client(number):
        nonlocal answered, right
        while not ended.is_set():
            digit, wanted = heldout[number % len(heldout)]
            number += 1
            asked = request(b"POST", PREDICT, json.dumps({"instances": [digit]}).encode())
            deadline = time.monotonic_ns() + 5_000_000_000
            answer = await caller.ask(pool, asked, PREDICT, deadline, rules, DROPPED)
            assert answer.response is not None, answer
            assert answer.response.status == 200, answer.response
            answered += 1
            right += json.loads(answer.response.body)["predictions"][0]["label"] == wanted

    clients = [asyncio.create_task(client(number * 11)) for number in range(32)]
    await asyncio.sleep(0.4)
    before = answered
    assert backends[0].connections.protocol == ("http/1.1" if speaks == "http" else "sluice-link/1")
    fresh.signal(signal.SIGTERM)
    await asyncio.to_thread(fresh.process.wait)
    ended.set()
    await asyncio.gather(*clients)
    assert before > 200
    assert right > 0.97 * answered
    assert fresh.process.returncode == 0
    for backend in backends:
        backend.connections.close()


async def test_kill_fails_fast_and_a_new_server_is_linked_to_again(fresh, heldout):
    one = await Gateway(fresh, required=False).linked()
    rows = json.dumps({"instances": [digit for digit, _ in heldout[:320]] * 40}).encode()
    running = [asyncio.create_task(one.ask(body=rows)) for _ in range(8)]
    await asyncio.sleep(0.02)
    began = time.monotonic()
    fresh.signal(signal.SIGKILL)
    got = await asyncio.gather(*running, return_exceptions=True)
    assert time.monotonic() - began < 10
    assert all(isinstance(each, (StaleConnection, ConnectionBroken)) for each in got), got
    with pytest.raises((ConnectFailed, StaleConnection)):  # HTTP/1.1 may have had a connection left
        await one.predict(heldout[0][0])
    one.pool.close()


async def test_a_stopped_server_is_noticed_by_its_silence(fresh, heldout):
    one = await Gateway(fresh, times=LinkLimits(0.1, 0.2)).linked()
    fresh.signal(signal.SIGSTOP)
    while Path(f"/proc/{fresh.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        await asyncio.sleep(0.001)  # a stop of many threads takes its time
    began = time.monotonic()
    with pytest.raises(ConnectionBroken, match="ping"):
        await one.predict(heldout[0][0])
    assert time.monotonic() - began < 10
    fresh.signal(signal.SIGCONT)
    assert await one.predict(heldout[0][0]) == heldout[0][1]
    one.pool.close()


async def test_without_the_link_http_is_spoken(heldout):
    with serving("--enable_link=false") as server:
        one = Gateway(server, required=False)
        for digit, wanted in heldout[:5]:
            assert await one.predict(digit) == wanted
            await asyncio.sleep(0.01)
        assert one.pool.protocol == "http/1.1"
        one.pool.close()
        required = Gateway(server)
        with pytest.raises(ConnectFailed, match="does not speak"):
            await required.predict(heldout[0][0])
        required.pool.close()


async def test_a_gateway_that_breaks_the_protocol_loses_its_link_alone(server, heldout):
    good, bad = await Gateway(server).linked(), await Gateway(server).linked()
    link = bad.pool.link
    link.say(encoder.response(1, 200))
    with pytest.raises((BadUpstreamResponse, StaleConnection, ConnectionBroken)):
        await bad.ask(body=b" " * 2_000_000)
    assert bad.pool.link is None
    assert await good.predict(heldout[0][0]) == heldout[0][1]
    assert await bad.predict(heldout[0][0]) == heldout[0][1]  # on a new link
    good.pool.close()
    bad.pool.close()


def test_a_reload_changes_what_a_gateway_speaks_and_drops_nothing(server, heldout, tmp_path):
    with running(tmp_path) as gateway:
        body = json.dumps({"instances": [heldout[0][0]]}).encode()
        ours = gateway.text.replace(f":{gateway.backend.port}", f":{server.port}")

        def speak(protocol, wanted):
            gateway.path.write_text(ours.replace("{p: {", f"{{p: {{protocol: {protocol}, "))
            assert gateway.admin("/reload", b"")[0] == 200
            before = server.metric("go_infer_link_streams_total")
            for _ in range(100):
                status, answer = gateway.ask(PREDICT.decode(), body)
                assert status == 200
                assert json.loads(answer)["predictions"][0]["label"] == heldout[0][1]
            for worker in gateway.status()["workers"]:
                assert {each["protocol"] for each in worker["backends"]} == {wanted}
            return server.metric("go_infer_link_streams_total") - before

        assert speak("http", "http/1.1") == 0
        assert speak("auto", "sluice-link/1") > 80
        assert speak("link", "sluice-link/1") == 100
        assert speak("http", "http/1.1") == 0
