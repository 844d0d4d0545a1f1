"""aiohttp as a server. All servers answer alike, and say in X-Peer which connection they were asked on:

/hello      6 bytes of a stated length
/chunked    sixteen chunks of 64 KiB, aaa... to ppp...
/digest     size and SHA-256 of the body, as JSON
/nothing    204
"""

import hashlib
import sys

from aiohttp import web


async def hello(request):
    return web.Response(text="hello\n", headers=peer(request))


async def chunked(request):
    answer = web.StreamResponse(headers=peer(request))
    answer.enable_chunked_encoding()
    await answer.prepare(request)
    for number in range(16):
        await answer.write(bytes([97 + number]) * 65536)
    return answer


async def digest(request):
    digest, size = hashlib.sha256(), 0
    async for data in request.content.iter_any():
        digest.update(data)
        size += len(data)
    return web.json_response({"size": size, "sha256": digest.hexdigest()}, headers=peer(request))


async def nothing(request):
    return web.Response(status=204, headers=peer(request))


def peer(request):
    host, port = request.transport.get_extra_info("peername")
    return {"x-peer": f"{host}:{port}"}


app = web.Application()
app.router.add_get("/hello", hello)
app.router.add_get("/chunked", chunked)
app.router.add_post("/digest", digest)
app.router.add_get("/nothing", nothing)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
