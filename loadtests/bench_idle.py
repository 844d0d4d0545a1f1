"""What an idle keep-alive client costs the gateway's worker in memory.

    python -m loadtests.bench_idle [--connections 10000]

One worker with every policy on. Each connection makes one request, whose answer is read whole, and then stays open.
Memory is PSS from /proc, so without what the kernel holds for the socket; its growth is divided by the connections. A
first batch of requests on connections that are closed again warms up what is made once. The gateway bounds what
one address may hold, so clients come from several (127.0.0.2 and on).

Exit code 0; 1 if it cannot run, or with --check if the bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import selectors
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from loadtests.measure import prove
from loadtests.peers.backing import Origin, Store
from loadtests.peers.processes import NotUp
from loadtests.peers.sluicegate import CLIENT_KEY, Sluicegate

BAR = 6.0  # KiB of resident memory a connection
SPARE_FILES = 500  # descriptors of a process beside its connections
PER_ADDRESS = 500  # connections from one source address: well within `http.max_connections_per_address`
AT_ONCE = 32  # requests under way: so few that the pool to the backends does not grow with the clients
PATIENCE = 60.0  # seconds for all of them
REQUEST = f"GET /v1/models/digits HTTP/1.1\r\nHost: bench\r\nX-API-Key: {CLIENT_KEY}\r\n\r\n".encode()


@dataclass(frozen=True, slots=True)
class Growth:
    """PSS in KiB before, with and after `connections` idle clients."""

    connections: int
    before: int
    during: int
    after: int

    @property
    def each(self) -> float:
        """KiB a connection."""
        return (self.during - self.before) / self.connections


def pss(smaps_rollup: str) -> int:
    """KiB of resident memory, what is shared counted in proportion, from the text of /proc/PID/smaps_rollup."""
    return next(int(line.split()[1]) for line in smaps_rollup.splitlines() if line.startswith("Pss:"))


def source(index: int) -> str:
    """The address that the connection of this number comes from."""
    return f"127.0.0.{2 + index // PER_ADDRESS}"


def whole(answer: bytes) -> bool:
    """True if these bytes are a 200 whose body, of stated length, has come."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    if not head.startswith(b"HTTP/1.1 200 "):
        raise NotUp(f"an answer that is not 200: {answer[:200]!r}")
    lengths = [line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(lengths) and len(body) >= int(lengths[0])


def allow_files(wanted: int) -> int:
    """Raise this process's limit of open files, which children inherit, up to `wanted`; what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        with contextlib.suppress(ValueError, OSError):  # only root may
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        wanted = hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def connect(port: int, count: int, stack: contextlib.ExitStack) -> list[socket.socket]:
    """`count` connections, each with one whole answer read from it."""
    opened: list[socket.socket] = []
    end = time.monotonic() + PATIENCE
    selector = stack.enter_context(selectors.DefaultSelector())
    under_way: dict[socket.socket, bytes] = {}
    while len(opened) < count or under_way:
        if time.monotonic() > end:
            raise NotUp(f"{len(opened) - len(under_way)} of {count} connections were answered in {PATIENCE:g} s")
        while len(opened) < count and len(under_way) < AT_ONCE:
            client = stack.enter_context(
                socket.create_connection(("127.0.0.1", port), 5, source_address=(source(len(opened)), 0))
            )
            client.sendall(REQUEST)
            opened.append(client)
            under_way[client] = b""
            selector.register(client, selectors.EVENT_READ, client)
        for key, _ in selector.select(1):
            client = key.data
            data = client.recv(65536)
            if not data:
                raise NotUp(f"the gateway closed connection {len(opened) - len(under_way)}")
            under_way[client] += data
            if whole(under_way[client]):
                selector.unregister(client)
                del under_way[client]
    return opened


def measure(count: int) -> Growth:
    """Start a gateway and what it needs, and grow."""
    with contextlib.ExitStack() as stack:
        workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        origin = Origin(workdir)
        stack.callback(origin.stop)
        store = Store(workdir)
        stack.callback(store.stop)
        gateway = Sluicegate()
        stack.callback(gateway.stop)
        home = workdir / "gateway"
        home.mkdir()
        port = gateway.start(origin.endpoint, store.endpoint, home)
        prove(gateway, port, store, {"X-API-Key": CLIENT_KEY})
        rollup = Path(f"/proc/{gateway.roles()['proxy'][0]}/smaps_rollup")
        with contextlib.ExitStack() as warm:
            connect(port, 200, warm)
        time.sleep(1.0)
        before = pss(rollup.read_text())
        with contextlib.ExitStack() as clients:
            opened = connect(port, count, clients)
            time.sleep(1.0)
            during = pss(rollup.read_text())
            for client in opened:  # they are all still there
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if client.recv(1) == b"":
                        raise NotUp("the gateway closed an idle connection while it was measured")
        time.sleep(1.0)
        return Growth(count, before, during, pss(rollup.read_text()))


def text(growth: Growth) -> str:
    """The figures and the bar."""
    verdict = "holds" if growth.each <= BAR else "MISSED"
    return (
        f"worker, PSS: {growth.before / 1024:.1f} MiB, with {growth.connections} idle connections "
        f"{growth.during / 1024:.1f} MiB, after they closed {growth.after / 1024:.1f} MiB\n"
        f"bar {verdict}: an idle connection <= {BAR:g} KiB of the worker: {growth.each:.2f}"
    )


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser("python -m loadtests.bench_idle", description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit 1 if the bar is missed")
    options = parser.parse_args(argv)
    if not 100 <= options.connections <= 15_000:
        parser.error("--connections must be from 100 to 15000")
    needed = options.connections + SPARE_FILES
    files = allow_files(needed)
    if files < needed:
        print(f"bench_idle: {needed} open files are needed and {files} allowed: raise `ulimit -n`", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped
    try:
        growth = measure(options.connections)
    except (NotUp, OSError) as error:
        print(f"bench_idle: {error}", file=sys.stderr)
        return 1
    print(text(growth))
    return 0 if growth.each <= BAR or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
