"""Make smaller or faster variants of a SavedModel, compare them on held-out data, and publish one if it is as good.

    python -m backends.models.optimize build/models/digits/2 --data build/models/digits/heldout.json
    python -m backends.models.optimize build/models/digits/2 --data ... --publish int8 --max-loss 0.005

Variants: `float16` and `int8` (weights, computed with in float32), `bfloat16` (weights and computation), `int8-matmul`
(int8 weights, large matrix products computed in int8), `onnx` (a file for ONNX Runtime). Each is written, loaded again
as go_infer loads it, and measured beside the original: accuracy on the held-out rows, bytes, latency of one row,
throughput of many. Nothing is left but what was asked for; a variant that loses more accuracy than --max-loss is not
published. A new version has the one signature. One whose products are quantised by the range of their Run declares
`"batching": true` if the original's rows are independent: go_infer would find its answers to differ in company.
Without labels, the loss is how much its answers turn away from the original's (1 - cosine).

Exit codes: 0 done, 1 not published or failed (one line on stderr says why), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends import aside
from backends.interrupt import Interrupts
from backends.models import publication

if TYPE_CHECKING:
    from backends.models.comparison import Figures, Runner
    from backends.models.frozen import Frozen
    from backends.models.heldout import HeldOut

ORIGINAL, BEST = "original", "best"
SAVED = ("float16", "bfloat16", "int8", "int8-matmul")  # SavedModels, which can be published
ALL = (*SAVED, "onnx")
BY_RANGE = ("int8-matmul",)  # whose answers depend a little on the rows that share their Run
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
AS_FAST = 0.95  # of the best throughput: from there on, the smaller one is the better one


@dataclass
class Made:
    """What was built: name -> (runner, bytes), where the SavedModels lie, and why some could not be made."""

    runners: dict[str, tuple[Runner, int]]
    places: dict[str, Path]
    failed: dict[str, str]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m backends.models.optimize", description=__doc__.partition("\n")[0])
    parser.add_argument("version", type=Path, help="directory of the version, build/models/digits/2 for instance")
    parser.add_argument(
        "--data", type=Path, required=True, help="held-out rows: JSON with instances (and labels), or .npz"
    )
    parser.add_argument("--signature", default="serving_default", help="(default: %(default)s)")
    parser.add_argument("--variants", default=",".join(ALL), help="comma separated (default: %(default)s)")
    parser.add_argument("--max-loss", type=float, default=0.005, help="of accuracy, 0..1 (default: %(default)s)")
    parser.add_argument(
        "--publish", choices=(*SAVED, BEST), help="which one becomes a new version, if within --max-loss"
    )
    parser.add_argument("--to", type=Path, help="directory of versions to publish in (default: the version's own)")
    parser.add_argument("--number", type=int, help="of the new version (default: one above the highest)")
    parser.add_argument("--onnx", type=Path, help="keep the ONNX export here")
    parser.add_argument("--report", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--batch", type=int, default=32, help="rows of a run for throughput (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each round of a variant (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.variants = [name for name in options.variants.split(",") if name]
    unknown = sorted(set(options.variants) - set(ALL))
    if unknown:
        parser.error(f"unknown variants {', '.join(unknown)}; there are {', '.join(ALL)}")
    for name, value, least, most in (
        ("--max-loss", options.max_loss, 0, 1),
        ("--batch", options.batch, 1, 4096),
        ("--seconds", options.seconds, 0.01, 60),
        ("--number", 1 if options.number is None else options.number, 1, 2**63 - 1),
    ):
        if not least <= value <= most:
            parser.error(f"{name} is {value}; it must be {least}..{most}")
    if options.publish in SAVED and options.publish not in options.variants:
        parser.error(f"--publish {options.publish} is not among --variants")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with Interrupts() as interrupts:
            return _optimize(options, interrupts)
    except (ValueError, OSError) as error:
        return _fail(_why(error))


def _optimize(options: argparse.Namespace, interrupts: Interrupts) -> int:
    version: Path = options.version
    for needed in (version / "saved_model.pb", options.data):
        if not needed.exists():
            return _fail(f"{needed} does not exist")
    print("loading TensorFlow ...", flush=True)
    with _quiet():
        import tensorflow as tf

        tf.get_logger().setLevel("ERROR")
        from backends.models import comparison, frozen, heldout
    with interrupts.made(lambda: Path(tempfile.mkdtemp(prefix="optimize-")), aside.remove) as scratch:
        model = frozen.freeze(version, options.signature)
        data = heldout.read(options.data, model.inputs)
        declared: Mapping[str, str] = publication.declaration(version).get("outputs", {})
        made = _make(model, options, scratch)
        figures = comparison.compare(made.runners, data, declared, options.batch, options.seconds)
        _show(figures, made.failed, options.max_loss, data.labels is not None)
        if options.report:
            _write(options.report, _report(figures, made.failed, options, len(data)), interrupts)
        if options.onnx:
            if "onnx" not in figures:
                return _fail(f"no ONNX export: {made.failed.get('onnx', 'onnx is not among --variants')}")
            with interrupts.made(lambda: aside.file(options.onnx), aside.remove) as unfinished:
                unfinished.write_bytes((scratch / "model.onnx").read_bytes())
                unfinished.replace(options.onnx)
            print(f"written: {options.onnx}")
        return _publish(figures, made, options, data, interrupts) if options.publish else 0


def _make(model: Frozen, options: argparse.Namespace, scratch: Path) -> Made:
    """Write and load every variant."""
    from backends.models import comparison, onnx_export, precision

    first = comparison.SavedModel(options.version, options.signature)
    made = Made({ORIGINAL: (first, _size(options.version))}, {}, {})
    for name in options.variants:
        print(f"making {name} ...", flush=True)
        try:
            if name == "onnx":
                file = scratch / "model.onnx"
                with _quiet():
                    names = onnx_export.export(model, file)
                made.runners[name] = comparison.Onnx(file, *names), file.stat().st_size
                continue
            place = scratch / name
            precision.VARIANTS[name](model).save(place)
            made.runners[name] = comparison.SavedModel(place, options.signature), _size(place)
            made.places[name] = place
        except (ValueError, onnx_export.Missing) as error:
            made.failed[name] = str(error).partition("\n")[0]
    return made


def _size(directory: Path) -> int:
    """Bytes of what TensorFlow reads: not of what a version says about itself."""
    files = [directory / "saved_model.pb", *(directory / "variables").glob("*"), *(directory / "assets").glob("*")]
    return sum(file.stat().st_size for file in files)


def _show(figures: Mapping[str, Figures], failed: Mapping[str, str], most: float, labelled: bool) -> None:
    print(f"\n{'':<12}{'accuracy':>10}{'loss':>9}{'agreement':>11}{'kB':>9}{'p50 ms':>9}{'p99 ms':>9}{'rows/s':>10}")
    for name, f in figures.items():
        accuracy = f"{f.accuracy:.2%}" if f.accuracy is not None else "-"
        speed = f"{f.p50:>9.3f}{f.p99:>9.3f}{f.rate:>10,.0f}"
        verdict = "" if name == ORIGINAL else "  within" if f.loss <= most else "  TOO MUCH LOST"
        print(f"{name:<12}{accuracy:>10}{f.loss:>9.2%}{f.agreement:>11.5f}{f.size / 1e3:>9.0f}{speed}{verdict}")
    for name, reason in failed.items():
        print(f"{name:<12} not made: {reason}")
    what = "accuracy on held-out labels" if labelled else "agreement with the original: there are no labels"
    print(f"loss is of {what}; at most {most:.2%}\n")


def _report(
    figures: Mapping[str, Figures], failed: Mapping[str, str], options: argparse.Namespace, rows: int
) -> dict[str, Any]:
    return {
        "version": str(options.version),
        "rows": rows,
        "batch": options.batch,
        "max_loss": options.max_loss,
        "variants": {name: f.as_json() for name, f in figures.items()},
        "not_made": dict(failed),
    }


def _write(file: Path, report: dict[str, Any], interrupts: Interrupts) -> None:
    with interrupts.made(lambda: aside.file(file), aside.remove) as unfinished:
        unfinished.write_text(json.dumps(report, indent=2) + "\n")
        unfinished.replace(file)


def _publish(
    figures: Mapping[str, Figures], made: Made, options: argparse.Namespace, data: HeldOut, interrupts: Interrupts
) -> int:
    from backends.models.independence import independent

    within = {name: f for name, f in figures.items() if name in made.places and f.loss <= options.max_loss}
    name = options.publish
    if name == BEST:
        if not within:
            return _fail(f"no variant loses at most {options.max_loss:.2%}; nothing was published")
        fastest = max(f.rate for f in within.values())
        name = min((n for n, f in within.items() if f.rate >= AS_FAST * fastest), key=lambda n: within[n].size)
    if name in made.failed:
        return _fail(f"{name} could not be made: {made.failed[name]}; nothing was published")
    if name not in within:
        lost = figures[name].loss
        return _fail(f"{name} loses {lost:.2%}, more than --max-loss {options.max_loss:.2%}; nothing was published")
    base: Path = options.to or options.version.absolute().parent
    base.mkdir(parents=True, exist_ok=True)
    chosen = figures[name]
    done = {"variant": name, "of": options.version.name, "loss": round(chosen.loss, 6), "agreement": chosen.agreement}

    shared = name in BY_RANGE and independent(made.runners[ORIGINAL][0], data)

    def build(directory: Path) -> None:
        shutil.copytree(made.places[name], directory)
        publication.describe(
            options.version, directory, options.signature, done, chosen.accuracy, len(data), batching=shared
        )

    number = options.number or publication.next_version(base)
    final = publication.publish(build, base, number, interrupts)
    print(f"published {name} as {final} ({chosen.size / 1e3:.0f} kB, loss {chosen.loss:.2%}; {publication.MANIFEST})")
    return 0


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What libraries print while they load says nothing about the model."""
    sys.stderr.flush()
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _why(error: Exception) -> str:
    """One line; of a copy that failed in several places, the first."""
    text = str(error)
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        _, place, reason = error.args[0][0]
        text = f"{place}: {reason}"
    if any(os.strerror(number) in text for number in FULL):
        text += "; make room, or choose another disk: --to for what is published, TMPDIR for what is tried"
    return " ".join(text.split())


def _fail(reason: str) -> int:
    print(f"backends.models.optimize: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
