"""go_infer with models in buckets: S3 from moto's server, Google Cloud Storage from fake-gcs-server.

Needs a server with the bucket drivers, which is not built by default; without it these tests say how to make one.
"""

from __future__ import annotations

import json
import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.layout import BUILD, MODELS
from loadtests.peers.processes import Process, free_ports
from tests.integration.served import wait_until_ready
from tests.interop.environments import python
from tests.interop.programs import NotHere

CLOUD = Path(os.environ.get("SLUICEGATE_CLOUD_BINARY", BUILD / "bin" / "go_infer-cloud"))
FAKE_GCS = os.environ.get("SLUICEGATE_FAKE_GCS") or shutil.which("fake-gcs-server")
pytestmark = pytest.mark.skipif(
    not CLOUD.exists(), reason=f"no {CLOUD}: python -m backends.build --cloud --out build/bin/go_infer-cloud"
)


def files() -> Iterator[tuple[str, bytes]]:
    """Everything of version 1 of the digits, by its name in the bucket."""
    base = MODELS / "digits"
    for path in sorted((base / "1").rglob("*")):
        if path.is_file():
            yield path.relative_to(base).as_posix(), path.read_bytes()


def put(url: str, content: bytes, method: str = "PUT") -> None:
    with urllib.request.urlopen(urllib.request.Request(url, content, method=method), timeout=10):
        pass


def answers(url: str, folder: Path, environment: dict[str, str]) -> None:
    """A server of that address fetches, loads and predicts."""
    [rest] = free_ports(1)
    flags = [f"--remote_cache_dir={folder / 'cache'}", f"--rest_api_port={rest}", "--port=-1", "--model_name=digits"]
    server = Process("go_infer", [str(CLOUD.resolve()), f"--model_base_path={url}", *flags], folder, environment)
    try:
        server.wait_for_port(rest)
        wait_until_ready(rest)
        body = json.dumps({"instances": [[0.0] * 64]}).encode()
        ask = urllib.request.Request(f"http://127.0.0.1:{rest}/v1/models/digits/versions/1:predict", body)
        with urllib.request.urlopen(ask, timeout=10) as answer:
            assert json.load(answer)["predictions"]
        assert '"fetched"' in server.log.read_text()
    except AssertionError as missing:
        raise AssertionError(server.tail()) from missing
    finally:
        server.stop()


def test_s3(tmp_path: Path) -> None:
    try:
        moto = python("moto", "moto[server,s3]==5.2.5").with_name("moto_server")
    except NotHere as reason:
        pytest.skip(str(reason))
    [port] = free_ports(1)
    store = Process("moto", [str(moto), "-H", "127.0.0.1", "-p", str(port)], tmp_path)
    try:
        store.wait_for_port(port, 60)
        endpoint = f"http://127.0.0.1:{port}"
        put(f"{endpoint}/models", b"")
        for name, content in files():
            put(f"{endpoint}/models/of/digits/{name}", content)
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        query = f"endpoint={endpoint}&region=us-east-1&use_path_style=true"
        answers(f"s3://models/of/digits?{query}", tmp_path, keys)
    finally:
        store.stop()


@pytest.mark.skipif(FAKE_GCS is None, reason="no fake-gcs-server: go install github.com/fsouza/fake-gcs-server@latest")
def test_google_cloud_storage(tmp_path: Path) -> None:
    [port] = free_ports(1)
    flags = f"-scheme http -host 127.0.0.1 -port {port} -backend memory -public-host 127.0.0.1:{port}".split()
    store = Process("fake-gcs", [str(FAKE_GCS), *flags], tmp_path)
    try:
        store.wait_for_port(port)
        put(f"http://127.0.0.1:{port}/storage/v1/b", b'{"name": "models"}', "POST")
        for name, content in files():
            address = f"http://127.0.0.1:{port}/upload/storage/v1/b/models/o?uploadType=media&name=of/digits/{name}"
            put(address, content, "POST")
        answers("gs://models/of/digits", tmp_path, {"STORAGE_EMULATOR_HOST": f"127.0.0.1:{port}"})
    finally:
        store.stop()
