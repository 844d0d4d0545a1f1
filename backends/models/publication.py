"""A version directory is published: whole, described, and by one rename.

Contract: `publish(build, base, number)` calls `build(directory)` on a directory beside the final one that no server
takes for a version, adds `manifest.sha256`, and renames it to `base/number`; on any failure nothing is left.
FileExistsError if that version is there. `describe` copies what the original says about itself (assets.extra) and
adds what was done to it.
Format: `manifest.sha256` as `sha256sum` writes it; go_infer refuses a version whose files are not those it lists.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from backends import aside
from backends.interrupt import Interrupts

MANIFEST = "manifest.sha256"
DECLARATION = "assets.extra/sluicegate.json"


def next_version(base: Path) -> int:
    """One above the highest in `base`."""
    return 1 + max((int(path.name) for path in base.iterdir() if path.name.isdecimal()), default=0)


def publish(build: Callable[[Path], None], base: Path, number: int, interrupts: Interrupts) -> Path:
    """The directory of the new version."""
    final = base / str(number)
    if final.exists():
        raise FileExistsError(f"{final} exists; versions are not replaced: choose another number with --number")
    with interrupts.made(lambda: aside.directory(final), aside.remove) as unfinished:
        unfinished.rmdir()  # TensorFlow makes it
        build(unfinished)
        manifest(unfinished)
        for path in (*unfinished.rglob("*"), unfinished):
            _sync(path)
        with interrupts.held():
            unfinished.rename(final)  # fails if another process was quicker: a version is not empty
            _sync(base)
    return final


def manifest(directory: Path) -> None:
    """Write the digests of every file below `directory`."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(directory)}\n" for path in files]
    (directory / MANIFEST).write_text("".join(lines))


def declaration(version: Path) -> dict[str, Any]:
    """What a version says about itself; empty if it says nothing. ValueError if that is not JSON."""
    try:
        said: dict[str, Any] = json.loads((version / DECLARATION).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{version / DECLARATION}: {error}") from error
    return said


def describe(
    original: Path,
    directory: Path,
    signature: str,
    optimized: Mapping[str, Any],
    accuracy: float | None,
    rows: int,
    *,
    batching: bool = False,
) -> None:
    """assets.extra of the new version: the original's files, and its declaration with what was done.

    What the original declares of another signature does not hold for this one and is left out. `batching` declares that
    requests may share a Run, unless the original says something of that itself.
    """
    extra = directory / "assets.extra"
    if (original / "assets.extra").is_dir():
        shutil.copytree(original / "assets.extra", extra)
    extra.mkdir(exist_ok=True)
    declared = declaration(original)
    if declared.get("signature", signature) != signature:
        declared = {"description": declared.get("description", "")}
    said = {**declared, "signature": signature, "optimized": dict(optimized)}
    if batching:
        said.setdefault("batching", True)
    if accuracy is not None:
        said["heldout"] = {"accuracy": round(accuracy, 6), "examples": rows}
    (directory / DECLARATION).write_text(json.dumps(said, indent=2) + "\n")


def _sync(path: Path) -> None:
    """A crash after the rename must not show an empty file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
