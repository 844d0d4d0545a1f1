"""One gigabyte up, one down, and one down to a slow reader: how much a worker's memory grows meanwhile.

    python -m loadtests.bench_large [--mib 1024] [--slow-seconds 15]

An aiohttp origin, the installed gateway with one worker, an aiohttp client, all on loopback. Bar: at most 16 MiB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import aiohttp
from aiohttp import web

from demo.layout import GATEWAY
from demo.process import Child
from loadtests.peers.processes import descendants, free_ports

PIECE = 256 * 1024
BAR = 16.0  # MiB
CONFIG = """\
version: 1
listen: 127.0.0.1:{port}
workers: 1
admin: {{listen: "127.0.0.1:{admin}"}}
pools: {{p: {{backends: [{{url: "http://127.0.0.1:{backend}"}}], max_response: 8GiB}}}}
routes: [{{name: all, match: {{path: "/*"}}, pool: p, timeout: 30s, max_body: 8GiB}}]
"""


async def count(request: web.Request) -> web.Response:
    size = 0
    async for data in request.content.iter_any():
        size += len(data)
    return web.Response(text=str(size))


async def give(request: web.Request) -> web.StreamResponse:
    size = int(request.match_info["size"])
    answer = web.StreamResponse(headers={"content-length": str(size)})
    await answer.prepare(request)
    with contextlib.suppress(ConnectionError):  # the slow reader does not stay to the end
        for _ in range(size // PIECE):
            await answer.write(b"x" * PIECE)
    return answer


class Memory:
    """Resident MiB of a process, and the most that was seen since `begin`."""

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/status")
        self.base = self.peak = 0.0

    def now(self) -> float:
        line = next(line for line in self._path.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def begin(self) -> None:
        self.base = self.peak = self.now()

    async def watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            await asyncio.sleep(0.02)

    @property
    def growth(self) -> float:
        return max(self.peak, self.now()) - self.base


async def pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // PIECE):
        yield b"y" * PIECE


async def upload(session: aiohttp.ClientSession, base: str, size: int, *, stated: bool) -> None:
    headers = {"content-length": str(size)} if stated else {}
    async with session.post(f"{base}/count", data=pieces(size), headers=headers) as answer:
        told = await answer.text()
        if answer.status != 200 or int(told) != size:
            raise SystemExit(f"bench_large: sent {size} bytes, the origin counted {told!r}")


async def download(session: aiohttp.ClientSession, base: str, size: int) -> None:
    got = 0
    async with session.get(f"{base}/give/{size}") as answer:
        async for data in answer.content.iter_any():
            got += len(data)
    if got != size:
        raise SystemExit(f"bench_large: {got} of {size} bytes came")


async def read_slowly(session: aiohttp.ClientSession, base: str, size: int, seconds: float) -> None:
    """One megabyte a second, for a while."""
    async with session.get(f"{base}/give/{size}") as answer:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await answer.content.readexactly(100_000)
            await asyncio.sleep(0.1)


async def measure(mib: int, slow: float, folder: Path) -> bool:
    app = web.Application(client_max_size=1 << 40)
    app.router.add_post("/count", count)
    app.router.add_get("/give/{size}", give)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port, admin = free_ports(2)
    config = folder / "gateway.yaml"
    config.write_text(CONFIG.format(port=port, admin=admin, backend=runner.addresses[0][1]))
    gateway = Child("gateway", [GATEWAY, "run", "-c", config], folder / "log")
    gateway.start()
    size = mib * 1024 * 1024
    base = f"http://127.0.0.1:{port}"
    holds = True
    try:
        if not await asyncio.to_thread(gateway.wait_until, f"http://127.0.0.1:{admin}/readyz", 20):
            raise SystemExit(f"bench_large: the gateway did not start: {gateway.last_words()}")
        memory = Memory(max(descendants(gateway.pid), key=lambda pid: b"app.worker" in _command(pid)))
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
            await upload(session, base, PIECE, stated=True)  # warm
            print(f"{'':28} {'seconds':>8} {'MiB/s':>7} {'growth MiB':>11}")
            acts: tuple[tuple[str, Callable[[], Coroutine[None, None, None]]], ...] = (
                (f"{mib} MiB up, stated length", lambda: upload(session, base, size, stated=True)),
                (f"{mib} MiB up, chunked", lambda: upload(session, base, size, stated=False)),
                (f"{mib} MiB down", lambda: download(session, base, size)),
                (f"down at 1 MB/s, {slow:g} s", lambda: read_slowly(session, base, size, slow)),
            )
            for name, act in acts:
                memory.begin()
                watcher = asyncio.create_task(memory.watch())
                began = time.monotonic()
                await act()
                took = time.monotonic() - began
                watcher.cancel()
                rate = "" if "at" in name.split() else f"{mib / took:.0f}"
                print(f"{name:28} {took:8.1f} {rate:>7} {memory.growth:11.1f}")
                holds = holds and memory.growth <= BAR
    finally:
        await asyncio.to_thread(gateway.stop, 10)
        await runner.cleanup()
    print(f"bar {'holds' if holds else 'broken'}: a worker grows by at most {BAR:g} MiB")
    return holds


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench_large", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--mib", type=int, default=1024, help="size of each body (default: 1024)")
    parser.add_argument("--slow-seconds", type=float, default=15.0, help="how long to read slowly (default: 15)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(measure(given.mib, given.slow_seconds, Path(folder))) else 1


if __name__ == "__main__":
    sys.exit(main())
