"""What of TensorFlow's libraries go_infer keeps in memory."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from demo.layout import GO_INFER, MODELS
from loadtests.peers.processes import Process, free_ports
from tests.integration.served import wait_until_ready

LIBRARY = "libtensorflow_cc"
START = 240  # MB of the libraries that starting touches, 260 to 290 with TensorFlow 2.21
SERVING = 60  # MB of them that the digits model needs at most; 12 to 20


@contextmanager
def serving(work: Path, *flags: str) -> Iterator[tuple[Process, int]]:
    """A ready go_infer with the digits, and its port."""
    [port] = free_ports(1)
    command = (str(GO_INFER), "--model_name=digits", f"--model_base_path={MODELS / 'digits'}", f"--rest_api_port={port}",
               "--port=-1", *flags)  # fmt: skip
    process = Process("go_infer", command, work)
    try:
        wait_until_ready(port)
        yield process, port
    finally:
        process.stop(15)


def libraries(pid: int) -> float:
    """Resident MB of TensorFlow's libraries in a process."""
    kilobytes, counts = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = "libtensorflow" in line
        elif counts and line.startswith("Rss:"):
            kilobytes += int(line.split()[1])
    return kilobytes / 1024


def used_by(pid: int) -> list[int]:
    """Other processes that have mapped the library: the kernel does not reclaim pages that they use, too."""
    others = []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if int(maps.parent.name) != pid and LIBRARY in maps.read_text():
                others.append(int(maps.parent.name))
    return others


def trimmed(port: int) -> float:
    """MB that the server says it gave back."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        [line] = [
            line
            for line in answer.read().decode().splitlines()
            if line.startswith("go_infer_libraries_trimmed_bytes_total ")
        ]
    return float(line.split()[1]) / 2**20


def predict(port: int) -> int:
    """The label of an empty picture."""
    body = json.dumps({"instances": [[0] * 64] * 8}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/models/digits:predict", body)
    with urllib.request.urlopen(request, timeout=10) as answer:
        label: int = json.load(answer)["predictions"][0]["label"]
    return label


def test_pages_that_serving_does_not_need_are_given_back(tmp_path: Path) -> None:
    with serving(tmp_path, "--trim_libraries=false") as (process, port):
        assert libraries(process.pid) > START
        assert trimmed(port) == 0
        label = predict(port)
    with serving(tmp_path) as (process, port):
        assert predict(port) == label
        left, given = libraries(process.pid), trimmed(port)
        if given < START / 2:
            others = used_by(process.pid)
            assert others or "are not given back" in process.tail(), f"only {given:.0f} MB were given back"
            pytest.skip(f"nothing can be given back here; processes that use {LIBRARY}, too: {others}")
        for _ in range(50):
            predict(port)
        assert left < SERVING
        assert libraries(process.pid) < SERVING
