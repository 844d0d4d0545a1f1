"""Python clients whose pins do not fit ours, each in an environment of its own, made when a test first wants it.

Contract: `python(name)` returns the interpreter of an environment that has what ENVIRONMENTS says; it is kept below build/ and
made again when that changes. Without a package registry it raises NotHere.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from demo.layout import BUILD
from tests.interop.programs import NotHere


@dataclass(frozen=True)
class Environment:
    """What to install; `borrows` puts the running environment's packages behind its own, and installs no dependencies."""

    packages: tuple[str, ...]
    borrows: bool = False


ENVIRONMENTS = {
    # Its stubs import TensorFlow itself, which is 250 MB and here already.
    "tfserving": Environment(
        ("tensorflow-serving-api==2.21.0", "grpcio-reflection>=1.80,<2", "grpcio-health-checking>=1.80,<2"),
        borrows=True,
    ),
    "triton": Environment(("tritonclient[grpc]==2.73.0", "ovmsclient==2023.1")),  # both want protobuf < 7
}


def python(name: str) -> Path:
    """The interpreter; the first caller waits for the installation, others for it."""
    wanted = ENVIRONMENTS[name]
    place = BUILD / "interop" / f"env-{name}"
    stamp = place / "made-of"
    BUILD.joinpath("interop").mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == repr((wanted, sys.executable))):
            shutil.rmtree(place, ignore_errors=True)
            _make(place, wanted)
            stamp.write_text(repr((wanted, sys.executable)))
    return place / "bin" / "python"


def _make(place: Path, wanted: Environment) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, timeout=120)
    own = place / "bin" / "python"
    if wanted.borrows:
        packages = sysconfig.get_path("purelib", vars={"base": str(place)})
        Path(packages, "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [str(own), "-m", "pip", "install", "-q", *(["--no-deps"] if wanted.borrows else []), *wanted.packages]
    had = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if had.returncode:
        raise NotHere(f"{' '.join(wanted.packages)} cannot be had: {had.stderr.strip()[-200:]}")
