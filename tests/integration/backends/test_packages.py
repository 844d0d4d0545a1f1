"""Files out of packages: what comes is what is written down, or nothing is kept."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from backends.interrupt import Interrupts
from backends.models import packages

CONTENT = b"weights"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """An `npm` on PATH that does `script` in the directory where the archive is to be."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def tarball(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("package/model.bin")
        member.size = len(CONTENT)
        archive.addfile(member, io.BytesIO(CONTENT))
    return path


def fetch(tmp_path: Path, members: dict[str, str]) -> dict[str, Path]:
    place = tmp_path / "place"
    place.mkdir()
    package = packages.Package("npm", "some-model", "1.0.0", members)
    with Interrupts() as interrupts:
        return packages.fetch(package, place, interrupts)


def test_members_come_out_by_name_and_the_archive_is_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client(monkeypatch, tmp_path, f"cp {tarball(tmp_path / 'it.tgz')} .")
    found = fetch(tmp_path, {"package/model.bin": DIGEST})
    assert found["model.bin"].read_bytes() == CONTENT
    assert sorted(path.name for path in (tmp_path / "place").iterdir()) == ["model.bin"]


def test_a_changed_file_is_refused_before_it_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client(monkeypatch, tmp_path, f"cp {tarball(tmp_path / 'it.tgz')} .")
    with pytest.raises(packages.Refused, match=rf"model.bin has SHA-256 {DIGEST} instead of 00"):
        fetch(tmp_path, {"package/model.bin": "00"})
    assert list((tmp_path / "place").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "error", "text"),
    [
        ("echo 'npm error code EAI_AGAIN'; exit 1", packages.Unreachable, "EAI_AGAIN"),
        ("echo 'npm error 404 Not Found'; exit 1", packages.Refused, "cannot be fetched: npm error 404 Not Found"),
        ("exit 3", packages.Refused, "exit code 3"),
        ("exit 0", packages.Refused, "0 files came instead of one archive"),
        ("echo half > it.tgz", packages.Refused, "is not a whole archive"),
    ],
)
def test_what_went_wrong_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, error: type[Exception], text: str
) -> None:
    client(monkeypatch, tmp_path, script)
    with pytest.raises(error, match=text):
        fetch(tmp_path, {"package/model.bin": DIGEST})


def test_a_registry_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client(monkeypatch, tmp_path, "exec sleep 60")
    monkeypatch.setattr(packages, "TIMEOUT", 0.2)
    with pytest.raises(packages.Unreachable, match=r"has not come within 0\.2 s"):
        fetch(tmp_path, {"package/model.bin": DIGEST})


def test_without_npm_the_text_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(packages.Refused, match="needs npm: install"):
        fetch(tmp_path, {"package/model.bin": DIGEST})


def test_a_file_too_large_or_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some/model.bin", CONTENT)
    package = packages.Package("PyPI", "some", "1.0.0", {})
    monkeypatch.setattr(packages, "LARGEST", len(CONTENT) - 1)
    with pytest.raises(packages.Refused, match=r"some/model.bin has 7 bytes; at most 6 are taken"):
        packages._read(wheel, "some/model.bin")
    with pytest.raises(packages.Refused, match=r"has no some/other\.bin"):
        packages._take(package, wheel, "some/other.bin", tmp_path)


def test_the_command_leaves_what_was_there_when_the_registry_is_away(tmp_path: Path) -> None:
    out = tmp_path / "models"
    (out / "pitch/1").mkdir(parents=True)
    (out / "pitch/1/kept").write_text("old")
    command = [sys.executable, "-m", "backends.models.pitch", "--out", str(out)]
    away = {**os.environ, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1", "PIP_FIND_LINKS": "",
            "PIP_NO_CACHE_DIR": "1"}  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=away, timeout=60)
    assert done.returncode == 69, done.stderr
    assert "the package registry cannot be reached; nothing was changed" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["pitch"]
    assert (out / "pitch/1/kept").read_text() == "old"
