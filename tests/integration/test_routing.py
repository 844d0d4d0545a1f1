"""Splits, shadows, rewrites, redirects and edits through a real gateway in front of real sockets."""

from __future__ import annotations

import http.client
import re
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from demo.story_config import free_ports
from tests.integration.gateways import Backend, Gateway
from tests.integration.test_processes import until

CONFIG = """\
version: 1
listen: 127.0.0.1:{port}
workers: {workers}
admin: {{listen: "127.0.0.1:{admin}"}}
limits: {{per-client: {{key: client, rate: 100000/s, burst: 100000}}}}
pools:
  stable: {{connections: {{connect_timeout: 10s}}, backends: [{{url: "http://127.0.0.1:{stable}"}}]}}
  canary: {{connections: {{connect_timeout: 10s}}, backends: [{{url: "http://127.0.0.1:{canary}"}}]}}
  lab: {{connections: {{connect_timeout: 10s}}, backends: [{{url: "http://127.0.0.1:{lab}"}}], breaker: {{failures: 3, open_for: 10s}}}}
routes:
"""

PLAIN = "  - {name: all, match: {path: '/*'}, pool: stable, timeout: 5s}\n"


def split(stable: int, canary: int, more: str = "") -> str:
    sides = f"[{{pool: stable, weight: {stable}}}, {{pool: canary, weight: {canary}}}]"
    return f"  - {{name: all, match: {{path: '/*'}}, split: {sides}, timeout: 5s{more}}}\n"


class Place:
    """A gateway before three backends, whose routes can be exchanged."""

    def __init__(self, folder: Path, routes: str, workers: int, lab: int | None) -> None:
        self.stable, self.canary, self.lab = Backend(), Backend(), Backend()
        for backend in (self.stable, self.canary, self.lab):
            backend.server.RequestHandlerClass.wbufsize = -1  # one segment per answer, or Nagle makes each take 40 ms
        self.gateway = Gateway(folder, self.stable)
        ports = {"stable": self.stable.port, "canary": self.canary.port, "lab": lab or self.lab.port}
        self.head = CONFIG.format(port=self.gateway.port, admin=self.gateway.admin_port, workers=workers, **ports)
        self.gateway.path.write_text(self.head + routes)

    def reload(self, routes: str) -> None:
        self.gateway.path.write_text(self.head + routes)
        status, body = self.gateway.admin("/reload", b"")
        assert status == 200, body

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.gateway.port, timeout=30)

    def metric(self, name: str, **labels: str) -> float:
        """The sum over all series of that name that have these labels."""
        text = self.gateway.admin("/metrics")[1].decode()
        found = re.findall(rf"^{name}\{{(.*)\}} (\S+)$", text, re.MULTILINE)
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(float(value) for given, value in found if all(each in given for each in wanted))


@contextmanager
def place(folder: Path, routes: str, workers: int = 1, lab: int | None = None) -> Iterator[Place]:
    one = Place(folder, routes, workers, lab)
    try:
        one.gateway.start()
        yield one
    finally:
        for backend in (one.stable, one.canary, one.lab):
            backend.hold.set()
        one.gateway.child.stop(10)
        for backend in (one.stable, one.canary, one.lab):
            backend.close()


