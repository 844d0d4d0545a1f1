"""The examples of real models: built out of packages, served by go_infer, asked over HTTP."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.models.command import UNAVAILABLE
from demo.layout import ROOT

MINUTES = 240  # seconds at most for a command; 20 without a cold cache of packages


def run(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Skips the test if the command says that no registry can be reached, and for no other reason."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MINUTES)
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    return done


def test_one_face_is_known_again_and_a_cat_is_not_her() -> None:
    done = run("demo.faces")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the same face in every picture" in done.stdout
    rows = [line.split()[-7:] for line in done.stdout.splitlines() if line[:1].isdigit()]
    cosines = [[float(cell) for cell in row] for row in rows]
    assert len(cosines) == 7
    assert min(min(row[:5]) for row in cosines[:5]) > 0.8
    assert max(max(row[5:]) for row in cosines[:5]) < 0.4


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "note.png").write_text("not a picture")
    done = run("demo.faces", tmp_path / "note.png")
    assert done.returncode == 1
    assert "note.png" in done.stderr


def test_every_note_is_heard_as_played() -> None:
    done = run("demo.pitch", "A4", "F#4", "C3")
    assert done.returncode == 0, done.stdout + done.stderr
    heard = [line.split()[3] for line in done.stdout.splitlines() if "heard" in line]
    assert heard == ["A4", "F#4", "C3"]


def test_a_note_that_is_none_is_refused() -> None:
    done = run("demo.pitch", "H4")
    assert done.returncode == 2
    assert "'H4' is not a note: write C4, F#3 or A0" in done.stderr


def test_models_that_are_there_are_not_fetched_again() -> None:
    run("backends.models.pitch")
    without = {**os.environ, "PATH": "/nonexistent", "PIP_NO_INDEX": "1"}
    command = [sys.executable, "-m", "backends.models.pitch"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MINUTES, env=without)
    assert (done.returncode, done.stderr) == (0, "")
    assert "up to date" in done.stdout
