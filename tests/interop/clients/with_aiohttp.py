"""aiohttp, one session; and its WebSocket."""

import asyncio
import sys
import time

import aiohttp
from common import BINARY, LARGE, SMALL, atell, digest, pieces

base, kept = sys.argv[1:]


async def slices():
    for piece in pieces():
        yield piece


async def main():
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        await cases(session)


async def cases(session):
    async def get():
        async with session.get(f"{base}/o/hello") as answer:
            return {"status": answer.status, "body": await answer.text(), "type": answer.headers["content-type"]}

    async def head():
        async with session.head(f"{base}/o/hello") as answer:
            return {"status": answer.status, "body": await answer.text(), "length": answer.headers["content-length"]}

    async def upload(data, expect=False):
        headers = {"content-type": "application/json"} if data is SMALL else {}
        async with session.post(f"{base}/o/digest", data=data, headers=headers, expect100=expect) as answer:
            return {"status": answer.status, "told": await answer.json()}

    async def download(query):
        async with session.get(f"{base}/o/large{query}") as answer:
            body = await answer.read()
            length = answer.headers.get("content-length")
            return {"status": answer.status, "sha256": digest(body), "length": length}

    async def keep_alive():
        statuses = []
        for _ in range(6):
            async with session.get(f"{kept}/o/hello") as answer:
                await answer.read()
                statuses.append(answer.status)
        return {"statuses": statuses}

    async def zipped():
        async with session.get(f"{base}/o/gzip", headers={"accept-encoding": "gzip"}) as answer:
            raw = await answer.read()
            return {"status": answer.status, "sha256": digest(raw), "encoding": answer.headers["content-encoding"]}

    async def nothing():
        async with session.get(f"{base}/o/nothing") as answer:
            return {"status": answer.status, "body": await answer.text()}

    async def unchanged():
        async with session.get(f"{base}/o/tagged", headers={"if-none-match": '"v1"'}) as answer:
            return {"status": answer.status, "body": await answer.text(), "etag": answer.headers["etag"]}

    async def absent():
        async with session.get(f"{base}/no/such") as answer:
            told = (await answer.json(content_type=None))["status"]
            return {"status": answer.status, "type": answer.headers["content-type"], "told": told}

    async def redirect():
        async with session.get(f"{base}/o/redirect", allow_redirects=False) as first:
            await first.read()
        async with session.get(f"{base}/o/redirect") as last:
            return {"status": first.status, "location": first.headers["location"], "body": await last.text()}

    async def early_close():
        async with session.get(f"{base}/o/endless") as answer:
            some = await answer.content.readany()
            answer.close()
            return {"status": answer.status, "some": len(some) > 0}

    async def events():
        times, data = [], []
        async with session.get(f"{base}/o/events") as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    times.append(time.monotonic())
                    data.append(line[6:].decode().strip())
            return {"status": answer.status, "type": answer.headers["content-type"], "data": data, "times": times}

    async def websocket():
        async with session.ws_connect(f"{base}/ws", protocols=("a", "echo")) as socket:
            await socket.send_str("grüße")
            text = await socket.receive_str(timeout=30)
            await socket.send_bytes(BINARY)
            binary = await socket.receive_bytes(timeout=30)
            seen = {"protocol": socket.protocol, "text": text, "sha256": digest(binary)}
            await socket.close(code=4002, message=b"enough")
        return seen

    async def websocket_ping():
        async with session.ws_connect(f"{base}/ws", autoping=False) as socket:
            await socket.ping(b"are you there")
            message = await socket.receive(timeout=30)
            return {"pong": message.data.decode(), "kind": message.type.name}

    async def websocket_pinged():
        async with session.ws_connect(f"{base}/ws") as socket:
            await socket.send_str("ping me")
            return {"text": await socket.receive_str(timeout=30)}

    async def websocket_closed():
        async with session.ws_connect(f"{base}/ws") as socket:
            await socket.send_str("close 4001 bye")
            message = await socket.receive(timeout=30)
            return {"code": socket.close_code, "reason": message.extra}

    await atell("get", get)
    await atell("head", head)
    await atell("post", lambda: upload(SMALL))
    await atell("upload", lambda: upload(LARGE))
    await atell("upload-chunked", lambda: upload(slices()))
    await atell("expect", lambda: upload(LARGE, expect=True))
    await atell("download", lambda: download(""))
    await atell("download-chunked", lambda: download("?chunked"))
    await atell("keep-alive", keep_alive)
    await atell("gzip", zipped)
    await atell("204", nothing)
    await atell("304", unchanged)
    await atell("404", absent)
    await atell("redirect", redirect)
    await atell("early-close", early_close)
    await atell("events", events)
    await atell("websocket", websocket)
    await atell("websocket-ping", websocket_ping)
    await atell("websocket-pinged", websocket_pinged)
    await atell("websocket-closed", websocket_closed)


asyncio.run(main())
