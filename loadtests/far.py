"""A proxy that makes a server look far away."""

from __future__ import annotations

import asyncio
import threading


class Far:
    """A TCP proxy that holds everything back for `delay` seconds, in both directions; in a thread of its own."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.delay = 0.0
        self.loop = asyncio.new_event_loop()
        self.port = 0
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(5)

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer), return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        due = 0.0  # nothing overtakes what came before it
        try:
            while data := await reader.read(65536):
                due = max(due + 1e-6, self.loop.time() + self.delay)
                self.loop.call_at(due, _write, writer, data)
        finally:
            self.loop.call_at(max(due + 1e-6, self.loop.time() + self.delay), writer.close)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(2)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)
