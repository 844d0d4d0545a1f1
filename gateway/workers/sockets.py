"""Listening sockets, made by the supervisor and inherited by the workers.

Each worker has its own SO_REUSEPORT socket, so the kernel spreads connections. The supervisor keeps every socket
open: when a worker dies, connections that wait in its backlog are served by its successor instead of being reset.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from gateway.errors import StartError

BACKLOG = 4096


def listen_tcp(host: str, port: int, count: int) -> list[socket.socket]:
    """`count` sockets on one address. Raises StartError in one plain line (port in use, no such address)."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # Without SO_REUSEPORT first: with it, binding beside another gateway would succeed in silence.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            address = probe.getsockname()  # port 0 has become a number
        return [_listen(family, address) for _ in range(count)]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(f"{where} is already in use; stop what listens there or change `listen`") from None
        raise StartError(f"cannot listen on {where}: {error.strerror or error}") from None


def _listen(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(address)
    sock.listen(BACKLOG)
    return sock


def listen_unix(path: str, mode: int = 0o660) -> socket.socket:
    """One socket that all workers accept from; its file has the permissions `mode` from the first moment.

    A stale socket file is replaced, anything else is left alone: also a link, and a socket that does not say clearly
    that nobody listens.
    """
    file = Path(path)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(file.lstat().st_mode):
            raise StartError(f"{path} exists and is not a socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            answer = probe.connect_ex(path)
        if answer != errno.ECONNREFUSED:
            raise StartError(f"unix:{path} is already in use; stop what listens there or change `listen`")
        try:
            file.unlink()
        except OSError as error:
            raise StartError(f"cannot replace the old socket {path}: {error.strerror}") from None
    sock = socket.socket(socket.AF_UNIX)
    try:
        old = os.umask(0o777 ^ mode)
        try:
            sock.bind(path)
        finally:
            os.umask(old)
        sock.listen(BACKLOG)
    except OSError as error:
        raise StartError(f"cannot listen on unix:{path}: {error.strerror or error}") from None
    return sock


class SocketFile:
    """The file of a unix socket just bound: removed at the end if it is still that one, not a successor's."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._identity = self._look()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = Path(self.path).lstat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        if self._identity is not None and self._look() == self._identity:
            with contextlib.suppress(OSError):
                Path(self.path).unlink()
        self._identity = None
