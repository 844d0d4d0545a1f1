"""go_infer with models on a web server that breaks off, lies, drips, hangs, goes away and comes back."""

from __future__ import annotations

import http.server
import json
import shutil
import socketserver
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.models.index import index
from demo.layout import GO_INFER, MODELS
from loadtests.peers.processes import Process, free_ports
from tests.integration.served import wait_until_ready

PADDING = "assets.extra/padding.bin"  # large enough to be cut and to drip
QUICK = [
    "--remote_poll_wait=100ms",
    "--file_system_poll_wait_seconds=0.05",
    "--remote_stall_timeout=400ms",
    "--remote_attempts=2",
    "--remote_backoff=20ms",
    "--load_retry_interval_micros=100000",
    "--port=-1",
]


class Site:
    """A web server of one directory; ``manner`` says what it does wrong."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.manner, self.ranges, self.cuts = directory, "well", list[str](), 0
        [self.port] = free_ports(1)
        self._server: socketserver.BaseServer | None = None
        self.come()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/digits"

    def come(self) -> None:
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            allow_reuse_address, daemon_threads, block_on_close = True, True, False

            def handle_error(self, *_: Any) -> None:
                """A client may leave."""

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def go(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = self.directory / request.path.removeprefix("/digits/")
        if self.manner == "hangs":
            for _ in range(100):
                if self.manner != "hangs":
                    break
                time.sleep(0.05)
            request.close_connection = True
            return
        if not path.is_file():
            request.send_error(404)
            return
        content, begin = path.read_bytes(), 0
        wanted = request.headers.get("Range")
        if wanted:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.ranges.append(wanted)
        request.send_response(206 if wanted else 200)
        request.send_header("ETag", f'"{len(content)}"')
        if wanted:
            request.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - begin))
        request.end_headers()
        large = path.name == "padding.bin"
        if large and self.manner == "cuts" and self.cuts < 3:
            self.cuts += 1
            request.wfile.write(content[begin : begin + 100_000])
            request.close_connection = True
            return
        for at in range(begin, len(content), 16_384):
            request.wfile.write(content[at : at + 16_384])
            if large and self.manner == "drips":
                request.wfile.flush()
                time.sleep(0.02)

    def publish(self, *versions: int, lie: int = 0) -> None:
        """Copy versions of the digits and write the index last; the checksum of version ``lie`` is wrong."""
        for version in versions:
            place = self.directory / str(version)
            shutil.copytree(MODELS / "digits" / "1", place, dirs_exist_ok=True)
            (place / PADDING).parent.mkdir(exist_ok=True)
            (place / PADDING).write_bytes(bytes((i * 7 + version) % 251 for i in range(400_000)))
        named = index(self.directory)
        for file in named["versions"].get(str(lie), {}).get("files", []):
            if file["path"] == PADDING:
                file["sha256"] = "0" * 64
        aside = self.directory / "index.new"
        aside.write_text(json.dumps(named))
        aside.rename(self.directory / "index.json")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    (tmp_path / "site").mkdir()
    made = Site(tmp_path / "site")
    yield made
    made.manner = "well"
    made.go()


class Server(Process):
    """A go_infer of a URL."""

    def __init__(self, url: str, cache: Path, *flags: str) -> None:
        [self.rest] = free_ports(1)
        cache.mkdir(parents=True, exist_ok=True)
        base = [
            str(GO_INFER.resolve()),
            "--model_name=digits",
            f"--model_base_path={url}",
            f"--remote_cache_dir={cache}",
        ]
        super().__init__("go_infer", [*base, f"--rest_api_port={self.rest}", *QUICK, *flags], cache.parent)

    def ready(self) -> Server:
        self.wait_for_port(self.rest)
        wait_until_ready(self.rest)
        return self

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def versions(self) -> dict[int, tuple[str, str]]:
        """State and error of every version that is known."""
        listed = json.loads(self.get("/v1/models/digits"))["model_version_status"]
        return {int(one["version"]): (one["state"], one["status"]["error_message"]) for one in listed}

    def predicts(self) -> None:
        body = json.dumps({"instances": [[0.0] * 64]}).encode()
        ask = urllib.request.Request(f"http://127.0.0.1:{self.rest}/v1/models/digits:predict", body)
        with urllib.request.urlopen(ask, timeout=10) as answer:
            assert json.load(answer)["predictions"]


def eventually(claim: Callable[[], bool], server: Server) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if claim():
            return
        time.sleep(0.02)
    raise AssertionError(f"{server.versions()}\n{server.tail()}")


@pytest.fixture
def server(site: Site, tmp_path: Path) -> Iterator[Server]:
    """It serves version 1, fetched from the site."""
    site.publish(1)
    made = Server(site.url, tmp_path / "cache")
    try:
        yield made.ready()
    finally:
        made.stop()


def there(server: Server, version: int) -> bool:
    return server.versions().get(version, ("", ""))[0] == "AVAILABLE"


def test_a_cut_transfer_is_resumed_and_the_version_takes_over(site: Site, server: Server) -> None:
    server.predicts()
    site.manner = "cuts"
    site.publish(2)
    eventually(lambda: there(server, 2), server)
    assert "bytes=100000-" in site.ranges, site.ranges
    server.predicts()
    assert "go_infer_remote_fetched_total 2" in server.get("/metrics")


def test_a_wrong_checksum_is_refused_with_its_reason_until_it_is_right(site: Site, server: Server) -> None:
    site.publish(2, lie=2)
    eventually(lambda: "SHA-256" in server.versions().get(2, ("", ""))[1], server)
    assert server.versions()[2][0] in {"END", "LOADING"} and "it must be 0000" in server.versions()[2][1]
    assert there(server, 1)
    server.predicts()
    assert "model not loaded" in server.log.read_text() and "SHA-256" in server.log.read_text()
    assert not list((server.log.parent / "cache").glob("*/2")), "nothing is published that is not whole"
    site.publish(2)
    eventually(lambda: there(server, 2), server)


def test_a_server_that_drips_is_waited_for_and_one_that_hangs_is_given_up(site: Site, server: Server) -> None:
    site.manner = "drips"
    site.publish(2)
    eventually(lambda: server.versions().get(2, ("", ""))[0] == "LOADING", server)
    assert not list((server.log.parent / "cache").glob("*/2"))
    server.predicts()
    eventually(lambda: there(server, 2), server)
    site.manner = "hangs"
    eventually(lambda: "stalled" in server.log.read_text(), server)
    assert "go_infer_remote_unreachable 1" in server.get("/metrics")
    server.predicts()
    site.manner = "well"
    site.publish(3)
    eventually(lambda: there(server, 3), server)
    assert "model repository is back" in server.log.read_text()


def test_a_server_that_is_gone_changes_nothing_and_what_is_cached_is_not_fetched_again(
    site: Site, server: Server, tmp_path: Path
) -> None:
    site.go()
    eventually(lambda: "cannot be listed" in server.log.read_text(), server)
    server.predicts()
    server.stop()
    again = Server(site.url, tmp_path / "cache")  # a restart while the repository is away
    try:
        again.ready().predicts()
        assert "go_infer_remote_fetched_total 0" in again.get("/metrics")
        site.come()
        site.publish(2)
        eventually(lambda: there(again, 2), again)
        again.predicts()
    finally:
        again.stop()


def test_a_repository_that_cannot_be_had_at_all_ends_the_server_with_the_reason(site: Site, tmp_path: Path) -> None:
    made = Server(site.url, tmp_path / "cache")
    try:
        end = time.monotonic() + 20
        while made.running and time.monotonic() < end:
            time.sleep(0.02)
        assert not made.running
        assert "has no index.json, which a web server must have" in made.tail()
    finally:
        made.stop()


def test_the_cache_keeps_to_its_bound_and_what_is_loaded(site: Site, server: Server, tmp_path: Path) -> None:
    server.stop()
    site.publish(2)
    small = Server(site.url, tmp_path / "small", "--remote_cache_bytes=500000")
    try:
        small.ready()
        site.publish(3)
        eventually(lambda: there(small, 3) and small.versions().get(2, ("END", ""))[0] == "END", small)
        site.publish(4)
        eventually(lambda: there(small, 4) and small.versions().get(3, ("END", ""))[0] == "END", small)
        kept = {path.name for path in (tmp_path / "small").glob("*/[0-9]*")}
        assert "4" in kept and "2" not in kept, kept
        small.predicts()
    finally:
        small.stop()
