"""Stores of several servers, all Valkey on free loopback ports: a master with replicas and sentinels, and a cluster.

Each server may be killed, stopped (SIGSTOP) and started again on its port. Everything ends with `close`, and with us.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from gateway.processes import die_with_parent
from loadtests.peers.processes import NotUp, free_ports
from loadtests.peers.programs import find_tls_store, find_valkey

SERVICE = "main"


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Waits until it holds. Raises NotUp."""
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except redis.RedisError:
            pass
        if time.monotonic() > end:
            raise NotUp(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class Guard:
    """Who gets in: a password (of `username`, if that is given, else of everybody), the same or another one for
    sentinels; and TLS with `cert.pem`, `key.pem` and `ca.pem` of a folder.
    """

    password: str = ""
    username: str = ""
    sentinel_password: str = ""
    certificates: Path | None = None

    def login(self) -> list[str]:
        """Options of a data node: its own login, and how it logs in at its master."""
        if self.username:
            rules = ["--user", self.username, "on", f">{self.password}", "~*", "&*", "+@all"]
            return [*rules, "--user", "default", "off", "--masteruser", self.username, "--masterauth", self.password]
        return ["--requirepass", self.password, "--masterauth", self.password] if self.password else []

    def listen(self, port: int) -> dict[str, str]:
        """Options of every server: where it listens."""
        if self.certificates is None:
            return {"port": str(port)}
        files = {f"tls-{name}-file": str(self.certificates / f"{name}.pem") for name in ("cert", "key")}
        files["tls-ca-cert-file"] = str(self.certificates / "ca.pem")
        return {"port": "0", "tls-port": str(port), "tls-auth-clients": "no", "tls-replication": "yes", **files}

    def client(self, port: int, username: str, password: str) -> Any:
        """Someone who gets in."""
        tls: dict[str, Any] = (
            {"ssl": True, "ssl_ca_certs": str(self.certificates / "ca.pem")} if self.certificates else {}
        )
        return redis.Redis(
            host="127.0.0.1", port=port, socket_timeout=1, socket_connect_timeout=1, retry=Retry(NoBackoff(), 0),
            username=username or None, password=password or None, **tls,
        )  # fmt: skip


OPEN = Guard()


class Server:
    """One server process; `options` are of its command line, `environment` is added to ours."""

    def __init__(
        self,
        folder: Path,
        port: int,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        guard: Guard = OPEN,
        client: Any = None,
    ) -> None:
        self.guard = guard
        self.folder = folder
        self.port = port
        self.options = list(options)
        self.environment = dict(environment or {})
        self.client: Any = client or guard.client(port, guard.username, guard.password)
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        """Starts it and waits until it answers."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            listen = {**self.guard.listen(self.port), "bind": "127.0.0.1"}
            words = [word for name, value in listen.items() for word in (f"--{name}", value)]
            secure = self.guard.certificates is not None
            self.process = subprocess.Popen(
                ["redis-server" if secure else "valkey-server", *self.options, *words],
                executable=(find_tls_store() if secure else find_valkey()) or "valkey-server",
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self.environment},
                preexec_fn=die_with_parent,
            )
        until(self.client.ping, 10, f"a server on port {self.port}")

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Ends it at once; safe to call twice."""
        self.process.kill()
        self.process.wait()


PLAIN = ("--save", "", "--appendonly", "no", "--daemonize", "no")


class Watched:
    """A master, one replica and three sentinels that agree on a failover within about a second."""

    def __init__(self, folder: Path, guard: Guard = OPEN) -> None:
        ports = free_ports(5)
        self.guard = guard
        options = [*PLAIN, "--repl-diskless-sync-delay", "0", *guard.login()]
        self.servers = [Server(folder / f"server-{port}", port, options, guard=guard) for port in ports[:2]]
        self.servers[1].options += ["--replicaof", f"127.0.0.1 {ports[0]}"]
        self.sentinels = [
            Server(
                folder / f"sentinel-{port}", port, guard=guard, client=guard.client(port, "", guard.sentinel_password)
            )
            for port in ports[2:]
        ]
        self._started: list[Server] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        for server in self.servers:
            server.start()
            self._started.append(server)
        master, replica = self.servers
        until(lambda: replica.client.info("replication")["master_link_status"] == "up", 10, "a replica in step")
        for sentinel in self.sentinels:
            sentinel.folder.mkdir()
            file = sentinel.folder / "sentinel.conf"
            guard = self.guard
            lines = [f"{name} {value}" for name, value in guard.listen(sentinel.port).items()]
            lines += [
                f"sentinel monitor {SERVICE} 127.0.0.1 {master.port} 2",
                f"sentinel down-after-milliseconds {SERVICE} 400",
                f"sentinel failover-timeout {SERVICE} 3000",
            ]
            if guard.password:
                lines.append(f"sentinel auth-pass {SERVICE} {guard.password}")
            if guard.username:
                lines.append(f"sentinel auth-user {SERVICE} {guard.username}")
            if guard.sentinel_password:
                lines += [f"requirepass {guard.sentinel_password}", f"sentinel sentinel-pass {guard.sentinel_password}"]
            file.write_text("\n".join(lines) + "\n")
            sentinel.options = [str(file), "--sentinel"]
            sentinel.start()
            self._started.append(sentinel)

        def agreed() -> bool:
            about = [s.client.sentinel_master(SERVICE) for s in self.sentinels]
            return all(each["num-other-sentinels"] == 2 and each["num-slaves"] >= 1 for each in about)

        until(agreed, 15, "three sentinels that know each other and the replica")

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{s.port}' for s in self.sentinels)}/{SERVICE}"

    @property
    def guarded_url(self) -> str:
        """With the login of the data nodes, and TLS if they have it."""
        return _guarded(self.url, self.guard)

    @staticmethod
    def named(sentinel: Server) -> int:
        """The port of the master that a sentinel names."""
        return int(sentinel.client.sentinel_get_master_addr_by_name(SERVICE)[1])

    def master(self) -> Server:
        """Who says of itself that it is the master."""
        for server in self.servers:
            try:
                if server.client.info("replication")["role"] == "master":
                    return server
            except redis.RedisError:
                continue
        raise NotUp("there is no master")

    def close(self) -> None:
        for server in self._started:
            server.kill()


class Nodes:
    """A cluster of three masters without replicas."""

    def __init__(self, folder: Path, count: int = 3, guard: Guard = OPEN) -> None:
        self.guard = guard
        options = [*PLAIN, *guard.login(), "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        if guard.certificates is not None:
            options += ["--tls-cluster", "yes"]
        options += ["--cluster-require-full-coverage", "no"]
        ports = free_ports(2 * count)
        self.servers = [
            Server(folder / f"node-{port}", port, [*options, "--cluster-port", str(bus)], guard=guard)
            for port, bus in zip(ports[:count], ports[count:], strict=True)
        ]
        self._buses = dict(zip(ports[:count], ports[count:], strict=True))
        self._started: list[Server] = []
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        count = len(self.servers)
        for i, server in enumerate(self.servers):
            server.start()
            self._started.append(server)
            first, last = 16384 * i // count, 16384 * (i + 1) // count - 1
            server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            server.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        met = 0.0

        def whole() -> bool:
            nonlocal met
            if time.monotonic() - met > 1:  # what is not known by then is not tried again by itself: the node timeout
                self._meet()
                met = time.monotonic()
            about = [server.client.execute_command("CLUSTER INFO") for server in self.servers]
            return all(each["cluster_state"] == "ok" and int(each["cluster_slots_ok"]) == 16384 for each in about)

        until(whole, 15, "a cluster in which everybody knows everybody")

    def _meet(self) -> None:
        """Every two of them: gossip would bring them together, too, some seconds later."""
        for server, other in itertools.permutations(self.servers, 2):
            server.client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, self._buses[other.port])

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{s.port}' for s in self.servers)}"

    @property
    def guarded_url(self) -> str:
        """With the login of the nodes, and TLS if they have it."""
        return _guarded(self.url, self.guard)

    def owner(self, slot: int) -> Server:
        """The node that has `slot`, by its own word."""
        count = len(self.servers)
        return next(s for i, s in enumerate(self.servers) if 16384 * i // count <= slot < 16384 * (i + 1) // count)

    def move(self, slot: int, to: Server, *, finish: bool = True) -> None:
        """Moves a slot with its keys to another node; without `finish` it stays half way, so that ASK is said."""
        source = self.owner(slot)
        ids = {s.port: s.client.execute_command("CLUSTER", "MYID").decode() for s in self.servers}
        to.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source.port])
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to.port])
        while keys := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.client.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 2000, "KEYS", *keys)
        if finish:
            for server in (to, source, *self.servers):
                server.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[to.port])

    def close(self) -> None:
        for server in self._started:
            server.kill()


def _guarded(url: str, guard: Guard) -> str:
    login = f"{guard.username}:{guard.password}@" if guard.password else ""
    scheme, _, rest = url.partition("+")
    return f"{scheme}{'s' if guard.certificates else ''}+{rest.replace('://', f'://{login}', 1)}"


def stop_for(server: Server, seconds: float) -> None:
    """SIGSTOP, and SIGCONT afterwards."""
    server.signal(signal.SIGSTOP)
    time.sleep(seconds)
    server.signal(signal.SIGCONT)
