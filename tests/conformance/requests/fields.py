"""What fields do to a message on its way: Connection, hop-by-hop, Expect, Upgrade, limits, pipelining, forged origins."""

from tests.conformance.case import (
    CHUNKED,
    ENDLESS,
    LAST,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    SMUGGLED,
    Family,
    Once,
    get,
    post,
)

POST = b"POST / HTTP/1.1"
ABC = Once(POST, body=b"abc")

connection = Family("Connection", "RFC 9110 7.6.1")
connection.passes("names one", get(b"Connection: x-a", b"X-A: b", b"X-C: d"), Once(fields=b"x-c: d\r\n"))
connection.passes("names two", get(b"Connection: X-A , x-b", b"X-A: b", b"X-B: d"), Once())
connection.passes("behind the field", get(b"X-A: b", b"Connection: x-a"), Once())
connection.passes("in two lines", get(b"Connection: keep-alive", b"X-A: b", b"Connection: x-a"), Once())
connection.passes("names what is not there", get(b"Connection: x-a"), Once())
connection.passes("empty elements", get(b"Connection: ,, x-a,,", b"X-A: b"), Once())
connection.passes("empty", get(b"Connection:"), Once())
connection.passes("no name", get(b"Connection: ;/?", b"A: b"), Once(fields=b"a: b\r\n"))
connection.passes("itself", get(b"Connection: connection"), Once())
connection.passes("tabs", get(b"Connection: \tx-a\t,\tx-b\t", b"X-A: b"), Once())
connection.passes(
    "names X-Forwarded-For",
    get(b"Connection: x-forwarded-for, x-request-id", b"A: b"),
    Once(fields=b"a: b\r\n"),
    note="ours stay",
)
connection.passes(
    "names Accept", get(b"Connection: accept", b"Accept: x"), Once(), note="nor does the cache key on it then"
)
connection.passes(
    "names Inference-Header-Content-Length",
    get(b"Connection: Inference-Header-Content-Length", b"Inference-Header-Content-Length: 3"),
    Once(),
)
connection.passes("close", get(b"Connection: close"), Once(), closes=True)
connection.passes("CLOSE", get(b"Connection: CLOSE"), Once(), closes=True)
connection.passes(
    "close and keep-alive", get(b"Connection: keep-alive, close"), Once(), closes=True, clause="RFC 9112 9.3"
)
connection.passes("close in two lines", get(b"Connection: close", b"Connection: keep-alive"), Once(), closes=True)
connection.passes(
    "close, then a request", get(b"Connection: close") + SMUGGLED, Once(), closes=True, clause="RFC 9112 9.6"
)
connection.passes("closed", get(b"Connection: closed") + get(), Once(), Once(), note="another word")
connection.passes(
    "Proxy-Connection",
    get(b"Proxy-Connection: close"),
    Once(),
    closes=True,
    note="not a field of HTTP, but meant; dropped",
)
for name in (
    b"Host",
    b"Content-Length",
    b"Authorization",
    b"Content-Type",
    b"Cookie",
    b"Cache-Control",
    b"Content-Encoding",
    b"Expect",
):
    connection.refused("names " + name.decode(), post(b"Connection: close, " + name, b"Content-Length: 3", body=b"abc"))

hops = Family("hop-by-hop", "RFC 9110 7.6.1")
for field in (
    b"Keep-Alive: timeout=5", b"TE: trailers", b"TE: gzip, chunked;q=0.5", b"Trailer: X-A", b"Proxy-Authorization: Basic YTpi",
    b"Proxy-Connection: keep-alive", b"Upgrade: websocket", b"Connection: TE, Trailer\r\nTE: trailers\r\nTrailer: a",
):  # fmt: skip
    hops.passes(field.partition(b"\r")[0].decode(), get(field, b"A: b"), Once(fields=b"a: b\r\n"))
