"""What the commands that build models out of packages have in common: arguments, stamp, publication, exit codes.

Contract: `run` builds aside and renames, each result at once; a second call finds the stamp and returns without
importing TensorFlow or asking a registry; after Ctrl-C or a failure what was there before is still there, whole.
Exit codes: 0 built or up to date, 1 failed, 69 (sysexits' EX_UNAVAILABLE) the package registry cannot be reached.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from backends import aside, stamp
from backends.interrupt import Interrupts
from backends.models import packages

DEFAULT_OUT = Path("build/models")
UNAVAILABLE = 69


@dataclass(frozen=True)
class Recipe:
    """`results` are paths below OUT that `make(directory, interrupts)` leaves in `directory`."""

    module: str
    purpose: str
    results: Sequence[str]
    sources: Sequence[str]  # modules of backends.models that it is made with
    made_with: Sequence[str]  # distributions
    make: Callable[[Path, Interrupts], None]

    @property
    def name(self) -> str:
        return self.module.rpartition(".")[2]


def run(recipe: Recipe, arguments: list[str] | None = None) -> int:
    """The whole command."""
    parser = argparse.ArgumentParser(prog=f"python -m {recipe.module}", description=recipe.purpose)
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="directory of the models (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    options = parser.parse_args(arguments)
    out: Path = options.out
    try:
        here = Path(__file__).parent
        sources = [here / f"{name}.py" for name in (*recipe.sources, recipe.name, "command", "packages")]
        expected = stamp.fingerprint(sources, [f"{name}=={metadata.version(name)}" for name in recipe.made_with])
    except metadata.PackageNotFoundError as missing:
        return _fail(recipe, f"{missing.name} is not installed in {sys.prefix}: run 'pip install -e .[models]' there")
    if (
        not options.force
        and all((out / result).exists() for result in recipe.results)
        and stamp.matches(_stamp(recipe, out), expected)
    ):
        print(f"{', '.join(recipe.results)} in {out}: up to date")
        return 0
    started = time.monotonic()
    try:
        with (
            Interrupts() as interrupts,
            interrupts.made(lambda: aside.directory(out / recipe.name), aside.remove) as directory,
        ):
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
            os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # nothing is computed here
            recipe.make(directory, interrupts)
            with interrupts.held():
                _stamp(recipe, out).unlink(missing_ok=True)
                for result in recipe.results:
                    publish(directory / result, out / result)
                stamp.write(_stamp(recipe, out), expected)
    except packages.Unreachable as error:
        return _fail(recipe, f"{error} (the package registry cannot be reached; nothing was changed)", UNAVAILABLE)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _fail(recipe, f"no space left on the disk of {out}: free about 100 MB and run it again")
        return _fail(recipe, f"cannot write the models: {error}")
    except (packages.Refused, ValueError) as error:
        return _fail(recipe, str(error))
    print(f"{', '.join(recipe.results)} written to {out} in {time.monotonic() - started:.1f} s")
    return 0


def publish(built: Path, final: Path) -> None:
    """Put `built` at `final` by renaming; what was there goes away only after the new one is whole."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_dir():
        final.rename(built.with_name(f"{built.name}.old"))
    built.rename(final)


def _stamp(recipe: Recipe, out: Path) -> Path:
    return out / f"{recipe.name}.stamp"


def _fail(recipe: Recipe, reason: str, code: int = 1) -> int:
    print(f"{recipe.module}: {reason}", file=sys.stderr)
    return code
