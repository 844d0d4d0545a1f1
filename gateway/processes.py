"""Processes of our own: how they find this very code, that they die with their parent, how many files they may open."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import site
import sys
from pathlib import Path
from typing import Final

import gateway

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def own_module(name: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment that run a module of this installation, whatever the working directory holds."""
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    root = str(Path(next(iter(gateway.__path__))).parent)
    if root not in site.getsitepackages():
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return [sys.executable, "-P", "-m", name], env


def die_with_parent() -> None:
    """Linux prctl(2) PR_SET_PDEATHSIG. For `preexec_fn`: only a system call, nothing that could deadlock after fork."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def allow_files() -> int:
    """Raises this process's bound of open files, which children inherit, as far as it may (getrlimit(2)); what it is.

    The lower, soft one is kept for who calls select(2), as nobody does here; Go's runtime raises it, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # not every system lets it be without a bound
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
