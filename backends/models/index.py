"""`python -m backends.models.index DIRECTORY`: write the index of a model repository.

Contract: `index(directory)` is what go_infer's `internal/remote` reads: every file of every version directory (a whole
number) with its size and SHA-256. The command writes it to `DIRECTORY/index.json` by a rename, so that nobody reads
half of one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

FILE = "index.json"


def index(directory: Path) -> dict[str, Any]:
    """Raises OSError, and ValueError if there is no version or a version has links in it."""
    versions = {
        place.name: {"files": [_file(place, path) for path in sorted(place.rglob("*")) if not path.is_dir()]}
        for place in sorted(directory.iterdir())
        if place.name.isascii() and place.name.isdigit() and place.is_dir()
    }
    if not versions:
        raise ValueError(f"{directory} has no version directory (a whole number)")
    return {"versions": versions}


def _file(place: Path, path: Path) -> dict[str, Any]:
    if path.is_symlink() or not path.is_file():
        raise ValueError(f"{path} is a link or no file; a repository has files only")
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"path": path.relative_to(place).as_posix(), "size": path.stat().st_size, "sha256": digest}


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m backends.models.index", description="Write the index of a model repository."
    )
    parser.add_argument("directory", type=Path, help="what has the version directories 1, 2, ... in it")
    directory: Path = parser.parse_args(arguments).directory
    try:
        text = json.dumps(index(directory), indent=1) + "\n"
        unfinished = directory / f".{FILE}"
        unfinished.write_text(text)
        unfinished.replace(directory / FILE)
    except (OSError, ValueError) as error:
        print(f"backends.models.index: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
