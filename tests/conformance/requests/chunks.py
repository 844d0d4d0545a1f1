"""Chunked bodies: sizes, extensions, line ends and trailers (RFC 9112 section 7.1)."""

from tests.conformance.case import (
    CHUNKED,
    ENDLESS,
    LAST,
    MAX_BODY,
    SMUGGLED,
    SMUGGLED_CHUNK,
    Family,
    Once,
    chunked,
    get,
)

ABC = Once(b"POST / HTTP/1.1", body=b"abc")

size = Family("chunk-size", "RFC 9112 7.1")
for what, line in {
    "plus": b"+3", "minus": b"-3", "0x": b"0x3", "0X": b"0X3", "blank behind": b"3 ", "tab behind": b"3\t",
    "blank in front": b" 3", "empty": b"", "letter": b"g", "letter behind": b"3g", "underscore": b"3_", "point": b"3.",
    "comma": b"3,3", "quoted": b'"3"', "NUL behind": b"3\x00", "vertical tab behind": b"3\x0b",
    "high byte": b"\xb3", "full-width digit": b"\xef\xbc\x93", "overflow of 64 bits": b"10000000000000003",
    "overflow by far": b"f" * 40, "minus one": b"-1", "L": b"3L", "h": b"3h",
}.items():  # fmt: skip
    size.refused(what, chunked(line + b"\r\nabc\r\n0\r\n\r\n" + SMUGGLED))
