"""What a killed process leaves is cleared away, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway.errors import StartError
from gateway.store.embedded import EmbeddedStore
from gateway.store.private_folder import PrivateFolder

MAKE = "from gateway.store.private_folder import PrivateFolder; print(PrivateFolder('mine-').path, flush=True); input()"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_it_is_gone_once_removed(place: Path) -> None:
    folder = PrivateFolder("mine-")
    assert folder.path.parent == place
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "socket").touch()
    folder.remove()
    folder.remove()
    assert not os.listdir(place)


def test_only_what_a_dead_process_left_is_cleared_away(place: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", MAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    left = Path(owner.stdout.readline().strip())
    (left / "socket").touch()
    unlocked = place / "mine-without-a-lock"
    unlocked.mkdir()
    foreign = place / "theirs-x"
    foreign.mkdir()
    (foreign / "lock").touch()
    (place / "mine-link").symlink_to(foreign)
    (place / "mine-file").touch()
    aside = {"mine-without-a-lock", "theirs-x", "mine-link", "mine-file"}

    first = PrivateFolder("mine-")
    assert set(os.listdir(place)) == aside | {left.name, first.path.name}
    owner.kill()
    owner.communicate()
    second = PrivateFolder("mine-")
    assert set(os.listdir(place)) == aside | {first.path.name, second.path.name}
    assert (foreign / "lock").exists()
    first.remove()
    second.remove()


def test_one_of_another_user_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = place / "mine-other"
    other.mkdir()
    (other / "lock").touch()
    ours = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: ours + 1)
    with pytest.raises(PermissionError):
        PrivateFolder("mine-")  # not even its own is
    assert os.listdir(place) == ["mine-other"]


def test_a_place_too_deep_for_a_socket_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = place / ("d" * 100)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with pytest.raises(StartError, match="is longer than the 107 bytes allowed; set TMPDIR"):
        EmbeddedStore()
    assert not os.listdir(deep)
