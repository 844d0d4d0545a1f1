"""The load generator against a server that misbehaves on order: every way to end is counted as what it was."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from loadtests.load import Client, Load, Outcome, Request, Response, report
from loadtests.load.__main__ import main
from loadtests.load.model import render
from loadtests.load.samples import Kind, Samples, percentile
from loadtests.load.timer import Timer

pytestmark = pytest.mark.undisturbed

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Backend: a\r\n\r\nhello"


class ScriptedServer:
    """Does to each request what its path says; ``seen`` has every path, ``connections`` how many were made."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.connections = 0
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self.answer(await reader.readuntil(b"\r\n\r\n"), reader, writer):
                await writer.drain()
        writer.close()

    async def answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        path = head.split(b" ")[1].decode()
        again = path in self.seen
        self.seen.append(path)
        if b"content-length: " in head:
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        if path == "/slow":
            await asyncio.sleep(0.03)
        elif path == "/never":
            await asyncio.sleep(5)
        elif path == "/reset":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        elif path == "/truncated":
            writer.write(HELLO[:-2])
            return False
        elif path == "/garbage":
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            return False
        elif path == "/until-close":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
            return False
        elif path == "/close":
            writer.write(HELLO.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"))
            return False
        elif path == "/stale" and again:
            return False
        elif path == "/continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        elif path == "/503":
            writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nDegraded: static\r\n\r\n")
            return True
        writer.write(HELLO)
        return True


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[ScriptedServer]:
    scripted_server = ScriptedServer()
    server = await asyncio.start_server(scripted_server.serve, "127.0.0.1", 0)
    scripted_server.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted_server
    finally:
        server.close()


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.002)


def offer(path: str, count: int = 3, settings: dict[str, Any] | None = None) -> tuple[Load, ScriptedServer]:
    """Offer ``count`` requests or a few more, by default on one connection, one after the other."""
    settings = {"connections": 1, **(settings or {})}

    async def run() -> tuple[Load, ScriptedServer]:
        async with scripted() as server:
            client = Client("c", requests=[Request(path=path)], **settings)
            async with Load("127.0.0.1", server.port, [client], labels=["X-Backend", "degraded"], patience=0.2) as load:
                await until(lambda: load.summary().offered >= count)
        return load, server

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/ok", Outcome.OK),
        ("/503", Outcome.OK),
        ("/close", Outcome.OK),
        ("/continue", Outcome.OK),
        ("/until-close", Outcome.OK),
        ("/reset", Outcome.RESET),
        ("/truncated", Outcome.TRUNCATED),
        ("/garbage", Outcome.MALFORMED),
    ],
)
def test_counts_an_end_as_what_it_was(path: str, outcome: Outcome) -> None:
    load, server = offer(path)
    summary = load.summary()
    assert summary.outcomes == {outcome: summary.offered}
    assert summary.offered == len(server.seen)  # what the server saw is what was counted
    assert summary.failed == (0 if outcome is Outcome.OK else summary.offered)


def test_a_refused_connection_is_counted_and_not_hammered() -> None:
    async def run() -> Load:
        async with Load("127.0.0.1", closed_port(), [Client(connections=1)]) as load:
            await asyncio.sleep(0.06)
        return load

    summary = asyncio.run(run()).summary()
    assert set(summary.outcomes) == {Outcome.CONNECT_REFUSED}
    assert 1 <= summary.offered <= 1 + summary.seconds / 0.01
    assert math.isnan(summary.p50)


def test_a_reused_connection_that_dies_before_a_byte_is_stale_and_not_retried() -> None:
    load, server = offer("/stale", count=3)
    outcomes = [sample.outcome for sample in load.samples()][:3]
    assert outcomes[:2] == [Outcome.OK, Outcome.STALE_CONNECTION]
    assert len(server.seen) == load.summary().offered
    assert outcomes[2] is Outcome.RESET  # the next one is on a fresh connection, which dies as well


def test_connection_close_opens_another_connection() -> None:
    _, server = offer("/close", count=3)
    assert server.connections == len(server.seen)


def test_keep_alive_uses_one_connection() -> None:
    _, server = offer("/ok", count=20)
    assert server.connections == 1


def test_timeout_counts_from_when_it_was_due() -> None:
    load, _ = offer("/never", 1, {"timeout": 0.05})
    first = load.samples()[0]
    assert first.outcome is Outcome.TIMEOUT
    assert 0.045 <= first.latency < 0.5


