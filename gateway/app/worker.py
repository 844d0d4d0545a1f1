"""One worker process: composed here, told what to do by the supervisor over its control channel.

Started as `python -m gateway.app.worker NUMBER WORKERS CONTROL_FD CELLS_FD SHARED_FD BELL_FD... LISTEN_FD...`, with a
bell for each worker. It ends when told to drain, or when the control channel closes because the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import secrets
import signal
import socket
import sys
import time
from typing import Any

from gateway.admission.admission import Admission
from gateway.admission.places import Places
from gateway.app import compile as compiled
from gateway.app.breakers import Breakers
from gateway.app.loop import run_in_loop
from gateway.app.series import GAUGES, admission_cells, backend_gauges, places_cell, pool_gauge
from gateway.breakers.hints import TOPIC
from gateway.config.model import Config
from gateway.degrade.cache import AnswerCache
from gateway.errors import GatewayError
from gateway.http.doors import Door
from gateway.http.server import Server
from gateway.limits.limiter import Limiter
from gateway.pipeline import Pipeline
from gateway.store.answers import SharedAnswers
from gateway.store.fleet import Fleet
from gateway.store.link import StoreTimes
from gateway.store.shared import SharedStore
from gateway.telemetry import names
from gateway.telemetry.access_log import AccessLog
from gateway.telemetry.cells import Catalogue, Cells, Metric
from gateway.telemetry.logs import set_up_logs
from gateway.telemetry.tracing import Tracing
from gateway.upstreams.registry import BackendRegistry
from gateway.workers.control import (
    AskStatus,
    Channel,
    InForce,
    SetEjected,
    SetForced,
    SetHealth,
    SetWorkers,
    StartDrain,
    TellSpans,
    TellStatus,
    UseSnapshot,
)

log = logging.getLogger(__name__)

PUBLISH = 0.25  # seconds between two updates of the gauges
SWITCH = 0.0005  # seconds another thread (the access log) may keep the event loop waiting; Python has 5 ms
LAST_WORDS = 1.0  # seconds the supervisor has to take them when the worker ends
MAX_BACKLOG = 1 << 20  # bytes the supervisor may be behind before spans wait in the worker
EXPIRE_EVERY = 8  # idle upstream connections are looked at every so many updates


class WorkerProcess:
    """Everything one worker owns."""

    def __init__(
        self,
        number: int,
        bells: list[int],
        channel: Channel,
        cells: Cells,
        shared: Cells,
        sockets: list[socket.socket],
    ) -> None:
        self.number = number
        self.workers = len(bells)
        self.bells = bells  # of all workers
        self.channel = channel
        self.cells = cells
        self.shared = shared
        self.sockets = sockets
        self.registry = BackendRegistry()
        self.registry.places = self._places
        self.tracing = Tracing.from_environment()
        self.catalogue = Catalogue()
        self.health: dict[str, bool] = {}
        self.inherited: dict[int, int] = {}  # counters as they stood when this process began
        self.config: Config | None = None
        self.pipeline: Pipeline
        self.server: Server
        self.doors: list[Door] = []
        self.store: SharedStore
        self.limiter: Limiter
        self.fleet: Fleet
        self.breakers = Breakers(self.registry, self._hint)

    # -- following the supervisor -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until told to drain or left alone."""
        own: list[asyncio.Task[None]] = []
        drain = StartDrain(timeout=5.0, idle=0.0)
        while (message := await self.channel.receive()) is not None:
            match message:
                case UseSnapshot():
                    await self._use(message)
                    if not own and self.config is not None:
                        own = [asyncio.create_task(self._publish()), asyncio.create_task(self.breakers.watch())]
                case SetHealth():
                    self._set_health(message.healthy)
                case SetForced():
                    self.breakers.force(message.forced)
                case SetEjected():
                    self.breakers.eject(message.ejected)
                case SetWorkers():
                    self.fleet.set_own(message.count)
                case AskStatus():
                    self.channel.send(TellStatus(message.number, self.status()))
                case StartDrain():
                    drain = message
                    break
        if self.config is not None:
            await self._stop(drain)
        for task in own:
            task.cancel()
        await self.channel.finish(LAST_WORDS)

    async def _use(self, message: UseSnapshot) -> None:
        config: Config = message.config
        self.catalogue = message.catalogue
        try:
            contexts = compiled.tls_contexts(config)
            snapshot = compiled.snapshot(config, message.generation, message.catalogue, self.registry, message.secret)
        except (GatewayError, KeyError, ValueError) as error:
            self.channel.send(InForce(message.generation, f"{type(error).__name__}: {error}"))
            return
        first = self.config is None
        self.config = config
        if first:
            await self._begin(config, snapshot, message)
        else:
            self.pipeline.use(snapshot)
            self.limiter.return_leases()  # their rates may be others now
            self.pipeline.cache.resize(config.cache.max_bytes)
            self.server.use(compiled.server_limits(config.http), compiled.forwarding(config.http))
        for door, listener, context in zip(self.doors, config.listen, contexts, strict=True):
            door.tls, door.proxy = context, listener.proxy_protocol
        self.registry.retain({backend.key for pool in snapshot.pools.values() for backend in pool.backends})
        self.registry.retain_pools(set(snapshot.pools))
        self.registry.retries.retain({route.name for route in config.routes}, set(snapshot.pools))
        self._set_health(self.health)
        self.breakers.adopt()
        if first:  # last, so that not one request is answered by less than all that is known
            for door, sock in zip(self.doors, self.sockets, strict=True):
                await self.server.listen(sock, door.accept)
        self.channel.send(InForce(message.generation))

    async def _begin(self, config: Config, snapshot: Any, message: UseSnapshot) -> None:
        store = config.store
        times = StoreTimes(store.timeout, store.connect_timeout, store.reconnect_min, store.reconnect_max)
        self.store = SharedStore(message.store, times, store.key_prefix, self._store_turned)
        limiter = self.limiter = Limiter(self.store.buckets, identity=secrets.token_bytes(8))
        self.store.start()
        await self.store.ready(store.connect_timeout)
        self.fleet = Fleet(message.store, times, store.key_prefix, message.gateway, limiter.share_with)
        self.fleet.listen(TOPIC, self.breakers.heard)
        self.fleet.start()
        path = config.access_log.path
        self.pipeline = Pipeline(
            snapshot,
            limiter=limiter,
            cache=AnswerCache(config.cache.max_bytes, SharedAnswers(self.store.link, store.key_prefix)),
            cells=self.cells,
            id_prefix=f"{secrets.token_hex(5)}-".encode(),
            draw=random.random,
            tracing=self.tracing,
            access_log=None if path == "off" else AccessLog(path),
        )
        limits, forwarding = compiled.server_limits(config.http), compiled.forwarding(config.http)
        pipeline = self.pipeline
        self.server = Server(pipeline.handle, pipeline.refuse_bytes, limits, forwarding, pipeline.body_rules)
        self.doors = [Door(self.server) for _ in config.listen]
        asyncio.get_running_loop().add_reader(self.bells[self.number], self._rung)
        gc.collect()
        gc.freeze()  # what exists now lives as long as the process: leave it out of every later collection
        gc.set_threshold(20_000, 20, 50)

    def _places(self, pool: str) -> Places:
        places = Places(self.shared.values, places_cell(self.catalogue, pool), self.number, self.workers)
        places.bell = self._ring
        return places

    def _ring(self, number: int) -> None:
        with contextlib.suppress(BlockingIOError):  # it has not heard the last 2**64 - 2 of them
            os.eventfd_write(self.bells[number], 1)

    def _rung(self) -> None:
        """Another worker leaves a place to who waits here."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.bells[self.number])
        self._sweep()

    def _sweep(self) -> None:
        now = time.monotonic_ns()
        for pool in self.pipeline.snapshot.pools.values():
            pool.admission.sweep(now)

    def _store_turned(self, up: bool, forgot: bool) -> None:
        now = time.monotonic_ns()
        if up:
            self.limiter.back(now, forgot=forgot)
        else:
            self.limiter.away(now)

    def _set_health(self, healthy: dict[str, bool]) -> None:
        self.health = healthy
        now = int(asyncio.get_running_loop().time() * 1e9)
        for backend in self.registry.all():
            backend.mark(healthy=healthy.get(backend.key, True), now=now)

    def _hint(self, message: bytes) -> None:
        self.fleet.tell(TOPIC, message)

    async def _stop(self, drain: StartDrain) -> None:
        cut = await self.server.drain(idle=drain.idle, timeout=drain.timeout)
        if cut:
            log.warning("worker %d cut off %d connections", self.number, cut)
        await self.pipeline.shadows.close()
        self._tell_spans(last=True)  # also of what was cut off; before a slow store or disk has its time
        self.limiter.return_leases()
        self.store.flush()
        await self.fleet.close()
        await self.store.close()
        if self.pipeline.access_log is not None:
            await asyncio.to_thread(self.pipeline.access_log.close)
        self._tell_spans(last=True)

    # -- telling ------------------------------------------------------------------------------------------------

    async def _publish(self) -> None:
        beat = 0
        while True:
            self.limiter.tick(time.monotonic_ns())
            self._sweep()
            self._set_gauges()
            self._tell_spans()
            beat += 1
            if beat % EXPIRE_EVERY == 0:
                now = asyncio.get_running_loop().time()
                for backend in self.registry.all():
                    backend.connections.expire(now)
            await asyncio.sleep(PUBLISH)

    def _tell_spans(self, *, last: bool = False) -> None:
        may = last or self.channel.backlog < MAX_BACKLOG
        if self.tracing is not None and may and (spans := self.tracing.take()):
            self.channel.send(TellSpans(spans))

    def _set_gauges(self) -> None:
        values, catalogue, stats = self.cells.values, self.catalogue, self.server.stats
        log_lines = self.pipeline.access_log
        own = {
            names.ACTIVE_REQUESTS: self.pipeline.active,
            names.CONNECTIONS: len(self.server.connections) + len(self.server.arriving),
            names.REFUSED_CONNECTIONS: stats.refused,
            names.REFUSED_PER_ADDRESS: stats.refused_address,
            names.HANDSHAKE_FAILURES: stats.handshake_failures,
            names.PROXY_ERRORS: stats.proxy_errors,
            names.REQUEST_LIMITS: stats.request_limits,
            names.PROTOCOL_ERRORS: stats.protocol_errors,
            names.CLIENT_GONE: stats.client_gone,
            names.CACHE_BYTES: self.pipeline.cache.size,
            names.FLEET_WORKERS: self.fleet.members if self.number == 0 else 0,
            names.FLEET_DROPPED: self.fleet.dropped,
            names.STORE_UP: int(self.store.up),
            names.LEASED_KEYS: self.limiter.leased_keys,
            names.HELD_PLACES: self.limiter.held_places,
            names.ADJUSTMENTS: self.limiter.adjusted,
            names.COSTS_MISREAD: self.limiter.misread,
            names.LATE_REFUNDED: int(self.limiter.refunded),
            names.LATE_OWED: int(self.limiter.owed),
            names.STORE_CALLS: self.store.calls,
            names.STORE_FAILURES: self.store.failures,
            names.STORE_LATE: self.store.doubts,
            names.LOG_DROPPED: log_lines.dropped if log_lines is not None else 0,
            names.BREAKER_HINTS_TOLD: self.breakers.hints.told,
            names.BREAKER_HINTS_HEEDED: self.breakers.hints.heeded,
            names.BREAKER_HINTS_IGNORED: self.breakers.hints.ignored,
            names.SPANS_DROPPED: self.tracing.dropped if self.tracing is not None else 0,
        }
        for metric in GAUGES:
            self._publish_one(metric, catalogue.place(metric), own[metric])
        pools = self.pipeline.snapshot.pools.values()
        self.breakers.publish(values, catalogue, pools, self._publish_one)
        members = self.fleet.members
        self.registry.share(members, max(1, members // self.workers), time.monotonic_ns())
        for pool in pools:
            values[pool_gauge(catalogue, pool.name)] = pool.budget.waiting
            self._set_admission(pool.name, pool.admission)
            for backend in pool.backends:
                inflight, healthy = backend_gauges(catalogue, pool.name, backend.name)
                values[inflight] = backend.inflight
                values[healthy] = int(backend.healthy)

    def _set_admission(self, pool: str, admission: Admission) -> None:
        values, cells = self.cells.values, admission_cells(self.catalogue, pool)
        limit, queue = admission.limit, admission.queue
        speaks = admission.places.workers == 1 or self.number == 0  # for all
        values[cells.limit] = limit.allowed if speaks else 0
        values[cells.inflight] = admission.inflight
        values[cells.rate] = int(admission.rate * 1000) if speaks else 0
        values[cells.latency] = int(limit.latency)
        for queued, overloaded, line in zip(cells.queued, cells.overloaded, queue.lines, strict=True):
            values[queued] = line.size
            values[overloaded] = int(line.overloaded)
        for cell, count in zip(cells.refused, queue.refused, strict=True):
            self._publish_one(names.ADMISSION_REFUSED, cell, count)

    def _publish_one(self, metric: Metric, cell: int, value: int) -> None:
        """A counter goes on from where this worker's predecessor in the same cells left it."""
        if metric.kind == "counter":
            value += self.inherited.setdefault(cell, self.cells.values[cell])
        self.cells.values[cell] = value

    def status(self) -> dict[str, Any]:
        """This worker's account of itself, for the admin API."""
        pipeline = self.pipeline
        return {
            "generation": pipeline.snapshot.generation,
            "active_requests": pipeline.active,
            "connections": len(self.server.connections),
            "store": "shared" if self.store.up else "local",
            "fleet": {"workers": self.fleet.members, "connected": self.fleet.connected},
            "cache": {"entries": len(pipeline.cache), "bytes": pipeline.cache.size},
            "admission": [
                {
                    "pool": pool.name,
                    "limit": pool.admission.limit.allowed,
                    "inflight": pool.admission.inflight,
                    "queued": pool.admission.queue.size,
                    "overloaded": pool.admission.overloaded,
                    "latency_ms": round(pool.admission.limit.latency / 1e6, 3),
                    "rate": round(pool.admission.rate, 1),
                }
                for pool in pipeline.snapshot.pools.values()
            ],
            "backends": [
                {
                    "pool": pool.name,
                    "name": backend.name,
                    "weight": backend.weight,
                    "share": round(backend.share, 3),
                    "priority": backend.priority,
                    "zone": backend.zone,
                    "healthy": backend.healthy,
                    **self.breakers.status(backend),
                    "inflight": backend.inflight,
                    "protocol": backend.connections.protocol,
                    "idle_connections": backend.connections.idle,
                }
                for pool in pipeline.snapshot.pools.values()
                for backend in pool.backends
            ],
        }


async def _main(
    number: int, bells: list[int], control: int, cells: int, shared: int, listeners: list[int]
) -> None:  # fmt: skip
    # The supervisor decides when to stop; a Ctrl-C in the terminal reaches the whole process group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=control), limit=1 << 20)
    sockets = [socket.socket(fileno=fd) for fd in listeners]
    await WorkerProcess(number, bells, Channel(reader, writer), Cells(cells), Cells(shared), sockets).run()


def main() -> None:
    """The process's entry."""
    number, workers, control, cells, shared, *others = map(int, sys.argv[1:])
    set_up_logs(f"worker-{number}")
    sys.setswitchinterval(SWITCH)
    run_in_loop(_main(number, others[:workers], control, cells, shared, others[workers:]))
    # Nothing is left to do; the interpreter's own shutdown would only take time.
    sys.stdout.flush()
    logging.shutdown()
    os._exit(0)


if __name__ == "__main__":
    main()
