"""Whose face is it?  Detect, crop, embed and match, with both networks served by go_infer.

    python -m demo.faces [PICTURE ...]

Builds what it needs (`backends.models.faces`), then takes every picture through the pipeline: the detector finds faces
and their eyes, each face is turned upright and cropped, the embedding network makes 1,024 numbers of it, and the cosine
of two such rows says how alike they are. Without arguments it does so with scikit-image's astronaut, as she is and
mirrored, darkened, turned and small, against a cat and a cup of coffee, and holds it to what must come out.

Exit code 0, or 1 with one line on stderr if the pictures do not come out as they must or something cannot run.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps, UnidentifiedImageError

from backends.models import faces
from demo.layout import MODELS
from demo.serving import Served, ServingError

DETECTOR_SIDE, EMBEDDING_SIDE = 256, 224  # pixels, as the signatures say
CONFIDENCE = 0.75  # from which a face is believed; the cat is taken for one, the cup is not
MARGIN = 1.4  # of the detector's box: it ends at the eyebrows, a face does not
SAME, OTHER = 0.8, 0.4  # cosine: crops of one face are above, a face and a cat below
RIGHT_EYE, LEFT_EYE = 0, 1

Picture = Image.Image


@dataclass(frozen=True)
class Face:
    """In pixels of the picture it is in."""

    score: float
    box: tuple[float, float, float, float]  # left, top, right, bottom
    eyes: tuple[tuple[float, float], tuple[float, float]]  # the person's right one, the left one

    def __str__(self) -> str:
        left, top, right, bottom = self.box
        return f"{self.score:.0%} sure, {right - left:.0f} x {bottom - top:.0f} pixels at ({left:.0f}, {top:.0f})"


class Pipeline:
    """Detector and embedding, both asked over HTTP."""

    def __init__(self, detector: Served, embedding: Served) -> None:
        self.detector = detector
        self.embedding = embedding

    def detect(self, picture: Picture) -> list[Face]:
        """Faces, most certain first. The picture is padded to a square, as the detector wants it."""
        side = max(picture.size)
        left, top = (side - picture.width) // 2, (side - picture.height) // 2
        square = Image.new("RGB", (side, side))
        square.paste(picture, (left, top))
        answer = self.detector.predict({"image": [_pixels(square, DETECTOR_SIDE)]})
        scale = side / DETECTOR_SIDE
        found = []
        for score, box, marks in zip(answer["scores"][0], answer["boxes"][0], answer["landmarks"][0], strict=True):
            if score < CONFIDENCE:
                continue
            x0, y0, x1, y1 = (v * scale - (top if i % 2 else left) for i, v in enumerate(box))
            (rx, ry), (lx, ly) = ((x * scale - left, y * scale - top) for x, y in marks[:2])
            found.append(Face(score, (x0, y0, x1, y1), ((rx, ry), (lx, ly))))
        return found

    def embed(self, crops: Sequence[Picture]) -> Any:
        """One row of length 1 for each crop, all in one request."""
        pixels = [_pixels(crop, EMBEDDING_SIDE) for crop in crops]
        (rows,) = self.embedding.predict({"image": pixels}).values()
        return np.asarray(rows, np.float32)


def crop(picture: Picture, face: Face) -> Picture:
    """The face upright (its eyes level), square, with a margin."""
    (rx, ry), (lx, ly) = face.eyes
    left, top, right, bottom = face.box
    centre = ((left + right) / 2, (top + bottom) / 2)
    upright = picture.rotate(math.degrees(math.atan2(ly - ry, lx - rx)), Image.Resampling.BILINEAR, center=centre)
    half = max(right - left, bottom - top) * MARGIN / 2
    box = (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half)
    return upright.crop(tuple(round(edge) for edge in box))  # type: ignore[arg-type]


def middle(picture: Picture) -> Picture:
    """What stands for the face in a picture that has none."""
    return ImageOps.fit(picture, (EMBEDDING_SIDE, EMBEDDING_SIDE))


def _pixels(picture: Picture, side: int) -> list[Any]:
    pixels: list[Any] = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), np.uint8).tolist()
    return pixels


def variants(picture: Picture) -> dict[str, Picture]:
    """The same face as other cameras might have it."""
    small = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)
    return {
        "as it is": picture,
        "mirrored": ImageOps.mirror(picture),
        "darker": ImageEnhance.Brightness(picture).enhance(0.6),
        "turned by 12 degrees": picture.rotate(12, Image.Resampling.BILINEAR),
        "half the size": small,
    }


def show(pipeline: Pipeline, pictures: dict[str, Picture]) -> tuple[list[str], Any, list[bool]]:
    """Run all pictures, print each, and return names, embeddings, and whether a face was found."""
    names, crops, found = [], [], []
    for name, picture in pictures.items():
        started = time.perf_counter()
        detected = pipeline.detect(picture)
        took = (time.perf_counter() - started) * 1e3
        print(f"  {name:<24} {detected[0] if detected else 'no face'} ({took:.0f} ms)")
        names.append(name)
        found.append(bool(detected))
        crops.append(crop(picture, detected[0]) if detected else middle(picture))
    started = time.perf_counter()
    embeddings = pipeline.embed(crops)
    print(f"  {len(crops)} crops embedded in one request: {(time.perf_counter() - started) * 1e3:.0f} ms\n")
    width = max(map(len, names))
    print(" " * (width + 4) + "  ".join(f"{number:>4}" for number in range(1, len(names) + 1)))
    for number, (name, row) in enumerate(zip(names, embeddings @ embeddings.T, strict=True), 1):
        print(f"{number} {name:<{width}}  " + "  ".join(f"{cosine:4.2f}" for cosine in row))
    return names, embeddings, found


def judge(same: Any, others: Any, found: Sequence[bool]) -> list[str]:
    """What did not come out as it must: empty if all did."""
    wrong = []
    if not all(found):
        wrong.append("no face was found in a picture of the astronaut")
    cosines = same @ same.T
    if cosines.min() <= SAME:
        wrong.append(f"two crops of one face have a cosine of {cosines.min():.2f}, not above {SAME}")
    if (same @ others.T).max() >= OTHER:
        wrong.append(f"a face and something else have a cosine of {(same @ others.T).max():.2f}, not below {OTHER}")
    return wrong


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.faces", description=__doc__.partition("\n")[0])
    parser.add_argument("pictures", nargs="*", type=Path, help="pictures to compare instead of the shipped ones")
    parser.add_argument("--models", type=Path, default=MODELS, help="directory of the models (default: %(default)s)")
    options = parser.parse_args(arguments)
    code = faces.main(["--out", str(options.models)])
    if code:
        return code
    shipped = options.models / "face-pictures"
    try:
        if options.pictures:
            pictures = {path.name: _open(path) for path in options.pictures}
        else:
            pictures = variants(_open(shipped / "astronaut.png"))
        with (
            Served("face-detect", options.models / "face-detect", "--max_batch=4") as detector,
            Served("face-embed", options.models / "face-embed", "--max_batch=8") as embedding,
        ):
            pipeline = Pipeline(detector, embedding)
            if options.pictures:
                show(pipeline, pictures)
                return 0
            same = len(pictures)
            pictures |= {"a cat": _open(shipped / "chelsea.png"), "a cup of coffee": _open(shipped / "coffee.png")}
            _, rows, found = show(pipeline, pictures)
    except (ServingError, UnidentifiedImageError, OSError) as error:
        return _fail(str(error))
    wrong = judge(rows[:same], rows[same:], found[:same])
    if wrong:
        return _fail("; ".join(wrong))
    print(f"\nthe same face in every picture (cosine > {SAME}), and neither cat nor cup is she (< {OTHER})")
    return 0


def _open(path: Path) -> Picture:
    with Image.open(path) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def _fail(reason: str) -> int:
    print(f"demo.faces: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
