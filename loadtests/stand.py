"""What the smaller benchmarks stand on: an origin, a store and a few peers, proved to work and stopped at the end."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.measure import prove
from loadtests.peers.backing import Origin, Store
from loadtests.peers.base import Peer
from loadtests.peers.processes import NotUp
from loadtests.peers.programs import find_program, find_valkey
from loadtests.peers.sluicegate import CLIENT_KEY

HEADERS = {"X-API-Key": CLIENT_KEY}
PATH = "/v1/models/digits"


@dataclass(frozen=True, slots=True)
class Stand:
    """`ports` by the peers' names."""

    workdir: Path
    origin: Origin
    store: Store
    ports: dict[str, int]


@contextlib.contextmanager
def standing(*peers: Peer) -> Iterator[Stand]:
    """Everything up and proved; `NotUp` says what is missing. SIGTERM ends it as Ctrl-C does."""
    needed = {"nginx": find_program("nginx"), "a Valkey or Redis server": find_valkey()}
    missing = [name for name, program in needed.items() if not program]
    if missing:
        raise NotUp(f"{', '.join(missing)} is needed: run `make bench-peers`")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with contextlib.ExitStack() as stack:
        workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        origin = Origin(workdir)
        stack.callback(origin.stop)
        store = Store(workdir)
        stack.callback(store.stop)
        ports: dict[str, int] = {}
        for peer in peers:
            reason = peer.available()
            if reason is not None:
                raise NotUp(f"{peer.name}: {reason}")
            home = workdir / peer.name.replace("/", "-").replace(" ", "-")
            home.mkdir()
            stack.callback(peer.stop)
            ports[peer.name] = peer.start(origin.endpoint, store.endpoint, home)
            prove(peer, ports[peer.name], store, HEADERS)
        yield Stand(workdir, origin, store, ports)
