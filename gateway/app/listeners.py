"""The sockets a gateway listens on, and the files of those that have one: made once, before there are workers."""

from __future__ import annotations

import socket

from gateway.config.model import Config
from gateway.workers.sockets import SocketFile, listen_tcp, listen_unix


class Listeners:
    """Of one gateway. `said` is where it listens, for people."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._files: list[SocketFile] = []

    def open(self, config: Config, workers: int) -> list[list[socket.socket]]:
        """For each worker the sockets it accepts on: one of its own per TCP listener; a Unix one is shared.

        Raises StartError.
        """
        columns = []
        for listener in config.listen:
            listen = listener.address
            if listen.unix_path is not None:
                columns.append([self.open_unix(listen.unix_path, int(listener.mode, 8))] * workers)
                self.said.append(f"unix:{listen.unix_path}")
            else:
                sockets = listen_tcp(listen.host, listen.port, workers)
                columns.append(sockets)
                host = f"[{listen.host}]" if ":" in listen.host else listen.host
                self.said.append(f"{host}:{sockets[0].getsockname()[1]}")
        return [[column[number] for column in columns] for number in range(workers)]

    def open_unix(self, path: str, mode: int) -> socket.socket:
        """A socket whose file is removed with the others."""
        sock = listen_unix(path, mode)
        self._files.append(SocketFile(path))
        return sock

    def remove_files(self, keep: str | None = None) -> None:
        """Removes the sockets' files, but for the one at `keep`."""
        for file in self._files:
            if file.path != keep:
                file.remove()