def test_what_is_under_way_at_the_end_is_abandoned_not_forgotten() -> None:
    async def run() -> Load:
        async with scripted() as server:
            client = Client(rate=1000, arrivals="constant", requests=[Request(path="/never")], max_in_flight=4)
            async with Load("127.0.0.1", server.port, [client], patience=0.02) as load:
                await until(lambda: load.summary().outcomes.get(Outcome.UNSENT, 0) >= 3)
        assert load.in_flight == 0
        return load

    outcomes = asyncio.run(run()).summary().outcomes
    assert outcomes[Outcome.ABANDONED] == 4
    assert set(outcomes) == {Outcome.ABANDONED, Outcome.UNSENT}


def test_the_check_decides_what_is_wrong() -> None:
    def odd(request: Request, response: Response) -> bool:
        assert (response.status, response.body, response.headers["x-backend"]) == (200, b"hello", "a")
        assert request.path == "/ok"
        calls.append(1)
        return len(calls) % 2 == 1

    calls: list[int] = []
    load, _ = offer("/ok", 4, {"check": odd})
    assert [sample.outcome for sample in load.samples()][:4] == [Outcome.OK, Outcome.WRONG] * 2


def test_a_check_that_raises_says_no() -> None:
    def broken(_: Request, response: Response) -> bool:
        return bool(response.headers["no-such-header"])

    load, _ = offer("/ok", settings={"check": broken})
    assert set(load.summary().outcomes) == {Outcome.WRONG}


def test_labels_count_header_values_and_statuses_are_apart() -> None:
    load, _ = offer("/503")
    summary = load.summary()
    assert summary.statuses == {503: summary.offered}
    assert summary.labels == {"x-backend": {}, "degraded": {"static": summary.offered}}


def test_coordinated_omission_cannot_hide() -> None:
    """The generator's own stall of 100 ms shows in every request that was due during it."""

    async def run() -> Load:
        async with scripted() as server:
            client = Client(rate=200, arrivals="constant", requests=[Request(path="/ok")])
            async with Load("127.0.0.1", server.port, [client]) as load:
                await until(lambda: load.summary().offered >= 4)
                load.mark("stall")
                time.sleep(0.1)
                load.mark("after")
                await until(lambda: load.summary(phase="after").offered >= 4)
        return load

    load = asyncio.run(run())
    stall = load.summary(phase="stall")
    assert stall.offered == pytest.approx(200 * stall.seconds, abs=1.5)
    assert stall.max_latency >= 0.09
    assert stall.p50 >= 0.04
    assert any("sent late" in warning for warning in load.warnings())


def test_open_loop_sends_on_while_answers_are_late() -> None:
    async def run() -> Load:
        async with scripted() as server:
            client = Client(rate=500, arrivals="constant", requests=[Request(path="/slow")])
            async with Load("127.0.0.1", server.port, [client]) as load:
                await until(lambda: load.in_flight >= 10)  # a closed loop would have one under way
        return load

    summary = asyncio.run(run()).summary()
    assert set(summary.outcomes) == {Outcome.OK}
    assert summary.p50 >= 0.03


def test_rates_change_at_once_and_clients_are_apart() -> None:
    async def run() -> Load:
        async with scripted() as server:
            steady = Client("steady", rate=400, arrivals="constant", requests=[Request(path="/ok")])
            flood = Client("flood", rate=0, arrivals="constant", requests=[Request(path="/503")])
            async with Load("127.0.0.1", server.port, [steady, flood]) as load:
                load.mark("calm")
                await until(lambda: load.summary("steady").offered >= 10)
                load.mark("flood")
                load.set_rate("flood", 1000)
                await until(lambda: load.summary("flood").offered >= 20)
                load.set_rate("flood", 0)
                load.mark("calm again")
                await until(lambda: load.summary("steady", phase="calm again").offered >= 10)
        return load

    load = asyncio.run(run())
    assert list(load.phases) == ["calm", "flood", "calm again"]
    assert load.summary("flood", phase="calm").offered == 0
    assert load.summary("flood", phase="flood").offered >= 20
    assert load.summary("flood", phase="calm again").offered <= 1
    assert load.summary("steady").statuses.keys() == {200}
    whole = load.summary().offered
    assert whole == load.summary("steady").offered + load.summary("flood").offered
    assert whole == sum(summary.offered for _, summary in load.timeline(step=0.05))
    described = report.as_dict(load)
    assert json.loads(json.dumps(described))["parts"][0]["outcomes"].keys() == {"ok"}
    assert "steady" in report.text(load)


def test_a_load_ends_by_itself() -> None:
    async def run() -> Load:
        async with scripted() as server:
            client = Client(rate=500, requests=[Request(path="/ok")])
            async with Load("127.0.0.1", server.port, [client], max_seconds=0.05) as load:
                await until(lambda: not load.sending)
                await asyncio.sleep(0.01)
                assert load.seconds < load.now
        return load

    load = asyncio.run(run())
    assert load.summary().offered > 0
    assert max(sample.due for sample in load.samples()) <= load.seconds


