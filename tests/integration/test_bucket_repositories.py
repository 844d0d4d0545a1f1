"""go_infer with models in buckets: S3 from moto's server, Google Cloud Storage from fake-gcs-server.

`make test-cloud` builds what they need, a server with the bucket drivers among it, and runs them. Elsewhere they are
skipped if something is not there; with SLUICEGATE_CLOUD_REQUIRED set they fail.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from demo.layout import BUILD, MODELS
from loadtests.peers.processes import Process, free_ports
from tests.integration.served import wait_until_ready
from tests.interop.environments import python
from tests.interop.programs import NotHere, go_module

CLOUD = Path(os.environ.get("SLUICEGATE_CLOUD_BINARY", BUILD / "bin" / "go_infer-cloud"))
REQUIRED = "SLUICEGATE_CLOUD_REQUIRED" in os.environ
MOTO = "moto[server,s3]==5.2.5"
FAKE_GCS = ("github.com/fsouza/fake-gcs-server", "v1.56.1")
PATIENCE = 30.0  # seconds until a server has found, fetched and loaded a version


def absent(reason: str) -> NoReturn:
    """Something is not there: no reason to fail, unless it was asked for."""
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(autouse=True)
def cloud() -> None:
    if not CLOUD.exists():
        absent(f"no {CLOUD}: make test-cloud, or python -m backends.build --cloud --out build/bin/go_infer-cloud")


def files(version: int) -> Iterator[tuple[str, bytes]]:
    """Everything of a version of the digits, by its name in the bucket; its variables come last."""
    base = MODELS / "digits"
    for path in sorted((base / str(version)).rglob("*")):
        if path.is_file():
            yield path.relative_to(base).as_posix(), path.read_bytes()


def put(url: str, content: bytes, method: str = "PUT") -> None:
    """As bytes: what urllib calls them by itself, a form, the stores would read as one."""
    request = urllib.request.Request(url, content, {"Content-Type": "application/octet-stream"}, method=method)
    with urllib.request.urlopen(request, timeout=30):
        pass


def predicts(rest: int, version: int) -> bool:
    """That version answers."""
    body = json.dumps({"instances": [[0.0] * 64]}).encode()
    ask = urllib.request.Request(f"http://127.0.0.1:{rest}/v1/models/digits/versions/{version}:predict", body)
    try:
        with urllib.request.urlopen(ask, timeout=30) as answer:
            return bool(json.load(answer)["predictions"])
    except urllib.error.HTTPError:
        return False


def answers(url: str, folder: Path, environment: dict[str, str], upload: Callable[[int], None]) -> None:
    """A server of that address fetches, loads and predicts, and takes up a version that comes later."""
    [rest] = free_ports(1)
    flags = [
        f"--remote_cache_dir={folder / 'cache'}", "--remote_poll_wait=500ms", "--file_system_poll_wait_seconds=0.2",
        f"--rest_api_port={rest}", "--port=-1", "--model_name=digits",
    ]  # fmt: skip
    upload(1)
    server = Process("go_infer", [str(CLOUD.resolve()), f"--model_base_path={url}", *flags], folder, environment)
    try:
        server.wait_for_port(rest)
        wait_until_ready(rest)
        assert predicts(rest, 1)
        upload(2)
        end = time.monotonic() + PATIENCE
        while not predicts(rest, 2):
            assert time.monotonic() < end, f"version 2 does not answer:\n{server.tail()}"
            time.sleep(0.1)
        assert server.log.read_text().count('"fetched"') == 2, server.tail()
    except AssertionError as missing:
        raise AssertionError(server.tail()) from missing
    finally:
        server.stop()


def refuses(url: str, folder: Path, environment: dict[str, str], says: str) -> None:
    """A server of that address ends, and says what is wrong with it."""
    flags = [f"--remote_cache_dir={folder / 'none'}", "--rest_api_port=0", "--port=-1", "--model_name=digits"]
    server = Process("refused", [str(CLOUD.resolve()), f"--model_base_path={url}", *flags], folder, environment)
    try:
        end = time.monotonic() + PATIENCE
        while server.running and says not in server.log.read_text():
            assert time.monotonic() < end, server.tail()
            time.sleep(0.1)
        assert says in server.log.read_text(), server.tail()
    finally:
        server.stop()


def test_s3(tmp_path: Path) -> None:
    try:
        moto = python("moto", MOTO).with_name("moto_server")
    except NotHere as reason:
        absent(str(reason))
    [port] = free_ports(1)
    store = Process("moto", [str(moto), "-H", "127.0.0.1", "-p", str(port)], tmp_path)
    try:
        store.wait_for_port(port, 60)
        endpoint = f"http://127.0.0.1:{port}"
        put(f"{endpoint}/models", b"")

        def upload(version: int) -> None:
            for name, content in files(version):
                put(f"{endpoint}/models/of/digits/{name}", content)

        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        query = f"endpoint={endpoint}&region=us-east-1&use_path_style=true"
        answers(f"s3://models/of/digits?{query}", tmp_path, keys, upload)
        refuses(f"s3://none/of/digits?{query}", tmp_path, keys, "NoSuchBucket")
    finally:
        store.stop()


def test_google_cloud_storage(tmp_path: Path) -> None:
    try:
        program = os.environ.get("SLUICEGATE_FAKE_GCS") or go_module(*FAKE_GCS)
    except NotHere as reason:
        absent(str(reason))
    [port] = free_ports(1)
    flags = f"-scheme http -host 127.0.0.1 -port {port} -backend memory -public-host 127.0.0.1:{port}".split()
    store = Process("fake-gcs", [program, *flags], tmp_path)
    try:
        store.wait_for_port(port)
        put(f"http://127.0.0.1:{port}/storage/v1/b", b'{"name": "models"}', "POST")

        def upload(version: int) -> None:
            for name, content in files(version):
                into = f"http://127.0.0.1:{port}/upload/storage/v1/b/models/o?uploadType=media&name=of/digits/{name}"
                put(into, content, "POST")

        emulator = {"STORAGE_EMULATOR_HOST": f"127.0.0.1:{port}"}
        answers("gs://models/of/digits", tmp_path, emulator, upload)
        refuses("gs://none/of/digits", tmp_path, emulator, "404")
    finally:
        store.stop()
