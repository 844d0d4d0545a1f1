"""Train the digit classifiers on real handwriting and export them as SavedModels.

    python -m backends.models.digits --out build/models [--pictures build/pictures]

Data: scikit-learn's `load_digits`, 1,797 handwritten 8x8 digits (UCI, "Optical Recognition of Handwritten
Digits"), inside its wheel.
Writes `OUT/digits/1` (small dense net), `OUT/digits/2` (CNN), `OUT/digits-small/1` (logistic regression),
`OUT/digits/heldout.json`,
and pictures of held-out digits to look at and to send.

Invariants: nothing is visible at its final place until it is whole (written aside, then renamed); a second call
finds the stamp
and returns without importing TensorFlow; a model that misses its floor is never published; after Ctrl-C nothing is
left but what was there.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import time
from importlib import metadata
from pathlib import Path

from backends import aside, stamp
from backends.interrupt import Interrupts

DEFAULT_OUT = Path("build/models")
STAMP = "digits.stamp"
MADE_WITH = ("tensorflow-cpu", "scikit-learn", "numpy", "pillow")
RESULTS = ("digits/1", "digits/2", "digits-small/1", "digits/heldout.json")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 built or already there, 1 failed with one line on stderr."""
    parser = argparse.ArgumentParser(prog="python -m backends.models.digits", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="directory of the models (default: %(default)s)")
    parser.add_argument("--pictures", type=Path, help="directory of the pictures (default: OUT/../pictures)")
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    options = parser.parse_args(arguments)
    out: Path = options.out
    pictures: Path = options.pictures or out.parent / "pictures"

    try:
        expected = _fingerprint()
    except metadata.PackageNotFoundError as missing:
        return _fail(
            f"{missing.name} is not installed in {sys.prefix}: run '{sys.executable} -m pip install -e .[models]'"
        )
    whole = all((out / result).exists() for result in RESULTS) and pictures.is_dir()
    if not options.force and whole and stamp.matches(out / STAMP, expected):
        print(f"models in {out} are up to date")
        return 0
    started = time.monotonic()
    try:
        with Interrupts() as interrupts:
            _build(out, pictures, expected, interrupts)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            return _fail(f"no space left on the disk of {out} or of {pictures}: free about 10 MB and run it again")
        return _fail(f"cannot write the models: {error}")
    except ValueError as error:
        return _fail(str(error))
    print(f"models written to {out}, pictures to {pictures} in {time.monotonic() - started:.1f} s")
    return 0


def _fingerprint() -> str:
    here = Path(__file__).parent
    sources = [here / f"{name}.py" for name in ("digits", "export", "networks", "training")]
    return stamp.fingerprint(sources, [f"{name}=={metadata.version(name)}" for name in MADE_WITH])


def _build(out: Path, pictures: Path, fingerprint: str, interrupts: Interrupts) -> None:
    """Everything aside, models and pictures each on the file system where they will be, then one rename per result."""
    with (
        interrupts.made(lambda: aside.directory(out / "digits"), aside.remove) as models,
        interrupts.made(lambda: aside.directory(pictures), aside.remove) as drawn,
    ):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same weights on every CPU
        print("loading TensorFlow and scikit-learn ...", flush=True)
        from backends.models import export

        export.digits(models, drawn / "pictures")
        with interrupts.held():
            (out / STAMP).unlink(missing_ok=True)
            for result in RESULTS:
                _publish(models / result, out / result)
            _publish(drawn / "pictures", pictures)
            stamp.write(out / STAMP, fingerprint)


def _publish(built: Path, final: Path) -> None:
    """Put `built` at `final`; what was there goes away only after the new one is whole."""
    final.parent.mkdir(parents=True, exist_ok=True)
    if final.is_dir():
        final.rename(built.with_name(f"{built.name}.old"))
    built.rename(final)


def _fail(reason: str) -> int:
    print(f"backends.models.digits: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
