"""One JSON line per request, whatever the disk does."""

from __future__ import annotations

import subprocess
import sys
import time

import orjson
import pytest

from gateway.telemetry import access_log
from gateway.telemetry.access_log import AccessLog, Line

LINE = Line(
    b"id-1", b"alice", b"10.0.0.9", b"POST", b"/x?\xff", "digits", "small", 200, 12, 4_567_890, 200_000, 4_000_000,
    "digits/127.0.0.1:1", 1, b"stale;age=3",
)  # fmt: skip


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(access_log, "FLUSH", 0.005)


def lines(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line(tmp_path, quick):
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.write(LINE)
    log.close()
    (record,) = lines(path)
    assert record.pop("time").endswith("Z")
    assert record == {
        "id": "id-1", "client": "alice", "peer": "10.0.0.9", "method": "POST", "target": "/x?\ufffd",
        "route": "digits", "pool": "small", "status": 200, "bytes": 12, "ms": 4.568, "limits_ms": 0.2, "upstream_ms": 4.0,
        "backend": "digits/127.0.0.1:1", "attempts": 1, "degraded": "stale;age=3",
        "hedges": 0,
    }  # fmt: skip


def test_what_a_client_sends_cannot_make_a_second_line(tmp_path, quick):
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.write(LINE._replace(target=b'/"\n{"status":500}'))
    log.close()
    assert len(lines(path)) == 1


def test_every_line_is_written_in_order(tmp_path, quick):
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    for number in range(3000):
        log.write(LINE._replace(attempts=number))
    log.close()
    assert [line["attempts"] for line in lines(path)] == list(range(3000))
    assert log.dropped == 0


def test_a_file_that_was_moved_away_is_opened_again(tmp_path, quick):
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.write(LINE)
    log._flush()
    path.rename(tmp_path / "access.log.1")
    log._checked -= 1.0
    log.write(LINE._replace(attempts=2))
    log.close()
    assert [line["attempts"] for line in lines(tmp_path / "access.log.1")] == [1]
    assert [line["attempts"] for line in lines(path)] == [2]


def test_a_full_disk_is_counted_and_nothing_else_happens():
    log = AccessLog("/dev/full")
    for _ in range(5):
        log.write(LINE)
    log.close()
    assert log.dropped == 5


def test_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(access_log, "CAPACITY", 10)
    monkeypatch.setattr(access_log, "FLUSH", 60)
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    for _ in range(15):
        log.write(LINE)
    assert log.dropped == 5
    log.close()
    assert len(lines(path)) == 10


def test_closing_twice_is_not_needed_and_the_descriptor_is_given_back(tmp_path, quick):
    import os

    log = AccessLog(str(tmp_path / "access.log"))
    fd = log._fd
    log.close()
    with pytest.raises(OSError):
        os.fstat(fd)


HOLD = """
import fcntl, sys
with open(sys.argv[1], "a") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print(flush=True)
    input()
    file.write("{}\\n")
"""


def test_workers_write_one_at_a_time(tmp_path, quick):
    """Or one that takes back half a line on a full disk could cut off what another has written since."""
    path = tmp_path / "access.log"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        log = AccessLog(str(path))
        log.write(LINE)
        time.sleep(0.05)  # some tries
        assert path.read_bytes() == b""
        other.communicate("\n")
    log.close()
    assert [line.get("id") for line in lines(path)] == [None, "id-1"]
