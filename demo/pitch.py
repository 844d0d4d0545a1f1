"""Which notes are these?  A network with variables from a package, served by go_infer, hears a melody synthesised here.

    python -m demo.pitch [NOTE ...]        # python -m demo.pitch A4 C5 E5

Builds what it needs (`backends.models.pitch`), plays each note as a decaying tone with overtones, as a string would,
asks go_infer, and compares what the network heard with what was played. Exit code 0 if every note is right, else 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from backends.models import pitch
from demo.layout import MODELS
from demo.serving import Served, ServingError

RATE = 22_050  # samples a second
SAMPLES = 43_844  # of one window: two seconds, less a frame
LOWEST = 21  # MIDI number of the network's first key, A0
KEYS = 88
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
OVERTONES = (1.0, 0.5, 0.33, 0.2, 0.1)  # amplitudes of the first five partials
MELODY = ("A4", "C5", "E5", "G3", "C3", "F#4")


def number(note: str) -> int:
    """MIDI number of a note like C4 (60) or F#3; ValueError if it is none of a piano's keys."""
    parts = re.fullmatch(r"([A-G]#?)(\d)", note)
    if parts is None or parts[1] not in NAMES:
        raise ValueError(f"{note!r} is not a note: write C4, F#3 or A0")
    midi = NAMES.index(parts[1]) + 12 * (int(parts[2]) + 1)
    if not LOWEST <= midi < LOWEST + KEYS:
        raise ValueError(f"{note} is not on a piano: A0 to C8 are")
    return midi


def name(midi: int) -> str:
    """The other way round."""
    return f"{NAMES[midi % 12]}{midi // 12 - 1}"


def tone(midi: int) -> Any:
    """float32 [SAMPLES, 1]: the note, struck after a tenth of a second and dying away."""
    frequency = 440.0 * 2 ** ((midi - 69) / 12)
    at = np.arange(SAMPLES) / RATE - 0.1
    wave = sum(
        a * np.sin(2 * np.pi * frequency * n * at) for n, a in enumerate(OVERTONES, 1) if frequency * n < RATE / 2
    )
    played = np.where(at < 0, 0.0, wave * np.exp(-1.5 * np.maximum(at, 0)))
    return (0.5 * played / np.abs(played).max()).astype(np.float32)[:, np.newaxis]


def heard(note: Any) -> tuple[int, float]:
    """The key that sounds most over the frames [frames, 88] of one window, and how much."""
    strength = np.asarray(note, np.float32).mean(axis=0)
    key = int(strength.argmax())
    return LOWEST + key, float(strength[key])


def listen(server: Served, notes: Sequence[int]) -> list[tuple[int, float]]:
    """Every note in a window of its own, all in one request."""
    outputs = server.predict({"input_2": [np.round(tone(midi), 5).tolist() for midi in notes]})
    return [heard(frames) for frames in outputs["note"]]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo.pitch", description=__doc__.partition("\n")[0])
    parser.add_argument("notes", nargs="*", metavar="NOTE", help=f"what to play (default: {' '.join(MELODY)})")
    parser.add_argument("--models", type=Path, default=MODELS, help="directory of the models (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        notes = [number(note) for note in options.notes or MELODY]
    except ValueError as error:
        parser.error(str(error))
    code = pitch.main(["--out", str(options.models)])
    if code:
        return code
    try:
        with Served("pitch", options.models / "pitch", "--max_batch=8") as server:
            answers = listen(server, notes)
    except ServingError as error:
        return _fail(str(error))
    for played, (midi, strength) in zip(notes, answers, strict=True):
        verdict = "right" if midi == played else "WRONG"
        print(f"  played {name(played):<4} heard {name(midi):<4} ({strength:.0%} of the time)  {verdict}")
    wrong = sum(midi != played for played, (midi, _) in zip(notes, answers, strict=True))
    return _fail(f"{wrong} of {len(notes)} notes were heard wrongly") if wrong else 0


def _fail(reason: str) -> int:
    print(f"demo.pitch: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
