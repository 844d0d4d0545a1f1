"""How each client and server of this folder is started; what is not installed is a reason to skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from demo.layout import BUILD
from loadtests.peers.programs import find_go, find_program

HERE = Path(__file__).parent
CLIENTS = ("curl", "requests", "httpx", "aiohttp", "websockets", "node", "go", "go-websocket", "java")
GO_PATIENCE = 600  # seconds that a module and all it needs may take to come and to be compiled
SERVERS = ("go", "node", "java", "http.server", "flask", "aiohttp", "nginx")


class NotHere(Exception):
    """The program cannot run on this machine; the text says why."""


def client(name: str) -> list[str]:
    """The command of a client, without its arguments."""
    if name in ("curl", "requests", "httpx", "aiohttp", "websockets"):
        if name == "curl":
            needed("curl")
        return [sys.executable, str(HERE / "clients" / f"with_{name}.py")]
    if name == "node":
        return [*node(), str(HERE / "clients" / "fetch.mjs")]
    if name == "java":
        return [*java(), str(HERE / "clients" / "Client.java")]
    return [go(HERE / "clients" / {"go": "gonet", "go-websocket": "gowebsocket"}[name])]


def server(name: str, port: int, folder: Path) -> list[str]:
    """The command of a server that listens on `port`; `folder` holds the files that some of them serve."""
    if name == "go":
        return [go(HERE / "servers" / "gonet"), str(port)]
    if name == "node":
        return [*node(), str(HERE / "servers" / "server.mjs"), str(port)]
    if name == "java":
        return [*java(), str(HERE / "servers" / "Server.java"), str(port)]
    if name == "http.server":
        return [sys.executable, "-m", "http.server", "-b", "127.0.0.1", "-d", str(folder), str(port)]
    if name == "flask":
        options = ["--threads", "4", "--keep-alive", "30", "--no-control-socket", "--chdir", str(HERE / "servers")]
        return [sys.executable, "-m", "gunicorn", *options, "-b", f"127.0.0.1:{port}", "with_flask:app"]
    if name == "aiohttp":
        return [sys.executable, str(HERE / "servers" / "with_aiohttp.py"), str(port)]
    config = folder.parent / "nginx-backend.conf"
    text = (HERE / "servers" / "nginx.conf").read_text()
    if os.geteuid() == 0:  # its workers would be nobody, who may not read the files of a test
        text = "user root;\n" + text
    config.write_text(text.replace("PORT", str(port)).replace("FOLDER", str(folder)))
    return nginx(config)


def nginx(config: Path) -> list[str]:
    """nginx in the foreground."""
    return [needed("nginx"), "-e", "stderr", "-p", str(config.parent), "-c", str(config), "-g", "daemon off;"]


def needed(name: str) -> str:
    found = find_program(name)
    if found is None:
        raise NotHere(f"{name} is not installed")
    return found


def go(source: Path) -> str:
    """Builds the program of a folder; returns the binary."""
    command = find_go()
    if command is None:
        raise NotHere("Go is not installed")
    target = BUILD / "interop" / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if (source / "go.sum").exists():
        had = subprocess.run([command, "mod", "download"], cwd=source, capture_output=True, text=True, timeout=30)
        if had.returncode:
            raise NotHere(f"its Go module cannot be had: {had.stderr.strip()[-200:]}")
    environment = {**os.environ, "CGO_ENABLED": "0"}
    build = [command, "build", "-o", str(target), "."]
    subprocess.run(build, cwd=source, env=environment, check=True, timeout=120)
    return str(target)


def go_module(package: str, version: str) -> str:
    """Builds a program out of the Go module proxy, once; returns the binary."""
    command = find_go()
    if command is None:
        raise NotHere("Go is not installed")
    place = BUILD / "interop" / f"{package.rpartition('/')[2]}@{version}"
    target = place / package.rpartition("/")[2]
    if not target.exists():
        environment = {**os.environ, "GOBIN": str(place), "GOFLAGS": "", "CGO_ENABLED": "0"}
        install = [command, "install", f"{package}@{version}"]
        try:
            done = subprocess.run(install, env=environment, capture_output=True, text=True, timeout=GO_PATIENCE)
        except subprocess.TimeoutExpired as slow:
            raise NotHere(f"{package} is not built after {GO_PATIENCE} s") from slow
        if done.returncode:
            raise NotHere(f"{package} cannot be had: {done.stderr.strip()[-200:]}")
    return str(target)


def node() -> list[str]:
    """Node, with the WebSocket that versions 20 and 21 have behind a flag."""
    command = needed("node")
    version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout
    major = int(version.strip().lstrip("v").split(".")[0])
    if major < 18:
        raise NotHere(f"Node {version.strip()} has no fetch")
    return [command, "--no-warnings", *(["--experimental-websocket"] if major in (20, 21) else [])]


def java() -> list[str]:
    """Java, quick to start."""
    command = shutil.which("java")
    if command is None:
        raise NotHere("Java is not installed")
    said = subprocess.run([command, "-version"], capture_output=True, text=True).stderr
    if int(said.split('"')[1].split(".")[0]) < 17:
        raise NotHere(f"Java >= 17 is needed, this is {said.splitlines()[0]}")
    return [command, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-Dfile.encoding=UTF-8"]