for field in (
    b"X-Forwarded-For: 10.0.0.1", b"X-Forwarded-For: 127.0.0.1, 10.0.0.1", b"X-Forwarded-Host: evil", b"X-Forwarded-Proto: https",
    b"X-Real-IP: 10.0.0.1", b"Forwarded: for=10.0.0.1;host=evil", b"X-Request-Id: forged", b"X_Forwarded_For: 10.0.0.1",
    b"X_Real_IP: 10.0.0.1", b"X-FORWARDED-FOR: a\r\nx-forwarded-for: b", b"X_Forwarded-For: 10.0.0.1\r\nX-Forwarded_For: 10.0.0.1",
):  # fmt: skip
    hops.passes(
        "forged " + field.partition(b"\r")[0].decode(),
        get(field, b"A: b"),
        Once(fields=b"a: b\r\n"),
        note="only we say where it came from",
    )

expect = Family("Expect", "RFC 9110 10.1.1")
for value in (
    b"",
    b"100-continue, x",
    b"x, 100-continue",
    b"y 100-continue",
    b"100-continued",
    b"100",
    b"200-ok",
    b'"100-continue"',
    b"100-continue;q=1",
):
    expect.refused(
        value.decode() or "empty",
        post(b"Expect: " + value, b"Content-Length: 3", body=b"abc"),
        status=417,
        clause="RFC 9110 15.5.18",
    )
