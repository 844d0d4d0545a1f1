"""Fetch a SavedModel with variables that others have trained: basic-pitch, which hears the notes in audio.

    python -m backends.models.pitch [--out build/models]

Source: PyPI's `basic-pitch` (Spotify, Apache-2.0), whose wheel ships the network of Bittner et al. 2022, "A lightweight
instrument-agnostic model for polyphonic note transcription and multipitch estimation". It is copied as it is.
Writes `OUT/pitch/1`: audio float [n, 43844, 1] (22,050 Hz, two seconds, -1..1) -> for each of 172 frames how much each
of the 88 keys sounds (`note`, `onset`), and a finer contour. What `demo.pitch` does with it shows how to read that.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from backends.interrupt import Interrupts
from backends.models import command, packages

_PLACE = "basic_pitch/saved_models/icassp_2022/nmp"
BASIC_PITCH = packages.Package(
    "PyPI",
    "basic-pitch",
    "0.4.0",
    {
        f"{_PLACE}/saved_model.pb": "eaa25c91c431c91100c416a2c018663f4c635f28fa19529c4ff5e14c18aa29c9",
        f"{_PLACE}/variables/variables.index": "356aa1a00095cf2dba17386144e8b289cb04195ae090aa7f324312b08220115e",
        f"{_PLACE}/variables/variables.data-00000-of-00001": (
            "f5d12cd7245fecea0c956c963751f3519c263615ea954b5948d5e8c9c3376f9b"
        ),
    },
)


def make(directory: Path, interrupts: Interrupts) -> None:
    """The version directory, with a word about itself beside what came."""
    fetched, version = directory / "fetched", directory / "pitch/1"
    for folder in (fetched, version / "variables", version / "assets.extra"):
        folder.mkdir(parents=True)
    packages.fetch(BASIC_PITCH, fetched, interrupts)
    for member in BASIC_PITCH.members:
        shutil.move(fetched / Path(member).name, version / Path(member).relative_to(_PLACE))
    declaration = {"description": "notes in two seconds of audio (basic-pitch)", "signature": "serving_default"}
    (version / "assets.extra/sluicegate.json").write_text(json.dumps(declaration, indent=2) + "\n")


RECIPE = command.Recipe(
    module="backends.models.pitch",
    purpose=__doc__.partition("\n")[0],
    results=("pitch/1",),
    sources=(),
    made_with=(),
    make=make,
)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code, as `command` says."""
    return command.run(RECIPE, arguments)


if __name__ == "__main__":
    sys.exit(main())
