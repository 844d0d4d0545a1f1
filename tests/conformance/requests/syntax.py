"""Lines and what they are made of: line ends, white space, names, values, the request line (RFC 9112 sections 2-5)."""

from tests.conformance.case import SMUGGLED, Family, Once, get, post

line_ends = Family("line-ends", "RFC 9112 2.2")
line_ends.refused("LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n")
line_ends.refused("LF behind the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n")
line_ends.refused("LF behind a field", b"GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n")
line_ends.refused("LF at the end of the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n")
line_ends.refused("two LF at the end of the head", b"GET / HTTP/1.1\r\nHost: a\n\n" + SMUGGLED)
line_ends.refused("CR everywhere", b"GET / HTTP/1.1\rHost: a\r\r")
line_ends.refused("CR behind a field", get(b"A: b\rC: d"))
line_ends.refused("CR at the end of a value", get(b"A: b\r"))
line_ends.refused("CR CR LF", get(b"A: b\r\r\n"))
line_ends.refused("CR in front of the end", b"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n")
line_ends.refused("CR in a name", get(b"A\rB: c"))
line_ends.refused("CR in the request line", get(line=b"GET / HTTP/1.1\rA: b"))
line_ends.refused("LF CR", b"GET / HTTP/1.1\n\rHost: a\n\r\n\r")
line_ends.refused("a request behind LF in a value", get(b"A: b\n\n" + SMUGGLED))
line_ends.passes(
    "empty lines in front", b"\r\n\r\n" + get(), Once(), note="RFC 9112 2.2: at least one should be ignored"
)
line_ends.passes(
    "LF in front", b"\n" + get(), Once(), note="llhttp skips CR and LF in front of a request; nothing can hide there"
)
line_ends.passes("empty line between requests", get() + b"\r\n" + get(), Once(), Once())

