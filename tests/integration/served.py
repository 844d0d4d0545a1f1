"""What go_infer serves to the clients of its protocols: the probes, and when it is ready."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from demo.layout import BUILD, ROOT

PROBES = Path(os.environ.get("SLUICEGATE_PROBES", BUILD / "probes")).absolute()


def make_probes() -> None:
    """The models of `backends.models.probes` are there and of today; other processes wait for the first."""
    PROBES.parent.mkdir(parents=True, exist_ok=True)
    with PROBES.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, "-m", "backends.models.probes", "--out", str(PROBES)]
        subprocess.run(command, cwd=ROOT, check=True, timeout=300)


def wait_until_ready(port: int) -> None:
    """The listener is there before the models are."""
    for _ in range(600):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"the server on port {port} is not ready")
