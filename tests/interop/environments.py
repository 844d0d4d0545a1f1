"""Clients whose dependencies disagree with ours: each in a virtual environment of its own, made when first asked for.

Contract: an environment lies in `build/interop/NAME` and is kept; its stamp, written last, says what is in it. What
cannot be had (no network, no wheel for this machine) raises ``NotHere`` with the reason, and is not tried again in this
process. Processes that want the same one wait for whoever makes it.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from demo.layout import BUILD
from tests.interop.programs import NotHere

FOLDER = BUILD / "interop"
CLIENTS = Path(__file__).parent / "clients"
PERF_ANALYZER = "tritonclient==2.41.0"  # the last wheel with the binary inside


_missing: dict[tuple[str, ...], str] = {}  # why an environment cannot be had


def python(name: str, *requirements: str, alone: bool = False, borrows: bool = False) -> Path:
    """The interpreter of the environment `name`, with `requirements` in it. `alone`: without what they depend on;
    `borrows`: that, and behind them the packages of the running environment.
    """
    key = (name, *requirements)
    if key in _missing:
        raise NotHere(_missing[key])
    try:
        return _made(name, requirements, alone=alone, borrows=borrows)
    except NotHere as reason:
        _missing[key] = str(reason)
        raise


@functools.cache
def _made(name: str, requirements: tuple[str, ...], *, alone: bool, borrows: bool) -> Path:
    place, wanted = FOLDER / name, "\n".join((sys.executable, sys.version, *requirements)) + "\n"
    interpreter, stamp = place / "bin/python", place / "stamp"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted:
            return interpreter
        shutil.rmtree(place, ignore_errors=True)
        failure = f"the environment of {name} cannot be made"
        _run([sys.executable, "-m", "venv", str(place)], failure)
        if borrows:
            packages = sysconfig.get_path("purelib", vars={"base": str(place)})
            Path(packages, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", *(["--no-deps"] * (alone or borrows))]
        _run([str(interpreter), *install, *requirements], failure)
        stamp.write_text(wanted)
    return interpreter


@functools.cache
def perf_analyzer() -> tuple[Path, dict[str, str]]:
    """Triton's load generator and the environment variables it needs: the C libraries that its wheel leaves to others.

    `libb64` is Debian's and is unpacked beside it, not installed; the CUDA runtime is PyPI's. It runs without a GPU.
    """
    interpreter = python("perf-analyzer", PERF_ANALYZER, "nvidia-cuda-runtime-cu12", alone=True)
    place = interpreter.parent.parent
    program = place / "bin/perf_analyzer"
    if not program.exists():
        raise NotHere(f"the wheel {PERF_ANALYZER} for this machine has no perf_analyzer")
    if not list(place.rglob("libb64.so.0d")):
        if not shutil.which("apt-get"):
            raise NotHere("perf_analyzer needs libb64.so.0d, which is Debian's libb64-0d")
        _run(["apt-get", "download", "libb64-0d"], "libb64-0d cannot be had", place)
        for package in place.glob("libb64-0d*.deb"):
            _run(["dpkg", "-x", str(package), str(place / "debian")], "libb64-0d cannot be unpacked")
    libraries = {str(found.parent) for name in ("libb64.so.0d", "libcudart.so.12") for found in place.rglob(name)}
    return program, {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(libraries))}


def _run(command: list[str], failure: str, folder: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHere(f"{failure}: {error}") from error
    if done.returncode:
        raise NotHere(f"{failure}: {(done.stderr or done.stdout).strip()[-300:]}")