folds = Family("obs-fold", "RFC 9112 5.2")
folds.refused("blank", get(b"A: b\r\n c"))
folds.refused("tab", get(b"A: b\r\n\tc"))
folds.refused("blanks only", get(b"A: b\r\n "))
folds.refused("first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n")
folds.refused("first line is blank", b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n")
folds.refused("in Host", get(host=b"Host: a\r\n b"))
folds.refused("empty value in front", get(b"A:\r\n b"))
folds.refused("that looks like a field", get(b"A: b\r\n Content-Length: 5") + b"abcde")
folds.refused("at the end", b"GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n")

control = Family("control-bytes", "RFC 9110 5.5")
for byte in (0x00, 0x01, 0x07, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F):
    control.refused(f"{byte:02x} in a value", get(b"A: b%cc" % byte))
for byte in (0x00, 0x0B, 0x7F):
    control.refused(f"{byte:02x} in the target", get(line=b"GET /a%cb HTTP/1.1" % byte))
    control.refused(f"{byte:02x} in the method", get(line=b"G%cET / HTTP/1.1" % byte))
control.refused("00 at the end of a value", get(b"A: b\x00"))
control.refused("00 in front of the request", b"\x00" + get())
control.refused("00 in the version", get(line=b"GET / HTTP/1.1\x00"))
control.passes("tab in a value", get(b"A: b\tc"), Once(fields=b"a: b\tc\r\n"))
control.passes(
    "obs-text in a value",
    get(b"A: \xc3\xbc\xff"),
    Once(fields=b"a: \xc3\xbc\xff\r\n"),
    note="opaque, and sent on as it is",
)

names = Family("field-names", "RFC 9110 5.1, 5.6.2; RFC 9112 5.1")
names.refused("blank before the colon", get(b"A : b"))
names.refused("tab before the colon", get(b"A\t: b"))
names.refused("blank before the colon of Host", get(host=b"Host : a"))
names.refused("blank inside", get(b"A B: c"))
names.refused("leading blank", get(b"A: b", b" C: d"))
names.refused("empty", get(b": b"))
names.refused("only a colon", get(b":"))
names.refused("no colon", get(b"A"))
names.refused("a request line", get(b"GET /smuggled HTTP/1.1"))
for character in b'"(),/;<=>?@[\\]{}':
    names.refused(f"with {character:c}", get(b"A%cB: c" % character))
names.refused("high byte", get(b"A\xffB: c"))
names.refused("UTF-8", get(b"H\xc3\xb6st: c"))
names.refused("NUL", get(b"A\x00: b"))
names.refused("non-breaking blank", get(b"A\xa0: b"))
names.passes("every token character", get(b"!#$%&'*+-.^_`|~0aZ: b"), Once(fields=b"!#$%&'*+-.^_`|~0az: b\r\n"))
names.passes("empty value", get(b"A:", b"B: "), Once(fields=b"a: \r\nb: \r\n"))
names.passes("value with colons", get(b"A:b:c: d"), Once(fields=b"a: b:c: d\r\n"))
names.passes("blanks around the value", get(b"A: \t b \t "), Once(fields=b"a: b\r\n"))
names.passes("repeated", get(b"A: b", b"C: d", b"a: e"), Once(fields=b"a: b, e\r\nc: d\r\n"), clause="RFC 9110 5.3")
names.passes(
    "cookies", get(b"Cookie: a=b", b"Cookie: c=d"), Once(fields=b"cookie: a=b; c=d\r\n"), clause="RFC 6265 5.4"
)
names.refused("Content-Type twice", get(b"Content-Type: a/b", b"Content-Type: c/d"), clause="RFC 9110 5.3")
names.refused("Authorization twice", get(b"Authorization: a", b"authorization: b"), clause="RFC 9110 5.3")

versions = Family("versions", "RFC 9112 2.3, RFC 9110 15.6.6")
for text, status in {
    b"http/1.1": 400, b"Http/1.1": 400, b"HTTP /1.1": 400, b"HTTP/ 1.1": 400, b"HTTP/1": 400, b"HTTP/1.": 400, b"HTTP/.1": 400,
    b"HTTP/1,1": 400, b"HTTP/1.1.1": 400, b"HTTP/1.10": 400, b"HTTP/11.1": 400, b"HTTP/01.1": 400, b"HTTP/-1.1": 400,
    b"HTTP/1.x": 400, b"HTTP/": 400, b"HTTP": 400, b"HTTPS/1.1": 400, b"XHTTP/1.1": 400, b"HTTP\\1.1": 400, b"HTTP//1.1": 400,
    b"ICE/1.0": 400, b"SIP/2.0": 400, b"HTTP/2": 400, b"HTTP/1.2": 505, b"HTTP/1.9": 505, b"HTTP/0.9": 505, b"HTTP/0.1": 505,
    b"HTTP/2.0": 505, b"HTTP/3.0": 505, b"HTTP/9.9": 505, b"RTSP/1.0": 505, b"RTSP/1.1": 505,
}.items():  # fmt: skip
    versions.refused(text.decode(), get(line=b"GET / " + text), status=status)
versions.refused("none", b"GET /\r\n\r\n", "HTTP/0.9", status=505)
versions.refused("none, with fields", b"GET /\r\nHost: a\r\n\r\n", status=505)
versions.refused("preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", status=505, clause="RFC 9113 3.4")
versions.refused("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(32))
versions.refused("RTSP behind a request", get(b"Connection: keep-alive", line=b"OPTIONS / RTSP/1.0"), status=505)
versions.then_refused(
    "RTSP behind a body that looks like a head",
    post(b"Content-Length: 18", body=b"GET / HTTP/1.1\r\na:") + get(line=b"GET / RTSP/1.1"),
    Once(b"POST / HTTP/1.1", body=b"GET / HTTP/1.1\r\na:"),
    status=505,
)
versions.then_refused(
    "RTSP behind a body and a request",
    post(b"Content-Length: 2", body=b"ab") + get(line=b"GET /b HTTP/1.1") + get(line=b"GET / RTSP/1.1"),
    Once(b"POST / HTTP/1.1", body=b"ab"),
    Once(b"GET /b HTTP/1.1"),
    status=505,
)
versions.then_refused("RTSP behind another", get() + get(line=b"GET / RTSP/1.0"), Once(), status=505)
versions.refused("RTSP, with empty lines in front", b"\r\n\r\n" + get(line=b"GET / RTSP/1.0"), status=505)
versions.passes("RTSP in a field", get(b"A: b RTSP/1.0"), Once(fields=b"a: b RTSP/1.0\r\n"))
versions.passes("RTSP in the first field", get(b"Host: a", host=b"A: b RTSP/1.0"), Once(fields=b"a: b RTSP/1.0\r\n"))
versions.passes("1.0", get(line=b"GET / HTTP/1.0"), Once(), closes=True, note="said anew as 1.1")
versions.passes("1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", Once(host=b"ORIGIN"), closes=True)
versions.passes("1.0 with keep-alive", get(b"Connection: keep-alive", line=b"GET / HTTP/1.0"), Once())
versions.passes(
    "1.0 with keep-alive and close",
    get(b"Connection: keep-alive, close", line=b"GET / HTTP/1.0"),
    Once(),
    closes=True,
    clause="RFC 9112 9.3",
)

methods = Family("methods", "RFC 9110 9.1, RFC 9112 3.1")
for text, status in {
    b"get": 400, b"Get": 400, b"GETX": 400, b"XGET": 400, b"G ET": 400, b"GET\t": 400, b"": 400, b"FOO": 400, b"GET,": 400,
    b"[GET]": 400, b'"GET"': 400, b"GET\xff": 400, b"A" * 2000: 400, b"CONNECT": 501, b"SOURCE": 501, b"PRI": 505,
    b"DESCRIBE": 400, b"PLAY": 400,
}.items():  # fmt: skip
    methods.refused(text[:20].decode("latin-1").strip() or "none", get(line=text + b" / HTTP/1.1"), status=status)
methods.refused("CONNECT as meant", get(line=b"CONNECT a:443 HTTP/1.1"), status=501, clause="RFC 9110 9.3.6")
methods.refused("TRACE", get(line=b"TRACE / HTTP/1.1"), status=501, clause="RFC 9110 9.3.8")
methods.refused("RTSP's own", get(line=b"DESCRIBE / RTSP/1.0"), status=505)
methods.refused("ICE's own", get(line=b"SOURCE / ICE/1.0"), status=501)
for method in (b"HEAD", b"OPTIONS", b"DELETE", b"PROPFIND", b"QUERY"):
    methods.passes(method.decode(), get(line=method + b" / HTTP/1.1"), Once(method + b" / HTTP/1.1"))

blanks = Family("request-line-blanks", "RFC 9112 3")
for what, line in {
    "leading blank": b" GET / HTTP/1.1", "leading tab": b"\tGET / HTTP/1.1", "trailing blank": b"GET / HTTP/1.1 ",
    "trailing tab": b"GET / HTTP/1.1\t", "tab behind the method": b"GET\t/ HTTP/1.1", "tab behind the target": b"GET /\tHTTP/1.1",
    "vertical tab": b"GET\x0b/ HTTP/1.1", "form feed": b"GET /\x0cHTTP/1.1", "blank in the target": b"GET /a b HTTP/1.1",
    "blank in the query": b"GET /?a b HTTP/1.1", "tab in the query": b"GET /?a\tb HTTP/1.1", "no target": b"GET HTTP/1.1",
    "only a method": b"GET", "nothing but a target": b"/ HTTP/1.1", "two targets": b"GET /a /b HTTP/1.1",
    "a request in the target": b"GET /?a HTTP/1.1 HTTP/1.1", "CR behind the method": b"GET\r/ HTTP/1.1",
}.items():  # fmt: skip
    blanks.refused(what, get(line=line))
blanks.passes(
    "two behind the method", get(line=b"GET  / HTTP/1.1"), Once(), note="RFC 9112 3 allows it; said anew with one"
)
blanks.passes("two behind the target", get(line=b"GET /  HTTP/1.1"), Once(), note="the same")

FAMILIES = (line_ends, folds, control, names, versions, methods, blanks)
