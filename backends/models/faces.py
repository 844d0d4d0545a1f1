"""Build the models of a face pipeline, detector and embedding, out of an npm package, and fetch pictures to try it on.

    python -m backends.models.faces [--out build/models]

Models: `blazeface` (a face, its six landmarks) and `faceres` (1,024 numbers that tell faces apart), trained elsewhere
and shipped as TensorFlow.js graph models in npm's `@vladmandic/human` (MIT; its models name their own upstreams:
MediaPipe and HSE_FaceRec_tf).
Pictures: scikit-image's own (PyPI, BSD). Nothing of that is committed; both come at build time.
Writes `OUT/face-detect/1`, `OUT/face-embed/1`: SavedModels that take pixels as they are (uint8 RGB, any number of
pictures at a time), and `OUT/face-pictures/`. What they answer is in `backends/models/vision.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from backends.interrupt import Interrupts
from backends.models import command, packages

HUMAN = packages.Package(
    "npm",
    "@vladmandic/human",
    "3.3.6",
    {
        "package/models/blazeface.json": "cd7bbfc078270572beb39f9e5ae67aadbd50b5e67cff37e6d4f6b3ea39312e5f",
        "package/models/blazeface.bin": "dc9a97fdc50bc43216554bdd69aa3e7b9361a519ee7bdd996a2f69a98a6f9b72",
        "package/models/faceres.json": "5b83d49c0385d2e68a05122441b94226313677cae9fcc40b9587ad50079eb4df",
        "package/models/faceres.bin": "2c7d2d62b76c97528b736527aa09d310ea71743c9e3e79fb6c62d4b2d73af79b",
    },
)
SCIKIT_IMAGE = packages.Package(
    "PyPI",
    "scikit-image",
    "0.26.0",
    {
        "skimage/data/astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        "skimage/data/chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "skimage/data/coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    },
)


def make(directory: Path, interrupts: Interrupts) -> None:
    """Everything into `directory`."""
    fetched, pictures = directory / "fetched", directory / "face-pictures"
    fetched.mkdir()
    pictures.mkdir()
    packages.fetch(HUMAN, fetched, interrupts)
    packages.fetch(SCIKIT_IMAGE, pictures, interrupts)
    print("loading TensorFlow ...", flush=True)
    from backends.models import vision

    vision.detector(fetched / "blazeface.json", directory / "face-detect/1")
    vision.embedding(fetched / "faceres.json", directory / "face-embed/1")


RECIPE = command.Recipe(
    module="backends.models.faces",
    purpose=__doc__.partition("\n")[0],
    results=("face-detect/1", "face-embed/1", "face-pictures"),
    sources=("tfjs", "vision"),
    made_with=("tensorflow-cpu", "numpy"),
    make=make,
)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code, as `command` says."""
    return command.run(RECIPE, arguments)


if __name__ == "__main__":
    sys.exit(main())