def test_poisson_arrivals_are_the_seed_s() -> None:
    def dues() -> list[float]:
        load, _ = offer("/ok", 5, {"rate": 400.0, "connections": None, "seed": 7})
        return [sample.due for sample in load.samples()][:5]

    one, two = dues(), dues()
    gaps = [[b - a for a, b in itertools.pairwise(times)] for times in (one, two)]
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-6)
    assert len({round(gap, 6) for gap in gaps[0]}) > 1


def test_loads_go_to_this_machine_only() -> None:
    for host in ("192.0.2.1", "gateway.example"):
        with pytest.raises(ValueError, match="not this machine"):
            Load(host, 80, [Client(rate=1)])
    Load("192.0.2.1", 80, [Client(rate=1)], allow_remote=True)


@pytest.mark.parametrize(
    "settings",
    [{}, {"rate": 1, "connections": 1}, {"rate": -1}, {"rate": 1, "timeout": 0}, {"rate": 1, "requests": ()}],
)
def test_a_client_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="client 'x'"):
        Client("x", **settings)


def test_a_request_on_the_wire() -> None:
    request = Request("POST", "/p", b"{}", {"X-Key": "mine"})
    client = Client(rate=1, headers={"x-key": "yours", "Content-Type": "application/json"}, keep_alive=False)
    assert render(request, client, "h:1") == (
        b"POST /p HTTP/1.1\r\nhost: h:1\r\nx-key: mine\r\ncontent-type: application/json\r\ncontent-length: 2\r\n"
        b"connection: close\r\n\r\n{}"
    )


def test_percentiles_are_exact() -> None:
    hundred = [float(i) for i in range(1, 101)]
    assert [percentile(hundred, q) for q in (50.0, 90.0, 99.0, 99.9)] == [50.0, 90.0, 99.0, 100.0]
    assert math.isnan(percentile([], 50.0))


def test_windows_are_half_open_and_lost_requests_have_no_latency() -> None:
    samples = Samples(("degraded",))
    ok = Kind("a", Outcome.OK, 200, ("stale",))
    for due in (0.0, 1.0, 1.5, 2.0):
        samples.add(ok, due, 0.1, 0.0)
    samples.add(Kind("a", Outcome.RESET, 0, (None,)), 1.2, 9.0, 0.0)
    summary = samples.summary("a", 1.0, 2.0)
    assert (summary.offered, summary.answered, summary.failed) == (3, 2, 1)
    assert summary.max_latency == 0.1
    assert summary.labels == {"degraded": {"stale": 2}}
    assert (summary.offered_rate, summary.answered_rate) == (3.0, 2.0)


def test_the_timer_is_never_early_and_can_be_set_again() -> None:
    async def run() -> tuple[float, float, list[float]]:
        rang: list[float] = []
        loop = asyncio.get_running_loop()
        timer = Timer(loop, lambda: rang.append(time.monotonic()))
        timer.set(time.monotonic() + 60)
        due = time.monotonic() + 0.0123
        timer.set(due)
        await until(lambda: bool(rang))
        past = time.monotonic()
        timer.set(past - 1)
        await until(lambda: len(rang) > 1)
        timer.set(time.monotonic() + 0.001)
        timer.cancel()
        await asyncio.sleep(0.005)
        timer.close()
        return due, past, rang

    due, past, rang = asyncio.run(run())
    assert len(rang) == 2
    assert due <= rang[0] < due + 0.2
    assert rang[1] - past < 0.2


def in_thread(argv: Callable[[int], list[str]]) -> Coroutine[Any, Any, int]:
    async def run() -> int:
        async with scripted() as server:
            return await asyncio.to_thread(main, argv(server.port))

    return run()


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--client", "a:200:x-api-key=k", "--client", "b:200", "--duration", "0.1", "--format", "json"]
    status = asyncio.run(in_thread(lambda port: [f"http://127.0.0.1:{port}/ok", *flags, "--expect", "hello"]))
    printed = json.loads(capsys.readouterr().out)
    assert status == 0
    assert [part["client"] for part in printed["parts"]] == ["a", "b"]
    assert all(part["outcomes"].keys() <= {"ok"} for part in printed["parts"])


def test_command_line_says_when_requests_were_lost(capsys: pytest.CaptureFixture[str]) -> None:
    status = main([f"http://127.0.0.1:{closed_port()}/", "--rate", "300", "--duration", "0.05"])
    assert status == 1
    assert "connect-refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv", [["ftp://127.0.0.1/"], ["http://127.0.0.1:1/", "--duration", "0"], ["http://127.0.0.1:1/", "--header", "x"]]
)
def test_command_line_mistakes_exit_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith("load: ")


def test_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from loadtests.load.plot import plot

    load, _ = offer("/ok", count=10)
    plot(load, tmp_path / "run.png", "title")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
