"""Clients whose dependencies disagree with ours: each in a virtual environment of its own, made when first asked for.

Contract: an environment lies in `build/interop/NAME` and is kept; its stamp, written last, says what is in it. What
cannot be had (no network, no wheel for this machine) raises ``NotHere`` with the reason, once and not for every test.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from demo.layout import BUILD
from tests.interop.programs import NotHere

FOLDER = BUILD / "interop"
CLIENTS = Path(__file__).parent / "clients"
PERF_ANALYZER = "tritonclient==2.41.0"  # the last wheel with the binary inside


@functools.cache
def python(name: str, *requirements: str, without_dependencies: bool = False) -> Path:
    """The interpreter of the environment `name`, with `requirements` in it."""
    place, wanted = FOLDER / name, "\n".join((sys.version, *requirements)) + "\n"
    interpreter, stamp = place / "bin/python", place / "stamp"
    if stamp.exists() and stamp.read_text() == wanted:
        return interpreter
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", *(["--no-deps"] * without_dependencies)]
    for command in ([sys.executable, "-m", "venv", str(place)], [str(interpreter), *install, *requirements]):
        _run(command, f"the environment of {name} cannot be made")
    stamp.write_text(wanted)
    return interpreter


@functools.cache
def perf_analyzer() -> tuple[Path, dict[str, str]]:
    """Triton's load generator and the environment variables it needs: the C libraries that its wheel leaves to others.

    `libb64` is Debian's and is unpacked beside it, not installed; the CUDA runtime is PyPI's. It runs without a GPU.
    """
    interpreter = python("perf-analyzer", PERF_ANALYZER, "nvidia-cuda-runtime-cu12", without_dependencies=True)
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
