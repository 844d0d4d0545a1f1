"""A real gateway sharing requests among real servers: sessions, priorities, Retry-After and reports of load."""

from __future__ import annotations

import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from demo.layout import GATEWAY
from demo.process import Child
from loadtests.peers.processes import free_ports
from tests.integration.gateways import fetch

CONFIG = """\
version: 1
listen: 127.0.0.1:{port}
workers: 2
admin: {{listen: "127.0.0.1:{admin}"}}
pools:
  p:
    {pool}
    connections: {{connect_timeout: 10s}}
    backends: [{backends}]
    breaker: {{failures: 2, open_for: 300ms, jitter: 0}}
routes:
  - {{name: all, match: {{path: "/*"}}, pool: p, timeout: 5s, retry: {{attempts: 3, on: [connect, reset]}}}}
"""


class Named:
    """Answers its name; `refuse` makes it answer 503 with Retry-After, `report` the value of its load report."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.refuse = 0
        self.report = ""
        self.seen: list[dict[str, str]] = []
        self.closed = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if outer.closed:  # a connection that was kept
                    self.close_connection = True
                    return
                outer.seen.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(503 if outer.refuse else 200)
                if outer.refuse:
                    self.send_header("retry-after", str(outer.refuse))
                if outer.report and "endpoint-load-metrics-format" in outer.seen[-1]:
                    self.send_header("endpoint-load-metrics", outer.report)
                self.send_header("content-length", str(len(outer.name)))
                self.end_headers()
                self.wfile.write(outer.name.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.closed = True
        self.server.shutdown()
        self.server.server_close()


class Front:
    """A gateway of two workers before backends a, b, c, ...; `each` is what is said of each in the configuration."""

    def __init__(self, folder, pool, each):
        self.backends = [Named("abcdefgh"[number]) for number in range(len(each))]
        self.port, self.admin_port = free_ports(2)
        self.path = folder / "gateway.yaml"
        self.write(pool, each)
        self.child = Child("gateway", [str(GATEWAY), "run", "-c", self.path], folder / "log")

    def write(self, pool, each):
        backends = ", ".join(
            f'{{url: "http://127.0.0.1:{backend.port}", name: {backend.name}{more}}}'
            for backend, more in zip(self.backends, each, strict=True)
        )
        self.path.write_text(CONFIG.format(port=self.port, admin=self.admin_port, pool=pool, backends=backends))

    def reload(self):
        status, text, _ = fetch(f"http://127.0.0.1:{self.admin_port}/reload", b"", None)
        assert status == 200, text

    def ask(self, headers=None):
        """Every request comes on a connection of its own, so to any of the workers."""
        return fetch(f"http://127.0.0.1:{self.port}/", None, {"connection": "close", **(headers or {})})

    def names(self, count=40, headers=None):
        return Counter(self.ask(headers)[1].decode() for _ in range(count))


@pytest.fixture
def front(tmp_path):
    fronts = []

    def make(pool, *each):
        one = Front(tmp_path, pool, each)
        fronts.append(one)
        one.child.start()
        assert one.child.wait_until(f"http://127.0.0.1:{one.admin_port}/readyz", 60)
        return one

    yield make
    for one in fronts:
        one.child.stop(10)
        for backend in one.backends:
            backend.close()


def test_a_session_stays_over_workers_and_a_reload_and_moves_when_its_backend_dies(front):
    one = front("sticky: {}", "", "", "")
    _, name, headers = one.ask()
    cookie, _, attributes = headers["set-cookie"].partition(";")
    assert attributes == " Path=/; HttpOnly; SameSite=Lax"
    assert "127.0" not in cookie
    session = {"cookie": f"other=1; {cookie}"}
    assert one.names(30, session) == {name.decode(): 30}
    assert "set-cookie" not in one.ask(session)[2]
    one.write("sticky: {}\n    balance: peak-ewma", ["", "", ""])
    one.reload()
    assert one.names(30, session) == {name.decode(): 30}
    dead = next(backend for backend in one.backends if backend.name == name.decode())
    dead.close()
    status, other, headers = one.ask(session)
    assert status == 200
    assert other != name
    moved = {"cookie": headers["set-cookie"].partition(";")[0]}
    assert one.names(30, moved) == {other.decode(): 30}


def test_the_second_priority_takes_over_when_the_first_is_gone_and_only_then(front):
    one = front("balance: random", "", "", ", priority: 1")
    assert set(one.names()) == {"a", "b"}
    one.backends[0].close()
    one.backends[1].close()
    names = one.names()
    assert names["c"] == 40, "a refused connection is tried elsewhere"
    assert one.backends[2].seen


def test_the_own_zone_comes_first(front):
    one = front("balance: random", ", zone: east", ", zone: west", ", zone: west")
    assert set(one.names()) == {"a", "b", "c"}
    one.path.write_text("zone: west\n" + one.path.read_text())
    one.reload()
    assert set(one.names()) == {"b", "c"}


def test_retry_after_is_honoured(front):
    one = front("balance: weighted-round-robin", "", "", "", "")
    one.backends[0].refuse = 2
    assert one.names()["a"] <= 2, "once for each worker"
    one.backends[0].refuse = 0
    began = time.monotonic()
    while one.names(8)["a"] == 0:
        assert time.monotonic() - began < 10
        time.sleep(0.1)


def test_reports_of_load_are_asked_for_and_kept(front):
    one = front("balance: prequal", "", "")
    one.backends[0].report = 'JSON {"named_metrics": {"queued": 50, "running": 8, "capacity": 8}}'
    one.backends[1].report = 'JSON {"named_metrics": {"queued": 0, "running": 0, "capacity": 8}}'
    answers = [one.ask() for _ in range(40)]
    assert all("endpoint-load-metrics" not in headers for _, _, headers in answers)
    names = Counter(name.decode() for _, name, _ in answers)
    assert names["b"] > names["a"], "the other one says that it is full"
    for backend in one.backends:
        assert all(seen["endpoint-load-metrics-format"] == "JSON" for seen in backend.seen)
    status, _, headers = one.ask({"endpoint-load-metrics-format": "JSON"})
    assert status == 200
    assert "endpoint-load-metrics" in headers, "for who asks it is not ours to keep"


@pytest.mark.parametrize("policy", ["maglev", "ring-hash"])
def test_a_key_has_the_same_home_in_every_worker(front, policy):
    one = front(f"balance: {{type: {policy}, key: {{header: x-user}}}}", "", "", "")
    homes = {user: one.names(4, {"x-user": user}) for user in map(str, range(40))}
    assert all(len(names) == 1 for names in homes.values())
    assert len({next(iter(names)) for names in homes.values()}) > 1
    one.reload()
    assert {user: one.names(4, {"x-user": user}) for user in homes} == homes
