"""Servers as people have them, behind one gateway: what each path answers is in tests/interop/servers."""

from __future__ import annotations

import hashlib
import http.client
import json
from collections.abc import Iterator

import pytest

from demo.layout import GATEWAY
from demo.process import Child
from loadtests.peers.processes import Process, free_ports
from tests.interop.origin import LARGE
from tests.interop.programs import SERVERS, NotHere, server

HEAD = """\
version: 1
listen: 127.0.0.1:{port}
workers: 1
admin: {{listen: "127.0.0.1:{admin}"}}
pools:
"""
POOL = '  {name}: {{connections: {{connect_timeout: 10s}}, backends: [{{url: "http://127.0.0.1:{port}"}}], stream_above: 64KiB, stream_after: 1ms}}\n'
ROUTE = '  - {{name: {name}, match: {{path: "/{name}/*"}}, pool: {name}, rewrite: {{prefix: {{"/{name}/": "/"}}}}}}\n'
CHUNKED = b"".join(bytes([97 + number]) * 65536 for number in range(16))
FILES = ("http.server", "nginx")  # these serve files and take none


class House:
    def __init__(self, port: int, reasons: dict[str, str]) -> None:
        self.port = port
        self._reasons = reasons

    def client(self, name: str) -> http.client.HTTPConnection:
        if name in self._reasons:
            pytest.skip(self._reasons[name])
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("backends")
    files = folder / "files"
    files.mkdir()
    (files / "hello").write_text("hello\n")
    (files / "chunked").write_bytes(CHUNKED)
    port, admin, *ports = free_ports(2 + len(SERVERS))
    started: list[tuple[Process, int]] = []
    reasons: dict[str, str] = {}
    gateway: Child | None = None
    try:
        for name, own in zip(SERVERS, ports, strict=True):
            try:
                command = server(name, own, files)
            except NotHere as reason:
                reasons[name] = str(reason)
            else:
                started.append((Process(f"{name}-server", command, folder), own))
        path = folder / "gateway.yaml"
        named = [(name.replace(".", "-"), own) for name, own in zip(SERVERS, ports, strict=True)]
        pools = "".join(POOL.format(name=name, port=own) for name, own in named)
        routes = "".join(ROUTE.format(name=name) for name, _ in named)
        path.write_text(HEAD.format(port=port, admin=admin) + pools + "routes:\n" + routes)
        gateway = Child("gateway", [GATEWAY, "run", "-c", path], folder / "log")
        gateway.start()
        assert gateway.wait_until(f"http://127.0.0.1:{admin}/readyz", 60), (folder / "log").read_text()
        for process, own in started:
            process.wait_for_port(own, 30)
        yield House(port, reasons)
    finally:
        if gateway is not None:
            gateway.stop(10)
        for process, _ in started:
            process.stop()
    assert "Traceback" not in (folder / "log").read_text()


def ask(
    client: http.client.HTTPConnection, name: str, path: str, method: str = "GET", **more: object
) -> tuple[http.client.HTTPResponse, bytes]:
    client.request(method, f"/{name.replace('.', '-')}{path}", **more)  # type: ignore[arg-type]
    answer = client.getresponse()
    return answer, answer.read()


@pytest.mark.parametrize("name", SERVERS)
def test_get_and_head(house: House, name: str) -> None:
    client = house.client(name)
    answer, body = ask(client, name, "/hello")
    assert (answer.status, body, answer.headers["content-length"]) == (200, b"hello\n", "6")
    answer, body = ask(client, name, "/hello", "HEAD")
    assert (answer.status, body) == (200, b"")
    assert answer.headers["content-length"] == "6"
    assert ask(client, name, "/hello")[1] == b"hello\n"  # HEAD left nothing behind
    client.close()


@pytest.mark.parametrize("name", SERVERS)
def test_a_long_answer(house: House, name: str) -> None:
    client = house.client(name)
    for method in ("GET", "GET", "HEAD", "GET"):
        answer, body = ask(client, name, "/chunked", method)
        assert answer.status == 200
        assert body == (b"" if method == "HEAD" else CHUNKED)
        if name not in FILES and method == "GET":
            assert answer.headers["transfer-encoding"] == "chunked"
    client.close()


def test_an_answer_that_is_packed_and_chunked(house: House) -> None:
    client = house.client("nginx")
    answer, body = ask(client, "nginx", "/chunked", headers={"Accept-Encoding": "gzip"})
    assert (answer.headers["content-encoding"], body[:2]) == ("gzip", b"\x1f\x8b")
    client.close()


@pytest.mark.parametrize("name", SERVERS)
def test_no_content_and_not_modified(house: House, name: str) -> None:
    client = house.client(name)
    if name in FILES:
        since = ask(client, name, "/hello")[0].headers["last-modified"]
        answer, body = ask(client, name, "/hello", headers={"If-Modified-Since": since})
        assert (answer.status, body) == (304, b"")
    if name != "http.server":
        answer, body = ask(client, name, "/nothing")
        assert (answer.status, body) == (204, b"")
    assert ask(client, name, "/hello")[1] == b"hello\n"
    client.close()


@pytest.mark.parametrize("how", ["small", "stated", "chunked"])
@pytest.mark.parametrize("name", SERVERS)
def test_post(house: House, name: str, how: str) -> None:
    client = house.client(name)
    sent = b'{"instances":[1]}' if how == "small" else LARGE
    if name in FILES:
        # They refuse before they have read, and some close: the answer must come all the same.
        answer, _ = ask(client, name, "/hello", "POST", body=b"{}")
        assert answer.status == (501 if name == "http.server" else 405)
    else:
        body = (
            iter([LARGE[start : start + 65536] for start in range(0, len(LARGE), 65536)]) if how == "chunked" else sent
        )
        answer, told = ask(client, name, "/digest", "POST", body=body, encode_chunked=how == "chunked")
        assert answer.status == 200, told
        assert json.loads(told) == {"size": len(sent), "sha256": hashlib.sha256(sent).hexdigest()}
    client.close()


@pytest.mark.parametrize("name", SERVERS)
def test_a_connection_is_kept(house: House, name: str) -> None:
    client = house.client(name)
    if name == "http.server":
        pytest.skip("speaks HTTP/1.0: a connection per request")
    peers = set()
    for number in range(12):
        path = ("/hello", "/chunked", "/nothing")[number % 3]
        answer, _ = ask(client, name, path)
        if answer.headers["x-peer"]:
            peers.add(answer.headers["x-peer"])
    assert len(peers) == 1
    client.close()
