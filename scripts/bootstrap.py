#!/usr/bin/env python3
"""Makes `.venv` and installs what a make target needs. Standard library only, any Python >= 3.11.

    python3 scripts/bootstrap.py [EXTRA ...]      extras of pyproject.toml: build, models, dev, bench, toolchain

The extra `build` also installs the gateway itself, its request path compiled (setup.py); without it only the packages
come, which is enough to run from the sources. Does nothing (in about 50 ms) when everything asked for is there and no
source has changed. What goes wrong is one clear line and exit status 1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed.json"
GATEWAY_STAMP = VENV / "gateway.json"
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


def pip_install(*what: str, name: str = "pip install", env: dict[str, str] | None = None) -> None:
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    run_quietly([*command, *what], name, env)


def install(extras: set[str]) -> None:
    names = sorted(extras - {""})
    say(f"installing packages ({', '.join(names) or 'the gateway alone'}): about a minute the first time")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *(one for name in names for one in project["optional-dependencies"][name])]
    pip_install("-c", "constraints.txt", *needed)


def gateway_state() -> dict[str, object]:
    """What the installed gateway is made of."""
    sources = hashlib.sha256()
    for path in sorted([*(ROOT / "gateway").rglob("*"), ROOT / "setup.py", ROOT / "pyproject.toml"]):
        if path.is_file() and path.suffix != ".pyc":
            sources.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return {
        "sources": sources.hexdigest(),
        "python": sys.version,
        "headers": headers().exists(),
        "wish": os.environ.get("SLUICEGATE_COMPILE", ""),
    }


def headers() -> Path:
    return Path(sysconfig.get_path("include")) / "Python.h"


def gateway_is_current() -> bool:
    try:
        state = json.loads(GATEWAY_STAMP.read_text())
    except (OSError, ValueError):
        return False
    return bool(state == gateway_state())


def get_headers() -> bool:
    """Whether Python.h is there, perhaps after installing it."""
    if headers().exists():
        return True
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
    if os.geteuid() == 0 and shutil.which("apt-get") is not None:
        say(f"installing {package} (Debian)")
        try:
            run_quietly(["apt-get", "update"], "apt-get update")
            run_quietly(["apt-get", "install", "-y", "--no-install-recommends", package], f"apt-get install {package}")
        except SetupError as error:
            say(str(error))
    if headers().exists():
        return True
    say(f"no {headers()}: the gateway runs as plain Python and costs a third more CPU per request ({package} has it)")
    return False


def compiler() -> dict[str, str]:
    """The environment that makes setuptools use a C compiler that is there: the machine's, else PyPI's zig."""
    wanted = os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc")
    if shutil.which(wanted.split()[0]):
        return {}
    for name in ("gcc", "cc", "clang"):
        if shutil.which(name):
            return {"CC": name, "LDSHARED": f"{name} -shared"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    zig = next(one for one in project["optional-dependencies"]["toolchain"] if one.startswith("ziglang"))
    say("no C compiler on PATH: installing ziglang (PyPI)")
    pip_install(zig)
    cc = f"{VENV / 'bin' / 'python'} -m ziglang cc"
    return {"CC": cc, "LDSHARED": f"{cc} -shared"}


def install_gateway() -> None:
    """Installs the gateway itself; its request path is compiled unless that cannot be or is not wished."""
    plain = os.environ.get("SLUICEGATE_COMPILE") == "0" or not get_headers()
    say("installing the gateway" if plain else "compiling the gateway: about 40 s, again only when its sources change")
    env = {"SLUICEGATE_COMPILE": "0"} if plain else {"SLUICEGATE_COMPILE": "1", **compiler()}
    # Left-overs of an earlier build would be packed again, with modules that are gone since.
    shutil.rmtree(ROOT / "build" / "package", ignore_errors=True)
    pip_install(*("--no-deps", "--no-build-isolation", "--force-reinstall", "."), name="compiling the gateway", env=env)
    GATEWAY_STAMP.write_text(json.dumps(gateway_state()))


def run_quietly(command: list[str], name: str, env: dict[str, str] | None = None) -> None:
    """Runs a long command: its last line and the time on a terminal, else a line every 15 s; its output on failure."""
    began = time.monotonic()
    tty = sys.stderr.isatty()
    tail: list[str] = []
    told = began
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    ) as process:
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
        if not ("" in have and asked <= have):
            extras = asked | (have - {""})
            check_disk(asked - have)
            make_venv()
            install(extras)
            STAMP.write_text(json.dumps(wanted_state(extras)))
        if "build" in asked and not gateway_is_current():
            install_gateway()
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
