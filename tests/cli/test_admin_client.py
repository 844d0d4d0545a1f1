"""A verb that asks a running gateway: who may answer there instead, and what the user is told then."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from gateway.cli import main

CONFIG = """version: 1
admin: {listen: "127.0.0.1:%d"}
pools: {p: {backends: [{url: "http://127.0.0.1:8501", name: b}]}}
routes: [{name: r, match: {path: "/*"}, pool: p}]
"""
VERBS = ("status", "reload", "breaker")


class Stranger(HTTPServer):
    """Not a gateway."""

    status, body = 200, b"hello"


class Handler(BaseHTTPRequestHandler):
    server: Stranger

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    server = Stranger(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def say(verb: str, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG % port)
    assert main([verb, "-c", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"gateway {verb}: ")
    return err


@pytest.mark.parametrize("verb", VERBS)
def test_nobody_is_there(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = say(verb, port, tmp_path, capsys)
    assert f"no gateway answers on 127.0.0.1:{port} (admin.listen): connection refused" in said
    assert "hint: start it with gateway run, or name the configuration that it was started with" in said


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("status", "body"), [(200, b"hello"), (200, b'{"status": "ok"}'), (404, b"{}"), (200, b"1"), (500, b"\xff")]
)
def test_somebody_else_is_there(
    verb: str, status: int, body: bytes, stranger: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger.status, stranger.body = status, body
    said = say(verb, stranger.server_address[1], tmp_path, capsys)
    assert "is no gateway, or of another version" in said
    assert f"is answered {status}" in said


@pytest.mark.parametrize("verb", VERBS)
def test_a_gateway_that_wants_a_token(
    verb: str, stranger: Stranger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger.status, stranger.body = 401, b'{"error": "a bearer token is required"}'
    assert "wants a token\n  hint: run this with the configuration" in say(
        verb, stranger.server_address[1], tmp_path, capsys
    )


def test_a_file_that_is_wrong_asks_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("version: 1\n")
    assert main(["reload", "-c", str(path)]) == 1
    assert capsys.readouterr().err.endswith(
        "\ngateway reload: the running gateway was not asked, and goes on as it is\n"
    )
