"""Builds go_infer and trains the demo models, unless both are there: `python -m demo.prepare`."""

from __future__ import annotations

import subprocess
import sys

from demo.layout import GO_INFER, MODELS, ROOT


def prepare() -> int:
    """The exit status of the first step that failed, or 0. Each step explains itself and is skipped when up to date."""
    steps = (
        ("backends.build", "--out", str(GO_INFER)),
        ("backends.models.digits", "--out", str(MODELS)),
    )
    for module, *arguments in steps:
        status = _run([sys.executable, "-m", module, *arguments])
        if status:
            return status
    return 0


def _run(command: list[str]) -> int:
    """The child's exit status. Ctrl-C reaches the child too, which cleans up and ends by itself: it is waited for."""
    with subprocess.Popen(command, cwd=ROOT) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue


if __name__ == "__main__":
    try:
        sys.exit(prepare())
    except KeyboardInterrupt:
        sys.exit(130)