size.waits("largest of 64 bits", chunked(b"f" * 16 + b"\r\nabc"), "counted as it comes; 413 at the limit")
size.refused(
    "over the limit",
    chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (MAX_BODY + 1, b"x" * (MAX_BODY + 1))),
    status=413,
    clause="RFC 9110 15.5.14",
)
size.refused(
    "over the limit in the sum", chunked(b"800\r\n%s\r\n" % (b"x" * 2048) * 3), status=413, clause="RFC 9110 15.5.14"
)
size.passes(
    "exactly the limit",
    chunked(b"%x\r\n%s\r\n0\r\n\r\n" % (MAX_BODY, b"x" * MAX_BODY)),
    Once(b"POST / HTTP/1.1", body=b"x" * MAX_BODY),
)
size.passes("leading zeros", chunked(b"0000000000000000000003\r\nabc\r\n0\r\n\r\n"), ABC)
size.passes("many zeros at the end", chunked(b"3\r\nabc\r\n0000\r\n\r\n"), ABC)
size.passes("capital digits", chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), Once(b"POST / HTTP/1.1", body=b"0123456789"))
size.passes("one by one", chunked(b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"), ABC)
size.passes("nothing", chunked(LAST), Once(b"POST / HTTP/1.1", body=b""))
size.passes("a request inside", chunked(SMUGGLED_CHUNK + LAST), Once(b"POST / HTTP/1.1", body=SMUGGLED))
size.passes("then another request", chunked(b"3\r\nabc\r\n0\r\n\r\n") + get(), ABC, Once())

ends = Family("chunk-ends", "RFC 9112 7.1, 2.2")
for what, body in {
    "LF behind the size": b"3\nabc\r\n0\r\n\r\n",
    "LF behind the data": b"3\r\nabc\n0\r\n\r\n",
    "LF behind the last size": b"3\r\nabc\r\n0\n\r\n",
    "LF at the very end": b"3\r\nabc\r\n0\r\n\n",
    "LF everywhere": b"3\nabc\n0\n\n",
    "CR behind the size": b"3\rabc\r\n0\r\n\r\n",
    "CR behind the data": b"3\r\nabc\r0\r\n\r\n",
    "CR CR LF behind the size": b"3\r\r\nabc\r\n0\r\n\r\n",
    "CR CR LF behind the data": b"3\r\nabc\r\r\n0\r\n\r\n",
    "CR at the very end": b"3\r\nabc\r\n0\r\n\rX",
    "nothing behind the data": b"3\r\nabc0\r\n\r\n",
    "two bytes of anything behind the data": b"3\r\nabcXX0\r\n\r\n",
    "data longer than the size": b"3\r\nabcd\r\n0\r\n\r\n",
    "data shorter than the size": b"5\r\nabc\r\n0\r\n\r\n",
    "an empty line in front": b"\r\n3\r\nabc\r\n0\r\n\r\n",
    "an empty line between": b"3\r\nabc\r\n\r\n0\r\n\r\n",
    "no size at all": b"xyz\r\n0\r\n\r\n",
    "spilling into the size": b"2\r\nab3\r\n0\r\n\r\n",
}.items():
    ends.refused(what, chunked(body + SMUGGLED))
ends.waits("no last chunk", chunked(b"3\r\nabc\r\n"))
ends.waits("no end of the trailers", chunked(b"3\r\nabc\r\n0\r\n"))
ends.waits("half of the data", chunked(b"3\r\nab"))
ends.waits("half of a size", chunked(b"3"))

extensions = Family("chunk-extensions", "RFC 9112 7.1.1")
for what, extension in {
    "name": b";a", "name and value": b";a=b", "quoted value": b';a="b c"', "escaped quote": b';a="\\""', "two": b";a=b;c=d",
    "quoted semicolon": b';a=";"',
}.items():  # fmt: skip
    extensions.passes(what, chunked(b"3%s\r\nabc\r\n0\r\n\r\n" % extension), ABC, note="ignored and not sent on")
extensions.passes("at the last chunk", chunked(b"3\r\nabc\r\n0;a=b\r\n\r\n"), ABC)
extensions.passes(
    "no name", chunked(b"3;=b\r\nabc\r\n0\r\n\r\n"), ABC, note="not the grammar; llhttp lets it pass, nobody sees it"
)
for what, extension in {
    "empty": b";", "two semicolons": b";;", "blank in front": b" ;a", "blank behind the semicolon": b"; a", "blank behind the name": b";a ",
    "LF inside": b";a\nb", "LF inside a quoted value": b';a="\n"', "CR inside": b";a\rb", "CR LF inside a quoted value": b';a="\r\n"',
    "NUL": b";\x00", "control byte": b";a\x01", "DEL": b";a\x7f", "high byte": b";a\xff", "quote not closed": b';a="b',
    "text behind the quote": b';a="b"c', "LF and a size": b";\n0\r\n\r\n" + SMUGGLED + b"3",
}.items():  # fmt: skip
    extensions.refused(
        what,
        chunked(b"3%s\r\nabc\r\n0\r\n\r\n" % extension + SMUGGLED),
        "EXT.TERM and TERM.EXT: who ends the line here?",
    )
extensions.refused("huge", chunked(b"3;" + b"a" * ENDLESS), status=431, note="no number of bytes is read for nothing")
extensions.refused("many", chunked(b"1;%s\r\na\r\n" % (b"a" * 50) * 5_000), status=413, clause="RFC 9110 15.5.14")

trailers = Family("trailers", "RFC 9112 7.1.2, RFC 9110 6.5.1")
NEXT = get(b"A: next")
SAW_NEXT = Once(fields=b"a: next\r\n")
for what, field in {
    "any": b"X-Any: 1", "Host": b"Host: evil", "Authorization": b"Authorization: evil", "Cookie": b"Cookie: a=b",
    "X-Forwarded-For": b"X-Forwarded-For: 10.0.0.1", "Content-Type": b"Content-Type: evil", "Trailer": b"Trailer: a",
    "Upgrade": b"Upgrade: h2c", "several": b"A: b\r\nC: d\r\nE: f", "Expect": b"Expect: 100-continue",
}.items():  # fmt: skip
    trailers.passes(
        what,
        chunked(b"3\r\nabc\r\n0\r\n" + field + b"\r\n\r\n") + NEXT,
        ABC,
        SAW_NEXT,
        note="dropped; not in the next one either",
    )
for what, field in {
    "Content-Length": b"Content-Length: 40", "Transfer-Encoding": CHUNKED, "no colon": b"A", "blank before the colon": b"A : b",
    "leading blank": b" A: b", "folded": b"A: b\r\n c", "NUL": b"A: \x00", "bare LF": b"A: b\nC: d", "bare CR": b"A: b\rC: d",
    "empty name": b": b", "Connection": b"Connection: close", "Proxy-Connection": b"Proxy-Connection: close", "a request line": b"GET /smuggled HTTP/1.1",
}.items():  # fmt: skip
    trailers.refused(what, chunked(b"3\r\nabc\r\n0\r\n" + field + b"\r\n\r\n" + SMUGGLED))
trailers.refused("one without end", chunked(b"0\r\nA: " + b"b" * ENDLESS), status=431)
trailers.refused("that never end", chunked(b"0\r\n" + b"A: b\r\n" * (ENDLESS // 6)), status=431)

FAMILIES = (size, ends, extensions, trailers)
