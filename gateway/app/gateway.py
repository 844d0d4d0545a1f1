"""The supervisor process: reads the configuration, keeps workers, store, prober and admin, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.admin.server import AdminServer
from gateway.admission.places import Places
from gateway.app.compile import backend_address, backend_tls, store_address
from gateway.app.forced import over_workers
from gateway.app.listeners import Listeners
from gateway.app.orders import Orders
from gateway.app.outliers import Outliers
from gateway.app.reload import Reload, needs_restart
from gateway.app.series import allot, places_cell
from gateway.config.errors import ConfigError
from gateway.config.load import load
from gateway.config.model import Config
from gateway.errors import DISK_FULL, StartError
from gateway.processes import allow_files
from gateway.store.address import StoreAddress
from gateway.store.embedded import EmbeddedStore
from gateway.store.fleet import make_gateway_id
from gateway.telemetry import names
from gateway.telemetry.cells import Catalogue, Cells
from gateway.telemetry.prometheus import render
from gateway.telemetry.span_export import SpanExport
from gateway.telemetry.tracing import Span
from gateway.upstreams.health import Check, Prober
from gateway.upstreams.registry import backend_key
from gateway.workers.control import Message, SetEjected, SetForced, SetHealth, UseSnapshot
from gateway.workers.supervisor import Supervisor, Worker

log = logging.getLogger(__name__)

RELOAD_TIMEOUT = 60.0  # seconds for all workers to take a new snapshot: with 10,000 routes they need some 10
LOOK = 0.5  # seconds between two looks for outliers; each pool is judged at its own interval
LAST_SPANS = 2.0  # seconds the last traces get to leave when the gateway ends
_FEW_FILES = (
    "a process may open %d files, and http.max_connections is %d: when none is left, connections are closed and not "
    "counted (raise the hard bound: ulimit -Hn, LimitNOFILE)"
)


class Gateway:
    """One gateway: `run` returns when it has stopped. `path` is read again at every reload."""

    def __init__(self, path: Path, config: Config, ready: Callable[[Gateway], None] | None = None) -> None:
        self.path = path
        self.config = config
        self.generation = 1
        self.started = time.time()
        self.draining = False
        self.last_reload: Reload | None = None
        self._ready = ready
        self._catalogue = Catalogue()
        self._own = Cells(Cells.create("sluicegate-cells-supervisor"))
        self._embedded: EmbeddedStore | None = None
        self._store = StoreAddress()
        self._id = make_gateway_id()
        self._secret = secrets.token_bytes(32)  # of sessions, where the configuration gives none
        self._stop = asyncio.Event()
        self._reloading = asyncio.Lock()
        self._prober = Prober(self._health_changed)
        self._orders = Orders()
        self._outliers = Outliers(self._catalogue, self._own.values, self._worker_cells)
        self._spans = SpanExport.from_environment()
        self._workers = 1
        self._supervisor: Supervisor
        self._admin: AdminServer
        self.listeners = Listeners()

    # -- life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT. Raises StartError when it cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        tasks: set[asyncio.Task[Any]] = set()
        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.add(asyncio.create_task(self.reload())))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # who starts us may have had it wait
        _try_access_log(self.config.access_log.path)
        if (files := allow_files()) < (most := self.config.http.max_connections):
            log.warning(_FEW_FILES, files, most)
        self._orders.recall(self.config)
        self._admin = AdminServer(self, self.config.admin.token)
        started = False
        try:
            # Before anything is awaited: signals and the admin API may ask for it from then on.
            sockets = self._listen()
            self._allot()
            self._supervisor = Supervisor(sockets, self._welcome, self._greetings, self._export, self._worker_ended)
            admin = self.config.admin.listen
            await self._admin.start(
                admin, self.listeners.open_unix(admin.unix_path, 0o600) if admin.unix_path else None
            )
            self._store = await self._open_store()
            self._prober.use(_checks(self.config))
            self._outliers.use(self.config, time.monotonic_ns())
            tasks.add(asyncio.create_task(self._watch()))
            starting = asyncio.create_task(self._supervisor.start())
            stopping = asyncio.create_task(self._stop.wait())
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                started = True
                if self._ready is not None:
                    self._ready(self)
                await stopping
            else:
                starting.cancel()
        finally:
            await self._shut_down(graceful=started)

    def _asked_to_stop(self) -> None:
        if self._stop.is_set():
            log.warning("asked to stop again: leaving at once")
            self._kill_now()
        self._stop.set()

    def _kill_now(self) -> None:
        for worker in self._supervisor.workers:
            if worker.process is not None and worker.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()

    async def _shut_down(self, *, graceful: bool) -> None:
        self.draining = True
        drain = self.config.drain
        if hasattr(self, "_supervisor"):  # it is not where a socket could not be had
            if graceful:
                log.info("draining")
                await asyncio.sleep(drain.delay)
                self.listeners.remove_files(keep=self.config.admin.listen.unix_path)
                await self._supervisor.drain(drain.timeout, drain.idle)
            else:
                await self._supervisor.kill()
        await self._prober.close()
        await self._flush_spans()
        await self._admin.stop()
        self.listeners.remove_files()
        if self._embedded is not None:
            await self._embedded.stop()
        self._orders.tell_what_is_lost()
        if graceful:
            log.info("stopped")

    # -- starting -----------------------------------------------------------------------------------------------

    def _listen(self) -> list[Worker]:
        self._workers = self.config.workers if isinstance(self.config.workers, int) else os.cpu_count() or 1
        sockets = self.listeners.open(self.config, self._workers)
        return [Worker(number, each) for number, each in enumerate(sockets)]

    async def _open_store(self) -> StoreAddress:
        url = self.config.store.url
        if not url.embedded:
            return store_address(self.config.store)
        self._embedded = EmbeddedStore()
        await self._embedded.start()
        return StoreAddress(unix_path=self._embedded.path)

    def _allot(self) -> None:
        allot(self._catalogue, self.config, self._workers)
        own = self._own.values
        own[self._catalogue.place(names.GENERATION)] = self.generation
        for result in ("applied", "refused"):
            self._catalogue.place(names.RELOADS, (("result", result),))

    def _welcome(self) -> UseSnapshot:
        return UseSnapshot(self.generation, self.config, self._catalogue, self._store, self._id, self._secret)

    def _greetings(self) -> list[Message]:
        return [SetHealth(self._prober.healthy), SetForced(self._orders.in_force()), SetEjected(self._outliers.ejected)]

    def _worker_ended(self, number: int) -> None:
        """What it had of the pools' places is free again."""
        shared = self._supervisor.shared.values
        for pool in self.config.pools:
            Places(shared, places_cell(self._catalogue, pool), number, self._workers).clear()

    def _worker_cells(self) -> list[memoryview]:
        return [worker.cells.values for worker in self._supervisor.workers]

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK)
            now = time.monotonic_ns()
            self._orders.look(now)
            if self._outliers.look(now):
                self._supervisor.tell(SetEjected(self._outliers.ejected))

    def _health_changed(self, _key: str, _healthy: bool) -> None:
        self._supervisor.tell(SetHealth(self._prober.healthy))

    def _export(self, spans: list[Span]) -> None:
        if self._spans is not None:
            self._spans.put(spans)

    async def _flush_spans(self) -> None:
        if self._spans is None:
            return
        # A daemon thread, not the loop's executor, which would be waited for: a collector may be a black hole.
        flushing = threading.Thread(target=self._spans.close, daemon=True)
        flushing.start()
        end = asyncio.get_running_loop().time() + LAST_SPANS
        while flushing.is_alive() and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.02)
        if flushing.is_alive():
            log.warning("the collector did not take the last traces within %g s; they are lost", LAST_SPANS)

    # -- reload -------------------------------------------------------------------------------------------------

    async def reload(self) -> Reload:
        """Reads the file again; all workers take it, or nothing changes. Never raises for a bad file."""
        async with self._reloading:
            outcome = await self._reload()
        self.last_reload = outcome
        applied = "applied" if outcome.applied else "refused"
        self._own.add(self._catalogue.place(names.RELOADS, (("result", applied),)))
        if outcome.applied:
            log.info("generation %d is in force on all workers", outcome.generation)
        else:
            log.error("reload refused, generation %d stays in force:\n%s", self.generation, outcome.error)
        return outcome

    async def _reload(self) -> Reload:
        loop = asyncio.get_running_loop()
        try:
            config = await loop.run_in_executor(None, load, self.path)
        except ConfigError as error:
            return Reload(False, self.generation, str(error))
        fixed = needs_restart(self.config, config)
        if self.draining:  # its workers hear of nothing new
            return Reload(False, self.generation, f"{self.path}: error: the gateway is stopping")
        if fixed:
            return Reload(
                False, self.generation, f"{self.path}: error: {fixed} cannot change while running; restart instead"
            )
        try:
            allot(self._catalogue, config, self._workers)
        except StartError as error:
            return Reload(False, self.generation, f"{self.path}: error: {error}")
        before = self.config
        self.config = config
        self.generation += 1
        self._allot()
        self._supervisor.tell(self._welcome())
        try:
            await self._supervisor.in_force(self.generation, RELOAD_TIMEOUT)
        except (StartError, TimeoutError) as error:
            why = str(error) or f"no answer within {RELOAD_TIMEOUT:g} s"
            # Put the old one back everywhere, under a number of its own: generations only grow.
            self.config = before
            self.generation += 1
            self._allot()
            self._supervisor.tell(self._welcome())
            return Reload(False, self.generation, f"a worker did not take it: {why}")
        self._prober.use(_checks(config))
        self._orders.use(config)
        self._outliers.use(config, time.monotonic_ns())
        self._supervisor.tell(SetHealth(self._prober.healthy))
        return Reload(True, self.generation, "")

    # -- breakers -----------------------------------------------------------------------------------------------

    async def force_breaker(self, pool: str, backend: str, state: str, seconds: float | None) -> tuple[str, list[Any]]:
        """Holds a backend's breakers open or closed on all workers, or leaves them to themselves again ("auto").

        Returns what is wrong with that, or how that backend now stands.
        """
        wrong = self._orders.set(self.config, pool, backend, state, seconds)
        if wrong:
            return wrong, []
        self._supervisor.tell(SetForced(self._orders.in_force()))
        self._orders.keep()
        return "", [each for each in await self.breakers() if (each["pool"], each["backend"]) == (pool, backend)]

    async def breakers(self) -> list[dict[str, Any]]:
        """Every backend's breaker, over all workers that answer."""
        workers = await self._supervisor.status()
        left = self._orders.left()
        found = []
        for name, pool in self.config.pools.items():
            for backend in pool.backends:
                seen = [
                    each
                    for worker in workers
                    for each in worker.get("backends", ())
                    if (each["pool"], each["name"]) == (name, backend.name)
                ]
                found.append(
                    over_workers(name, backend.name, seen, left.get(backend_key(name, backend_address(backend))))
                )
        return found

    # -- what the admin API asks --------------------------------------------------------------------------------

    def not_ready(self) -> list[str]:
        """Why the gateway should get no traffic; empty when it should."""
        if self.draining or self._stop.is_set():
            return ["draining"]
        late = [w.number for w in self._supervisor.workers if w.generation < self.generation]
        reasons = [f"worker {number} does not have generation {self.generation} yet" for number in late]
        if not any(self._answerable()):
            reasons.append("no route can be answered: every backend is out")
        return reasons

    def _answerable(self) -> list[bool]:
        healthy = self._prober.healthy

        def alive(pool: str) -> bool:
            return any(
                healthy.get(backend_key(pool, backend_address(b)), True) for b in self.config.pools[pool].backends
            )

        answers = []
        for route in self.config.routes:
            rungs = [getattr(rung, "pool", None) for rung in route.degrade]
            static = any(hasattr(rung, "static") for rung in route.degrade)
            if route.pools:
                answers.append(static or any(alive(pool) for pool in (*route.pools, *rungs) if pool))
        return answers or [True]  # redirects and fixed answers need nobody

    def metrics(self) -> str:
        """Prometheus text over all workers."""
        workers = self._supervisor.workers
        own, place = self._own.values, self._catalogue.place
        own[place(names.GENERATION)] = self.generation
        own[place(names.WORKERS)] = sum(worker.channel is not None for worker in workers)
        own[place(names.STATE_FAILURES)] = self._orders.failures
        own[place(names.WORKER_RESTARTS)] = sum(worker.restarts for worker in workers)
        return render(self._catalogue, [self._own.values, *(worker.cells.values for worker in workers)])

    async def status(self) -> dict[str, Any]:
        """Everything an operator asks first."""
        reload = self.last_reload
        return {
            "generation": self.generation,
            "config": str(self.path),
            "uptime_s": round(time.time() - self.started, 1),
            "listen": self.listeners.said,
            "not_ready": self.not_ready(),
            "last_reload": reload.as_dict() if reload is not None else None,
            "store": {"embedded_pid": self._embedded.process.pid}
            if self._embedded and self._embedded.process
            else str(self._store),
            "health": self._prober.healthy,
            "ejected": sorted(self._outliers.ejected),
            "forced": {key: how for key, (how, _) in self._orders.in_force().items()},
            "workers": await self._supervisor.status(),
        }


def _try_access_log(path: str) -> None:
    """Raises StartError where a worker would never be able to open it."""
    if path in ("off", "-"):
        return
    try:
        with Path(path).open("ab"):
            pass
    except OSError as error:
        if error.errno in DISK_FULL:
            return  # the workers say so, and open it when there is room
        raise StartError(f"access_log.path: cannot write '{path}': {error.strerror}") from None


def _checks(config: Config) -> list[Check]:
    return [
        Check(
            backend_key(name, backend_address(backend)),
            backend_address(backend),
            pool.health.path,
            pool.health.interval,
            pool.health.timeout,
            pool.health.unhealthy_after,
            pool.health.healthy_after,
            tls,
        )
        for name, pool in config.pools.items()
        if pool.health is not None
        for backend, tls in zip(pool.backends, backend_tls(pool), strict=True)
    ]
