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
        status = subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=False).returncode
        if status:
            return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(prepare())
    except KeyboardInterrupt:
        sys.exit(130)
