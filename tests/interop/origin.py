"""The server behind the gateway, in a thread with a loop of its own; and a relay that counts connections.

Every path begins with the name of the run that asks, so that runs may overlap: /curl-direct/o/hello.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from aiohttp import web

SIZE = 5 * 1024 * 1024
LARGE = (bytes(range(251)) * (SIZE // 251 + 1))[:SIZE]
PLAIN = b"the same words again and again, " * 1000
ZIPPED = gzip.compress(PLAIN, mtime=0)


class Origin:
    def __init__(self) -> None:
        self.port = 0
        self.broken_off: set[str] = set()
        self.closes: defaultdict[str, list[int | None]] = defaultdict(list)
        self.connections: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()

    async def start(self) -> web.AppRunner:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/{run}/o/hello", self.hello)
        app.router.add_post("/{run}/o/digest", self.digest)
        app.router.add_get("/{run}/o/large", self.large)
        app.router.add_get("/{run}/o/gzip", self.gzip)
        app.router.add_get("/{run}/o/nothing", self.nothing)
        app.router.add_get("/{run}/o/tagged", self.tagged)
        app.router.add_get("/{run}/o/redirect", self.redirect)
        app.router.add_get("/{run}/o/endless", self.endless)
        app.router.add_get("/{run}/o/events", self.events)
        app.router.add_get("/{run}/ws", self.ws)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.port = runner.addresses[0][1]
        return runner

    async def hello(self, _request: web.Request) -> web.Response:
        return web.Response(text="hello\n")

    async def digest(self, request: web.Request) -> web.Response:
        digest, size = hashlib.sha256(), 0
        async for data in request.content.iter_any():
            digest.update(data)
            size += len(data)
        how = "chunked" if request.headers.get("transfer-encoding") else "stated"
        kind = request.headers.get("content-type")
        return web.json_response({"sha256": digest.hexdigest(), "size": size, "how": how, "type": kind})

    async def large(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={} if "chunked" in request.query else {"content-length": str(SIZE)})
        await answer.prepare(request)
        for start in range(0, SIZE, 65536):
            await answer.write(LARGE[start : start + 65536])
        return answer

    async def gzip(self, _request: web.Request) -> web.Response:
        return web.Response(body=ZIPPED, headers={"content-encoding": "gzip", "content-type": "text/plain"})

    async def nothing(self, _request: web.Request) -> web.Response:
        return web.Response(status=204)

    async def tagged(self, request: web.Request) -> web.Response:
        same = request.headers.get("if-none-match") == '"v1"'
        return web.Response(status=304 if same else 200, headers={"etag": '"v1"'})

    async def redirect(self, _request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": "hello"})

    async def endless(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(LARGE[:65536])
                await asyncio.sleep(0.001)
        except (OSError, aiohttp.ClientError, asyncio.CancelledError):
            self.broken_off.add(request.match_info["run"])
            raise

    async def events(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await answer.prepare(request)
        for number in range(4):
            await answer.write(f"data: {number}\n\n".encode())
            await asyncio.sleep(0.2)
        return answer

    async def ws(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(protocols=("echo",), autoping=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                await socket.send_str(f"ponged {message.data.decode()}")
            elif message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            elif message.data == "ping me":
                await socket.ping(b"you")
            elif message.data.startswith("close "):
                _, code, reason = message.data.split()
                await socket.close(code=int(code), message=reason.encode())
            else:
                await socket.send_str(message.data)
        self.closes[request.match_info["run"]].append(socket.close_code)
        return socket

    async def relay(self, run: str, port: int) -> int:
        """A port that leads to `port` and counts what is opened as `run`."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections[run] += 1
            behind = await asyncio.open_connection("127.0.0.1", port)

            async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
                try:
                    while data := await source.read(65536):
                        sink.write(data)
                        await sink.drain()
                except OSError:
                    pass
                finally:
                    sink.close()

            await asyncio.gather(pump(reader, behind[1]), pump(behind[0], writer))

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    def add_relay(self, run: str, port: int) -> int:
        return asyncio.run_coroutine_threadsafe(self.relay(run, port), self._loop).result(5)

    @contextmanager
    def running(self) -> Iterator[None]:
        runner = self._loop.run_until_complete(self.start())
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(runner.cleanup(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(10)
