#!/usr/bin/env python3
"""Makes `.venv` and installs what a make target needs. Standard library only, any Python >= 3.11.

    python3 scripts/bootstrap.py [EXTRA ...]      extras of pyproject.toml: models, dev, bench, toolchain

Does nothing (in about 50 ms) when everything asked for is there. What goes wrong is one clear line and exit status 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed.json"
NEEDED_BYTES = {"models": 3_500_000_000, "bench": 1_000_000_000, "dev": 300_000_000, "toolchain": 700_000_000}
OLDEST = (3, 11)


class SetupError(Exception):
    """One line for the user."""


def wanted_state(extras: set[str]) -> dict[str, object]:
    """What the stamp must say for these extras to count as installed."""
    files = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        files.update((ROOT / name).read_bytes())
    return {"files": files.hexdigest(), "python": sys.version, "root": str(ROOT), "extras": sorted(extras)}


def installed_extras() -> set[str]:
    """Extras that are there already, for exactly these files and this Python."""
    try:
        state = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return set()
    same = {key: state.get(key) for key in ("files", "python", "root")}
    now = wanted_state(set())
    return set(state.get("extras", ())) | {""} if all(same[key] == now[key] for key in same) else set()


def check_disk(extras: set[str]) -> None:
    needed = 300_000_000 + sum(NEEDED_BYTES.get(extra, 0) for extra in extras)
    free = shutil.disk_usage(ROOT).free
    if free < needed:
        raise SetupError(f"not enough disk: {needed / 1e9:.1f} GB are needed in {ROOT}, {free / 1e9:.1f} GB are free")


def make_venv() -> None:
    if (VENV / "bin" / "python").exists():
        probe = subprocess.run([VENV / "bin" / "python", "-m", "pip", "--version"], capture_output=True, check=False)
        if probe.returncode == 0:
            return
        shutil.rmtree(VENV)
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if made.returncode and "ensurepip" in made.stdout + made.stderr:
        shutil.rmtree(VENV, ignore_errors=True)
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise SetupError(
                f"this Python cannot make virtual environments; install it: sudo apt-get install {package}"
            )
        say(f"installing {package} (Debian)")
        run_quietly(["apt-get", "update"], "apt-get update")
        run_quietly(["apt-get", "install", "-y", "--no-install-recommends", package], f"apt-get install {package}")
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        lines = (made.stderr or made.stdout).strip().splitlines()
        raise SetupError(f"cannot make {VENV}: {lines[-1] if lines else 'python -m venv failed'}")


def install(extras: set[str]) -> None:
    names = ",".join(sorted(extras - {""}))
    what = f".[{names}]" if names else "."
    say(f"installing packages {f'({names})' if names else ''}: about a minute the first time")
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    run_quietly([*command, "-c", "constraints.txt", "-e", what], "pip install")


def run_quietly(command: list[str], name: str) -> None:
    """Runs a long command: its last line and the time on a terminal, else a line every 15 s; its output on failure."""
    began = time.monotonic()
    tty = sys.stderr.isatty()
    tail: list[str] = []
    told = began
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail = [*tail[-60:], line.rstrip()]
            now = time.monotonic()
            if tty:
                sys.stderr.write(f"\r\x1b[K  {now - began:4.0f} s  {line.strip()[:90]}")
                sys.stderr.flush()
            elif now - told > 15:
                told = now
                say(f"  {now - began:.0f} s: {line.strip()[:90]}")
    if tty:
        sys.stderr.write("\r\x1b[K")
    if process.returncode:
        sys.stderr.write("\n".join(tail) + "\n")
        full = any("No space left" in line for line in tail)
        raise SetupError(
            "the disk is full; free some space and run this again" if full else f"{name} failed; its output is above"
        )
    say(f"  done in {time.monotonic() - began:.0f} s")


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


def main() -> int:
    asked = set(sys.argv[1:])
    try:
        if sys.version_info < OLDEST:
            raise SetupError(f"Python >= 3.11 is needed, this is {sys.version.split()[0]} ({sys.executable})")
        have = installed_extras()
        if "" in have and asked <= have:
            return 0
        extras = asked | (have - {""})
        check_disk(asked - have)
        make_venv()
        install(extras)
        STAMP.write_text(json.dumps(wanted_state(extras)))
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"setup: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
