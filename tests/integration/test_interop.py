"""Clients as people have them, at the gateway and at nginx in front of it (nginx/nginx.conf as it is shipped).

Each client runs once per way through all its cases (tests/interop/clients) and prints what it saw; here it is judged.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from demo.layout import GATEWAY, ROOT
from demo.process import Child
from loadtests.peers.processes import Process, free_ports
from tests.interop.origin import LARGE, PLAIN, SIZE, ZIPPED, Origin
from tests.interop.programs import CLIENTS, NotHere, client, needed, nginx

CONFIG = """\
version: 1
listen: 127.0.0.1:{port}
workers: 1
admin: {{listen: "127.0.0.1:{admin}"}}
pools: {{p: {{connections: {{connect_timeout: 10s}}, backends: [{{url: "http://127.0.0.1:{backend}"}}]}}}}
routes:
  - {{name: ws, match: {{path: "/{{run}}/ws"}}, pool: p, upgrade: [websocket]}}
  - {{name: all, match: {{path: "/{{run}}/o/*"}}, pool: p}}
"""
WAYS = ("direct", "nginx")
WEBSOCKETS = ("websocket", "websocket-ping", "websocket-pinged", "websocket-closed")
HTTP = (
    *("get", "head", "post", "upload", "upload-chunked", "download", "download-chunked", "keep-alive", "gzip"),
    *("204", "304", "404", "redirect", "early-close", "events"),
)
#: What a client can do beside HTTP, or instead.
MORE: dict[str, tuple[str, ...]] = {
    "curl": (*HTTP, "expect", "expect-chunked", "expect-refused", "http-1.0", "http-1.0-chunked"),
    "requests": HTTP,
    "httpx": HTTP,
    "aiohttp": (*HTTP, "expect", *WEBSOCKETS),
    "websockets": WEBSOCKETS,
    "node": (*HTTP, "websocket", "websocket-pinged", "websocket-closed"),
    "go": (*HTTP, "expect", "expect-refused"),
    "go-websocket": WEBSOCKETS,
    "java": (*HTTP, "expect", "expect-chunked", *WEBSOCKETS),
}
SUM = hashlib.sha256(LARGE).hexdigest()
SMALL = b'{"instances":[1,2,3]}'


class Chain:
    """The origin, the gateway, nginx; and one run of each client each way, begun when it is first asked for."""

    def __init__(self, folder: Path, origin: Origin, ports: dict[str, int], errors: dict[str, str]) -> None:
        self.origin = origin
        self.folder = folder
        self._ports = ports
        self._errors = errors
        self._pool = ThreadPoolExecutor(2)
        self._runs: dict[str, Future[dict[str, dict[str, Any]]]] = {}

    def seen(self, name: str, way: str) -> dict[str, dict[str, Any]]:
        if way in self._errors:
            pytest.skip(self._errors[way])
        try:
            return self.begin(name, way).result(60)
        except NotHere as reason:
            pytest.skip(str(reason))

    def begin(self, name: str, way: str) -> Future[dict[str, dict[str, Any]]]:
        run = f"{name}-{way}"
        if run not in self._runs:
            self._runs[run] = self._pool.submit(self._run, run, name, self._ports[way])
        return self._runs[run]

    def _run(self, run: str, name: str, port: int) -> dict[str, dict[str, Any]]:
        kept = self.origin.add_relay(run, port)
        command = [*client(name), f"http://127.0.0.1:{port}/{run}", f"http://127.0.0.1:{kept}/{run}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50)
        (self.folder / f"{run}.log").write_text(done.stderr)
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return {line.pop("case"): line for line in lines}

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("interop")
    origin = Origin()
    port, admin, front = free_ports(3)
    processes: list[Child | Process] = []
    errors: dict[str, str] = {}
    with origin.running():
        try:
            path = folder / "gateway.yaml"
            path.write_text(CONFIG.format(port=port, admin=admin, backend=origin.port))
            gateway = Child("gateway", [GATEWAY, "run", "-c", path], folder / "log")
            processes.append(gateway)
            gateway.start()
            assert gateway.wait_until(f"http://127.0.0.1:{admin}/readyz", 60), (folder / "log").read_text()
            try:
                needed("nginx")
            except NotHere as reason:
                errors["nginx"] = str(reason)
            else:
                text = (ROOT / "nginx" / "nginx.conf").read_text()
                text = text.replace("127.0.0.1:8088", f"127.0.0.1:{front}").replace(
                    "127.0.0.1:8080", f"127.0.0.1:{port}"
                )
                (folder / "nginx.conf").write_text(text.replace("worker_processes auto;", "worker_processes 1;"))
                process = Process("nginx", nginx(folder / "nginx.conf"), folder)
                processes.append(process)
                process.wait_for_port(front)
            chain = Chain(folder, origin, {"direct": port, "nginx": front}, errors)
            yield chain
            chain.close()
        finally:
            for one in reversed(processes):
                one.stop(10)
    assert "Traceback" not in (folder / "log").read_text()


CASES = [
    pytest.param(name, way, case, id=f"{name}-{way}-{case}") for name in CLIENTS for way in WAYS for case in MORE[name]
]


@pytest.mark.parametrize(("name", "way", "case"), CASES)
def test_client(chain: Chain, name: str, way: str, case: str) -> None:
    seen = chain.seen(name, way)
    if case not in seen and name == "node" and case in WEBSOCKETS:
        pytest.skip("this Node has no WebSocket")
    judge(chain, f"{name}-{way}", case, seen[case])


def judge(chain: Chain, run: str, case: str, seen: dict[str, Any]) -> None:
    assert "error" not in seen, seen["error"]
    if case in ("post", "upload", "upload-chunked", "expect", "expect-chunked"):
        told = seen["told"]
        body = SMALL if case == "post" else LARGE
        assert seen["status"] == 200
        assert (told["size"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert told["how"] == ("chunked" if "chunked" in case else "stated")
        assert case != "post" or told["type"].startswith(("application/json", "text/plain"))
        assert seen.get("before", [100]) == [100]
    elif case in ("download", "download-chunked", "http-1.0", "http-1.0-chunked"):
        length = None if "chunked" in case else str(SIZE)
        assert seen == {"status": 200, "sha256": SUM, "length": length}
    elif case == "keep-alive":
        assert seen["statuses"] == [200] * 6
        assert chain.origin.connections[run] == 1
    elif case == "early-close":
        assert seen == {"status": 200, "some": True}
        end = time.monotonic() + 30
        while run not in chain.origin.broken_off:
            assert time.monotonic() < end, "the origin never heard that the client went away"
            time.sleep(0.02)
    elif case == "events":
        times = seen.pop("times")
        assert seen == {"status": 200, "type": "text/event-stream", "data": ["0", "1", "2", "3"]}
        # Sent 0.2 s apart; loosely, for a machine that is busy: not all at the end.
        assert times[-1] - times[0] > 0.4
        assert sum(after - before > 0.05 for before, after in itertools.pairwise(times)) >= 2
    elif case == "expect-refused":
        assert seen == {"status": 413, "sent": 0}
    elif case == "gzip":
        plain = hashlib.sha256(PLAIN).hexdigest()
        packed = hashlib.sha256(ZIPPED).hexdigest()
        assert seen["encoding"] == "gzip"
        assert seen.get("unpacked") == plain or seen.get("sha256") == packed
    elif case == "websocket":
        assert seen == {
            "protocol": "echo",
            "text": "grüße",
            "sha256": hashlib.sha256(LARGE[:500_000]).hexdigest(),
        }
        end = time.monotonic() + 30
        while 4002 not in chain.origin.closes[run]:
            assert time.monotonic() < end, f"the origin was told {chain.origin.closes[run]}"
            time.sleep(0.02)
    else:
        assert seen == EXPECTED[case]


EXPECTED: dict[str, dict[str, Any]] = {
    "get": {"status": 200, "body": "hello\n", "type": "text/plain; charset=utf-8"},
    "head": {"status": 200, "body": "", "length": "6"},
    "204": {"status": 204, "body": ""},
    "304": {"status": 304, "body": "", "etag": '"v1"'},
    "404": {"status": 404, "type": "application/problem+json", "told": 404},
    "redirect": {"status": 302, "location": "hello", "body": "hello\n"},
    "websocket-ping": {"pong": "are you there", "kind": "PONG"},
    "websocket-pinged": {"text": "ponged you"},
    "websocket-closed": {"code": 4001, "reason": "bye"},
}
