"""`python -m backends.models.digits` when it is told to stop, or when the disk is full: what was there stays, no more."""

from __future__ import annotations

import pytest

from backends import toolchain

from .conftest import files

DIGITS = "backends.models.digits"


@pytest.fixture(autouse=True)
def _tensorflow():
    try:
        toolchain.wheel()
    except toolchain.Missing as missing:
        pytest.skip(str(missing))


def test_ctrl_c_while_tensorflow_is_imported(command, tmp_path):
    digits = command(DIGITS, "--out", str(tmp_path / "models"))
    digits.read_until("loading TensorFlow")
    digits.interrupt()
    ended = digits.end()
    assert (ended.status, ended.err) == (130, "")
    assert not digits.left()
    assert files(tmp_path) == []


# Both in one process, for importing TensorFlow takes seconds.
TWICE = """
import dataclasses, sys
from backends.models import digits, export
full, empty = sys.argv[1:]
recipes, export.RECIPES = export.RECIPES, [dataclasses.replace(recipe, epochs=0, floor=0) for recipe in export.RECIPES]
assert digits.main(["--out", full]) == 1
export.RECIPES = recipes
sys.exit(digits.main(["--out", empty]))
"""


def test_a_full_disk_and_ctrl_c_during_training(command, disk, tmp_path):
    (tmp_path / "twice.py").write_text(TWICE)
    before = tmp_path / "empty/models/digits/1/saved_model.pb"
    before.parent.mkdir(parents=True)
    before.write_text("the one before")
    full = disk("size=32k")
    digits = command("twice", str(full / "models"), str(tmp_path / "empty/models"), PYTHONPATH=str(tmp_path))
    digits.read_until("regression) 5/20")
    digits.interrupt()
    ended = digits.end()
    assert ended.status == 130
    assert ended.last_words == (
        f"{DIGITS}: no space left on the disk of {full}/models or of {full}/pictures: free about 10 MB and run it again"
    )
    assert files(full) == []
    assert not digits.left()
    assert files(tmp_path / "empty") == ["models/digits/1/saved_model.pb"]


def test_a_directory_that_cannot_be_written(command, disk):
    place = disk("size=64k,ro")
    ended = command(DIGITS, "--out", str(place / "models")).end()
    assert ended.status == 1
    assert ended.out == ""
    assert ended.last_words == f"{DIGITS}: cannot write the models: [Errno 30] Read-only file system: '{place}/models'"
