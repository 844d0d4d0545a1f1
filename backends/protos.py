"""Generate the Go messages of TensorFlow Serving's and the Open Inference Protocol's gRPC services.

    python -m backends.protos            write backends/go_infer/internal/pb anew
    python -m backends.protos --check    say whether what is there is what would be written

Neither protocol comes as a Go module or as .proto files that a package registry has. Their Python packages do have
the compiled descriptors, as a bytes literal in each `*_pb2.py`: those are read without importing anything, and are what
protoc generates from. The descriptors are kept beside the generated code (`descriptors.binpb`), where a Go test holds
the code against them.
The tools and packages come from PyPI and the Go proxy into a temporary directory, at the versions below.
Exit code 0, or 1 with one line on stderr (--check: also if something differs).
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from backends import toolchain
from backends.interrupt import Interrupts

MODULE = Path(__file__).parent / "go_infer"
OUT = Path("internal/pb")
SERVING = "tensorflow-serving-api==2.21.0"
TRITON = "tritonclient==2.73.0"
PROTOC = "grpcio-tools==1.85.1"
PLUGIN = "google.golang.org/protobuf/cmd/protoc-gen-go"
PLUGIN_VERSION = "v1.36.12"  # that of go.mod

ROOTS = (
    "tensorflow_serving/apis/prediction_service.proto",
    "tensorflow_serving/apis/model_service.proto",
    "grpc_service.proto",
)
PACKAGES = (
    (r"tensorflow_serving/", "serving"),
    (r"tensorflow/", "tensorflow"),
    (r"xla/tsl/", "tsl"),
    (r"", "inference"),
)


class Failed(Exception):
    """The text says what cannot be had or done."""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m backends.protos", description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if something would change")
    options = parser.parse_args(arguments)
    try:
        with Interrupts() as interrupts, tempfile.TemporaryDirectory(prefix="protos-") as scratch:
            tools = toolchain.find(lambda _: None, Path(scratch), interrupts)
            made = _generate(tools, Path(scratch))
    except (Failed, toolchain.Missing) as failure:
        print(f"backends.protos: {failure}", file=sys.stderr)
        return 1
    there = {path.relative_to(MODULE / OUT) for path in (MODULE / OUT).rglob("*.*pb*") if path.is_file()}
    stale = sorted(
        str(path)
        for path in there | made.keys()
        if path not in there or (MODULE / OUT / path).read_bytes() != made.get(path)
    )
    if options.check:
        if stale:
            print(f"backends.protos: not current: {', '.join(stale)}; run python -m backends.protos", file=sys.stderr)
        return int(bool(stale))
    for path in there - made.keys():
        (MODULE / OUT / path).unlink()
    for path, content in made.items():
        (MODULE / OUT / path).parent.mkdir(parents=True, exist_ok=True)
        (MODULE / OUT / path).write_bytes(content)
    print(f"{len(made)} files in {MODULE / OUT}, {len(stale)} of them changed")
    return 0


def _generate(tools: toolchain.Toolchain, scratch: Path) -> dict[Path, bytes]:
    """The files that belong below OUT."""
    wheels, python, binaries = scratch / "wheels", scratch / "python", scratch / "bin"
    _run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels), SERVING, TRITON])
    _run([sys.executable, "-m", "pip", "install", "-q", "--target", str(python), PROTOC])
    _run([tools.go, "install", f"{PLUGIN}@{PLUGIN_VERSION}"], {"GOBIN": str(binaries)})
    found = _descriptors(wheels, tools.wheel.directory.parent)
    needed = list(dict.fromkeys(name for root in ROOTS for name in _closure(root, found)))
    together = b"".join(b"\x0a" + _varint(len(found[name])) + found[name] for name in needed)
    descriptors = scratch / "descriptors.binpb"
    descriptors.write_bytes(together)
    ours = [name for name in needed if not name.startswith("google/")]
    mapping = [f"--go_opt=M{name}={_package(name)}" for name in ours]
    _run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={descriptors}"),
            *(
                f"--plugin=protoc-gen-go={binaries}/protoc-gen-go",
                f"--go_out={scratch}",
                "--go_opt=module=sluicegate/go_infer",
            ),
            *(*mapping, *ours),
        ],
        {"PYTHONPATH": str(python)},
    )
    made = {path.relative_to(scratch / OUT): path.read_bytes() for path in (scratch / OUT).rglob("*.pb.go")}
    return {**made, Path("descriptors.binpb"): together}


def _package(name: str) -> str:
    folder = next(folder for pattern, folder in PACKAGES if re.match(pattern, name))
    return f"sluicegate/go_infer/{OUT}/{folder};{folder}"


def _descriptors(wheels: Path, installed: Path) -> dict[str, bytes]:
    """Every FileDescriptorProto that the packages hold, by the name of its .proto file."""
    found: dict[str, bytes] = {}
    for source in _sources(wheels, installed):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "AddSerializedFile":
                descriptor = ast.literal_eval(node.args[0])
                found.setdefault(next(_fields(descriptor, 1)).decode(), descriptor)
    return found


def _sources(wheels: Path, installed: Path) -> Iterator[bytes]:
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith("_pb2.py"):
                    yield archive.read(name)
    for package in ("tensorflow/core", "tensorflow/compiler/xla/tsl", "google/protobuf"):
        for path in sorted((installed / package).rglob("*_pb2.py")):
            yield path.read_bytes()


def _closure(name: str, found: dict[str, bytes], seen: frozenset[str] = frozenset()) -> Iterator[str]:
    """A file after everything it imports."""
    if name not in found:
        raise Failed(f"no package has the descriptor of {name}")
    for imported in _fields(found[name], 3):
        if imported.decode() not in seen:
            yield from _closure(imported.decode(), found, seen | {name})
    yield name


def _fields(message: bytes, wanted: int) -> Iterator[bytes]:
    """The length-delimited fields of that number. Of others it knows those that a FileDescriptorProto has."""
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        value, at = _read_varint(message, at)
        if tag & 7 == 2:
            if tag >> 3 == wanted:
                yield message[at : at + value]
            at += value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if message[at - 1] < 0x80:
            return value, at


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _run(command: list[str], extra: dict[str, str] | None = None) -> None:
    said = subprocess.run(command, env={**os.environ, **(extra or {})}, cwd=MODULE, capture_output=True, text=True)
    if said.returncode:
        raise Failed(f"{' '.join(command[:5])} ... failed: {said.stderr.strip()[-500:]}")


if __name__ == "__main__":
    sys.exit(main())