expect.refused("twice", post(b"Expect: 100-continue", b"Expect: 100-continue", b"Content-Length: 3", body=b"abc"))
expect.refused("blank before the colon", post(b"Expect : 100-continue", b"Content-Length: 3", body=b"abc"))
expect.refused("folded", post(b"Expect:\r\n 100-continue", b"Content-Length: 3", body=b"abc"))
expect.refused(
    "with a body too large",
    post(b"Expect: 100-continue", b"Content-Length: 99999"),
    "refused before it is asked for",
    status=413,
)
expect.refused("with CL and TE", post(b"Expect: 100-continue", b"Content-Length: 3", CHUNKED, body=LAST))
expect.passes(
    "capitals",
    post(b"Expect: 100-CONTINUE", b"Content-Length: 3", body=b"abc"),
    ABC,
    note="and not sent on: the body is here",
)
expect.passes("on GET", get(b"Expect: 100-continue") + get(), Once(), Once(), note="no body, no 100; the 0.CL gadget")
expect.passes(
    "on GET with a body",
    get(b"Expect: 100-continue", b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED,
    Once(body=SMUGGLED),
)
expect.passes("chunked", post(b"Expect: 100-continue", CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"), ABC)
expect.passes(
    "in 1.0", get(b"Expect: 100-continue", b"Content-Length: 3", line=b"POST / HTTP/1.0") + b"abc", ABC, closes=True
)
expect.passes(
    "then another request", post(b"Expect: 100-continue", b"Content-Length: 3", body=b"abc") + get(), ABC, Once()
)

upgrade = Family("Upgrade", "RFC 9110 7.8")
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
upgrade.passes("h2c", get(*H2C), Once(), note="ignored; a tunnel would pass by every decision")
upgrade.passes("h2c, then a request", get(*H2C) + get(), Once(), Once())
upgrade.passes(
    "h2c with a body",
    post(*H2C, b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED) + get(),
    Once(POST, body=SMUGGLED),
    Once(),
)
upgrade.passes("h2c in chunks", post(*H2C, CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n") + get(), ABC, Once())
upgrade.passes(
    "websocket",
    get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    Once(fields=b"sec-websocket-version: 13\r\n"),
)
upgrade.passes("not named by Connection", get(b"Upgrade: h2c"), Once())
upgrade.passes("named and absent", get(b"Connection: upgrade"), Once())
upgrade.passes("in 1.0", get(*H2C, line=b"GET / HTTP/1.0"), Once(), closes=True)
upgrade.passes("and close", get(b"Connection: upgrade, close", b"Upgrade: h2c"), Once(), closes=True)
upgrade.passes("TLS", get(b"Connection: Upgrade", b"Upgrade: TLS/1.2, HTTP/1.1"), Once())
upgrade.then_refused("h2c, then the preface", get(*H2C) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Once(), status=505)
upgrade.refused("with CL and TE", post(*H2C, b"Content-Length: 5", CHUNKED, body=LAST + SMUGGLED))

limits = Family("limits", "RFC 9110 5.4, RFC 6585 5")
ROOM = MAX_HEADER_BYTES - len(b"Hosta") - 4 - len(b"A") - 4
limits.passes("header bytes, exactly", get(b"A: " + b"x" * ROOM), Once(fields=b"a: " + b"x" * ROOM + b"\r\n"))
limits.refused("header bytes, one more", get(b"A: " + b"x" * (ROOM + 1)), status=431)
limits.refused("header bytes, far more", get(b"A: " + b"x" * 200_000), status=431)
limits.refused("a name without end", get(b"x" * ENDLESS), status=431)
limits.refused("a name far longer", get(b"x" * ENDLESS + b": b"), status=431)
MANY = [b"X-%d: y" % i for i in range(MAX_HEADERS - 1)]
limits.passes("fields, exactly", get(*MANY), Once(fields=b"".join(field.lower() + b"\r\n" for field in MANY)))
limits.refused("fields, one more", get(*MANY, b"Z: y"), status=431)
limits.refused("fields, far more", get(*[b"A: b"] * 2_000), status=431)
limits.refused("one field, repeated", get(*[b"A: b"] * MAX_HEADERS), "joined fields count too", status=431)
limits.refused("blanks without end", get(b"A:" + b" " * ENDLESS), status=431)
limits.refused(
    "empty lines behind a request line", b"GET / HTTP/1.1\r\n" + b"\r\n" * 10, "the head ended at once, without a Host"
)
limits.waits("half a request line", b"GET / HT", clause="RFC 9110 15.5.9")
limits.waits("half a head", b"GET / HTTP/1.1\r\nHost: a\r\nA: ", clause="RFC 9110 15.5.9")
limits.waits("no end of the head", b"GET / HTTP/1.1\r\nHost: a\r\n", clause="RFC 9110 15.5.9")

pipeline = Family("pipelining", "RFC 9112 9.3.2")
BAD = b"nonsense\r\n\r\n"
pipeline.passes("five", get() * 5, *[Once()] * 5)
pipeline.passes(
    "bodies and none",
    post(b"Content-Length: 3", body=b"abc") + get() + post(CHUNKED, body=b"3\r\nabc\r\n0\r\n\r\n"),
    ABC,
    Once(),
    ABC,
)
pipeline.passes("HEAD first", get(line=b"HEAD / HTTP/1.1") + get(), Once(b"HEAD / HTTP/1.1"), Once())
pipeline.then_refused("nonsense second", get() + BAD + SMUGGLED, Once(), note="nothing behind an error is read")
pipeline.then_refused("CL.TE second", get() + post(b"Content-Length: 5", CHUNKED, body=LAST + SMUGGLED), Once())
pipeline.then_refused("no Host second", get() + get(host=None) + SMUGGLED, Once())
pipeline.then_refused("bad path second", get() + get(line=b"GET /../ HTTP/1.1") + SMUGGLED, Once())
pipeline.then_refused(
    "too long second", get() + get(line=b"GET /%s HTTP/1.1" % (b"a" * 2000)) + SMUGGLED, Once(), status=414
)
pipeline.then_refused("bad chunk second", get() + post(CHUNKED, body=b"x\r\n") + SMUGGLED, Once())
pipeline.refused("nonsense first", BAD + get() * 3)
pipeline.refused("bad Host first", get(host=b"Host: a b") + get())
pipeline.passes(
    "fields do not leak",
    get(b"X-First: 1") + get(b"X-Second: 2"),
    Once(fields=b"x-first: 1\r\n"),
    Once(fields=b"x-second: 2\r\n"),
)
pipeline.passes(
    "paths do not leak",
    get(line=b"GET /a HTTP/1.1") + get(line=b"GET /b HTTP/1.1"),
    Once(b"GET /a HTTP/1.1"),
    Once(b"GET /b HTTP/1.1"),
)
pipeline.passes("hosts do not leak", get(host=b"Host: b") + get(), Once(host=b"b"), Once())

FAMILIES = (connection, hops, expect, upgrade, limits, pipeline)