def ask(connection: http.client.HTTPConnection, path: str = "/x", /, **fields: str) -> tuple[int, dict[str, str]]:
    headers = {name.replace("_", "-"): value for name, value in fields.items()}
    connection.request("POST", path, b"[1]", headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status, {name.lower(): value for name, value in answer.headers.items()}


def test_a_split_by_lot_keeps_its_shares(tmp_path: Path) -> None:
    with place(tmp_path, split(90, 10)) as one:
        connection = one.connection()
        assert Counter(ask(connection)[0] for _ in range(2000)) == {200: 2000}
        share = len(one.canary.seen) / 2000
        print(f"90:10 by lot, 2000 requests: {share:.1%} to the canary")
        assert 0.073 < share < 0.127  # four standard deviations
        assert len(one.stable.seen) + len(one.canary.seen) == 2000
        counted = one.metric("gateway_split_requests_total", http_route="all", pool="canary")
        assert counted == len(one.canary.seen)


def test_a_sticky_split_holds_across_workers_and_moves_only_who_must(tmp_path: Path) -> None:
    sticky = ", sticky: {header: x-user}"
    users = [f"user-{n}" for n in range(300)]

    def sides(one: Place) -> dict[str, str]:
        found: dict[str, set[str]] = {}
        one.stable.seen.clear()
        one.canary.seen.clear()
        for _ in range(2):
            connections = [one.connection() for _ in range(6)]  # the kernel spreads them over the workers
            for number, user in enumerate(users):
                assert ask(connections[number % 6], x_user=user)[0] == 200
            for connection in connections:
                connection.close()
        for backend, name in ((one.stable, "stable"), (one.canary, "canary")):
            for _, fields, _ in backend.seen:
                found.setdefault(fields["x-user"], set()).add(name)
        assert all(len(each) == 1 for each in found.values()), "a user was on both sides"
        return {user: each.pop() for user, each in found.items()}

    with place(tmp_path, split(80, 20, sticky), workers=2) as one:
        before = sides(one)
        one.reload(split(60, 40, sticky))
        after = sides(one)
        canaries = [sum(side == "canary" for side in each.values()) / len(users) for each in (before, after)]
        moves = Counter((before[user], after[user]) for user in users if before[user] != after[user])
        print(f"sticky 80:20 -> 60:40, 300 users: canary {canaries[0]:.0%} -> {canaries[1]:.0%}; moves {dict(moves)}")
        assert 0.11 < canaries[0] < 0.29
        assert 0.29 < canaries[1] < 0.51
        assert set(moves) == {("stable", "canary")}


def latencies(one: Place, count: int = 300) -> list[float]:
    connection = one.connection()
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        assert ask(connection)[0] == 200
        taken.append(time.perf_counter() - began)
    connection.close()
    return taken


@pytest.mark.parametrize("fault", ["hung", "dead"])
def test_a_shadow_that_is_hung_or_dead_costs_the_original_nothing(tmp_path: Path, fault: str) -> None:
    shadowed = PLAIN.replace("timeout: 5s", "timeout: 5s, shadow: {pool: lab, max_inflight: 4, timeout: 20s}")
    with place(tmp_path, PLAIN, lab=free_ports(1)[0] if fault == "dead" else None) as one:
        one.lab.hold.clear()
        latencies(one, 50)
        rounds: list[tuple[float, float]] = []
        for _ in range(3):
            one.reload(PLAIN)
            without = statistics.median(latencies(one))
            one.reload(shadowed)
            taken = latencies(one)
            rounds.append((without, statistics.median(taken)))
            assert max(taken) < 1.0
        without, with_shadow = (min(each) * 1e3 for each in zip(*rounds, strict=True))
        print(f"{fault} shadow: p50 {without:.2f} ms without, {with_shadow:.2f} ms with")
        assert with_shadow < without + 1.0
        assert until(lambda: one.metric("gateway_shadow_requests_total", http_route="all", pool="lab") > 800)
        if fault == "hung":
            assert len(one.lab.seen) == 4, "bounded, across reloads too"
            assert one.metric("gateway_shadow_requests_total", result="dropped") == 900 - 4
        else:
            assert one.metric("gateway_shadow_requests_total", result="failed") > 0
            attempts = one.metric("gateway_backend_attempts_total", pool="lab")
            assert attempts < 90, "of 900: the shadow pool's breaker is open"
        # A drain does not wait for shadows.
        began = time.monotonic()
        one.gateway.child.stop(10)
        assert time.monotonic() - began < 5
        assert one.gateway.child.status == 0


def test_a_live_shadow_gets_the_share_and_nobody_sees_it(tmp_path: Path) -> None:
    shadowed = PLAIN.replace("timeout: 5s", "timeout: 5s, shadow: {pool: lab, share: 0.25, max_inflight: 100}")
    with place(tmp_path, shadowed) as one:
        connection = one.connection()
        fields = [ask(connection, x_shadow="mine")[1] for _ in range(800)]
        assert not any("shadow" in name for each in fields for name in each)
        counted = "gateway_shadow_requests_total"
        assert until(lambda: one.metric(counted, result="2xx") == len(one.lab.seen) > 0)
        share = len(one.lab.seen) / 800
        print(f"shadow of 0.25, 800 requests: {share:.1%} copied")
        assert 0.19 < share < 0.31
        assert all(sent["x-shadow"] == "1" and sent["x-request-id"].endswith("-shadow") for _, sent, _ in one.lab.seen)
        assert not any("x-shadow" in sent for _, sent, _ in one.stable.seen)


WAYS = """\
  - name: renamed
    match: {path: "/models/{model}:predict", host: ["*.example.com"], headers: {x-mode: {prefix: v}}, query: {q: "1"}}
    pool: stable
    rewrite: {path: "/v1/models/{model}/predict", host: backend}
    request_headers: {set: {x-model: "{model}", x-route: "{route}"}, add: {accept: text/plain}, remove: [cookie]}
    response_headers: {set: {x-pool: "{pool}"}, remove: [server]}
  - {name: moved, match: {path: "/old/{rest}"}, redirect: {status: 308, path: "/new/{rest}"}}
  - {name: secure, match: {path: "/secure*"}, redirect: {scheme: https, host: api.example.com, query: false}}
  - {name: hello, match: {path: /hello}, respond: {body: "hello\\n", status: 203}}
  - {name: prefix, match: {path: "/debug/*"}, pool: canary, rewrite: {prefix: {/debug/: /}}}
"""


def test_rewrites_redirects_and_edits(tmp_path: Path) -> None:
    with place(tmp_path, WAYS) as one:
        connection = one.connection()
        matching = {"host": "a.example.com:8080", "x_mode": "v2", "cookie": "a=b", "accept": "*/*"}
        status, fields = ask(connection, "/models/digits:predict?q=1", connection="keep-alive, x-model", **matching)
        assert (status, fields["x-pool"]) == (200, "stable")
        assert "server" not in fields
        path, sent, _ = one.stable.seen[-1]
        assert path == "/v1/models/digits/predict?q=1"
        assert sent["host"] == f"127.0.0.1:{one.stable.port}"
        assert (sent["x-model"], sent["x-route"], sent["accept"]) == ("digits", "renamed", "*/*, text/plain")
        assert "cookie" not in sent
        for change in ({"host": "example.com"}, {"x_mode": "w"}):
            assert ask(connection, "/models/digits:predict?q=1", **(matching | change))[0] == 404
        assert ask(connection, "/models/digits:predict?q=2", **matching)[0] == 404
        status, fields = ask(connection, "/old/thing?a=b")
        assert (status, fields["location"]) == (308, "/new/thing?a=b")
        status, fields = ask(connection, "/secure/x?a=b")
        assert (status, fields["location"]) == (307, "https://api.example.com/secure/x")
        assert ask(connection, "/hello")[0] == 203
        assert ask(connection, "/debug/a/b?c=d")[0] == 200
        assert one.canary.seen[-1][0] == "/a/b?c=d"


def test_from_one_split_to_another_under_load(tmp_path: Path) -> None:
    with place(tmp_path, split(1, 0), workers=2) as one:
        statuses: Counter[int | str] = Counter()
        stop = threading.Event()

        def load() -> None:
            connection = one.connection()
            while not stop.is_set():
                try:
                    statuses[ask(connection)[0]] += 1
                except OSError as error:
                    statuses[repr(error)] += 1
                    connection = one.connection()

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.5)
        assert not one.canary.seen
        for weights in ((50, 50), (5, 95), (0, 1)):
            one.reload(split(*weights))
            time.sleep(0.3)
        before = len(one.stable.seen)
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()
        print(f"three reloads under load: {dict(statuses)}; {before} stable, {len(one.canary.seen)} canary")
        assert set(statuses) == {200}
        assert len(one.stable.seen) == before, "nobody is sent to the old side any more"
        assert len(one.canary.seen) > 20
