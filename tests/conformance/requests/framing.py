"""Where a body ends: Content-Length and Transfer-Encoding that disagree, repeat or lie (RFC 9112 section 6)."""

from tests.conformance.case import CHUNKED, LAST, MAX_BODY, SMUGGLED, SMUGGLED_CHUNK, Family, Once, chunked, get, post

POST = b"POST / HTTP/1.1"
ABC = Once(POST, body=b"abc")

cl_te = Family("CL.TE", "RFC 9112 6.3")
cl_te.refused(
    "zero", post(b"Content-Length: 0", CHUNKED, body=LAST + SMUGGLED), "a reader of the length sees a second request"
)
cl_te.refused(
    "short", post(b"Content-Length: 5", CHUNKED, body=LAST + SMUGGLED), "both see one, but for whom is the rest?"
)
cl_te.refused("long", post(b"Content-Length: %d" % len(LAST + SMUGGLED), CHUNKED, body=LAST + SMUGGLED), "the classic")
cl_te.refused("same", post(b"Content-Length: 5", CHUNKED, body=LAST), "they agree, and are refused all the same")
cl_te.refused("in 1.0", post(b"Content-Length: 3", CHUNKED, body=b"abc", line=b"POST / HTTP/1.0"))
cl_te.refused("on GET", get(b"Content-Length: 3", CHUNKED) + LAST + SMUGGLED)
cl_te.refused("huge length", post(b"Content-Length: 99999999", CHUNKED, body=LAST), "either reason will do", status=400)
cl_te.refused("behind a keep-alive", post(b"Connection: keep-alive", b"Content-Length: 6", CHUNKED, body=LAST + b"G"))
cl_te.refused(
    "length named by Connection",
    post(b"Connection: content-length", b"Content-Length: 5", CHUNKED, body=LAST + SMUGGLED),
)

te_cl = Family("TE.CL", "RFC 9112 6.3")
te_cl.refused("classic", post(CHUNKED, b"Content-Length: 4", body=SMUGGLED_CHUNK + LAST))
te_cl.refused("zero", post(CHUNKED, b"Content-Length: 0", body=LAST + SMUGGLED))
te_cl.refused("short", post(CHUNKED, b"Content-Length: 1", body=LAST + SMUGGLED))
te_cl.refused("far apart", post(CHUNKED, b"A: b", b"C: d", b"Content-Length: 3", body=LAST + SMUGGLED))
te_cl.refused(
    "te named by Connection",
    post(b"Connection: transfer-encoding", CHUNKED, b"Content-Length: 5", body=LAST + SMUGGLED),
)

te_te = Family("TE.TE", "RFC 9112 6.1, 6.3")
for what, field in {
    "x": b"Transfer-Encoding: xchunked",
    "trailing letters": b"Transfer-Encoding: chunkedx",
    "quoted": b'Transfer-Encoding: "chunked"',
    "single quotes": b"Transfer-Encoding: 'chunked'",
    "parameter": b"Transfer-Encoding: chunked;q=1",
    "parameter with blank": b"Transfer-Encoding: chunked ; q=1",
    "trailing comma": b"Transfer-Encoding: chunked,",
    "leading comma": b"Transfer-Encoding: ,chunked",
    "chunked twice in a list": b"Transfer-Encoding: chunked, chunked",
    "chunked then identity": b"Transfer-Encoding: chunked, identity",
    "chunked then gzip": b"Transfer-Encoding: chunked, gzip",
    "blank inside": b"Transfer-Encoding: chun ked",
    "tab inside": b"Transfer-Encoding: chun\tked",
    "two words": b"Transfer-Encoding: chunked chunked",
    "vertical tab in front": b"Transfer-Encoding: \x0bchunked",
    "vertical tab behind": b"Transfer-Encoding: chunked\x0b",
    "form feed": b"Transfer-Encoding: \x0cchunked",
    "NUL behind": b"Transfer-Encoding: chunked\x00",
    "NUL in front": b"Transfer-Encoding: \x00chunked",
    "non-breaking blank": b"Transfer-Encoding: \xa0chunked",
    "high byte behind": b"Transfer-Encoding: chunked\xff",
    "tab behind": b"Transfer-Encoding: chunked\t",
    "empty": b"Transfer-Encoding:",
    "blank only": b"Transfer-Encoding:  ",
    "identity": b"Transfer-Encoding: identity",
    "gzip": b"Transfer-Encoding: gzip",
    "cow": b"Transfer-Encoding: cow",
    "null": b"Transfer-Encoding: null",
    "blank before the colon": b"Transfer-Encoding : chunked",
    "tab before the colon": b"Transfer-Encoding\t: chunked",
    "leading blank": b" Transfer-Encoding: chunked",
    "folded": b"Transfer-Encoding:\r\n chunked",
    "folded name": b"Transfer-\r\n Encoding: chunked",
    "folded behind": b"Transfer-Encoding: chunked\r\n ,identity",
    "bare LF in front": b"A: b\nTransfer-Encoding: chunked",
    "bare CR in front": b"A: b\rTransfer-Encoding: chunked",
    "bare CR behind the colon": b"Transfer-Encoding:\rchunked",
    "NUL in the name": b"Transfer-Encoding\x00: chunked",
    "long s": b"Tran\xc5\xbffer-Encoding: chunked",
    "two fields, the same": CHUNKED + b"\r\n" + CHUNKED,
    "two fields, identity first": b"Transfer-Encoding: identity\r\n" + CHUNKED,
    "two fields, identity last": CHUNKED + b"\r\nTransfer-Encoding: identity",
    "two fields, cow last": CHUNKED + b"\r\nTransfer-encoding: cow",
    "two fields, empty first": b"Transfer-Encoding:\r\n" + CHUNKED,
}.items():  # fmt: skip
    te_te.refused(what, post(field, body=LAST + SMUGGLED))
te_te.refused(
    "gzip, chunked", post(b"Transfer-Encoding: gzip, chunked", body=LAST), "a coding not known here", status=501
)
te_te.refused("identity, chunked", post(b"Transfer-Encoding: identity, chunked", body=LAST + SMUGGLED), status=501)
te_te.refused(
    "in 1.0", post(CHUNKED, body=LAST, line=b"POST / HTTP/1.0"), "faulty framing, and keep-alive cannot save it"
)
te_te.refused("in 1.0 with keep-alive", post(CHUNKED, b"Connection: keep-alive", body=LAST, line=b"POST / HTTP/1.0"))
te_te.passes(
    "capitals",
    post(b"TRANSFER-ENCODING: CHUNKED", body=b"3\r\nabc\r\n0\r\n\r\n"),
    ABC,
    note="names and codings know no case",
)
te_te.passes("no blank behind the colon", post(b"Transfer-Encoding:chunked", body=b"3\r\nabc\r\n0\r\n\r\n"), ABC)
te_te.passes(
    "tab in front",
    post(b"Transfer-Encoding: \tchunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    ABC,
    note="optional white space",
)
te_te.passes(
    "underscore",
    post(b"Transfer_Encoding: chunked", b"Content-Length: 3", body=b"abc"), ABC,
    note="another field; dropped, for CGI and WSGI read it as this one",
)  # fmt: skip
te_te.passes(
    "X-Transfer-Encoding",
    post(b"X-Transfer-Encoding: chunked", b"Content-Length: 3", body=b"abc"),
    Once(POST, b"x-transfer-encoding: chunked\r\n", b"abc"),
)  # fmt: skip

cl_0 = Family("CL.0", "RFC 9112 6.3")
BODY = Once(POST, body=SMUGGLED)
cl_0.passes(
    "a request as the body",
    post(b"Content-Length: %d" % len(SMUGGLED), body=SMUGGLED),
    BODY,
    note="the backend must be told the length",
)
cl_0.passes(
    "on GET", get(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED, Once(body=SMUGGLED), note="a GET may have a body"
)
cl_0.passes(
    "on DELETE", get(b"Content-Length: 3", line=b"DELETE / HTTP/1.1") + b"abc", Once(b"DELETE / HTTP/1.1", body=b"abc")
)
cl_0.passes(
    "on OPTIONS",
    get(b"Content-Length: 3", line=b"OPTIONS / HTTP/1.1") + b"abc",
    Once(b"OPTIONS / HTTP/1.1", body=b"abc"),
)
cl_0.passes("chunked on GET", get(CHUNKED) + SMUGGLED_CHUNK + LAST, Once(body=SMUGGLED))
cl_0.passes("GET of length 0", get(b"Content-Length: 0"), Once(), note="no body, so no framing is said")
cl_0.passes("POST without a length", post(), Once(POST, body=b""), note="RFC 9110 8.6: a POST should say 0")
cl_0.passes("PUT without a length", get(line=b"PUT / HTTP/1.1"), Once(b"PUT / HTTP/1.1", body=b""))
cl_0.passes("a body, then another request", post(b"Content-Length: 3", body=b"abc") + get(), ABC, Once())
cl_0.then_refused(
    "a body longer than stated",
    post(b"Content-Length: 2", body=b"abc"),
    Once(POST, body=b"ab"),
    note="'c' begins no method",
)
cl_0.then_refused(
    "a body nobody stated",
    post(body=b"a=b\r\n\r\n"),
    Once(POST, body=b""),
    note="what follows is the next request, and is none",
)
cl_0.waits("a body shorter than stated", post(b"Content-Length: 4", body=b"abc"))
cl_0.waits("no byte of the body", post(b"Content-Length: 4"))
cl_0.passes(
    "underscore",
    post(b"Content_Length: 30", b"Content-Length: 3", body=b"abc"),
    ABC,
    note="dropped, as with Transfer_Encoding",
)
cl_0.passes(
    "on HEAD", get(b"Content-Length: 3", line=b"HEAD / HTTP/1.1") + b"abc", Once(b"HEAD / HTTP/1.1", body=b"abc")
)
cl_0.passes(
    "on Connection: close",
    post(b"Connection: close", b"Content-Length: 3", body=b"abc"),
    ABC,
    closes=True,
    clause="RFC 9112 9.6",
)
cl_0.passes(
    "behind Connection: close", post(b"Connection: close", b"Content-Length: 3", body=b"abc" + SMUGGLED), ABC,
    closes=True, clause="RFC 9112 9.6", note="what comes after the last request is nobody's",
)  # fmt: skip
cl_0.passes(
    "chunked on Connection: close", chunked(b"3\r\nabc\r\n0\r\n\r\n" + SMUGGLED, b"Connection: close"), ABC,
    closes=True, clause="RFC 9112 9.6",
)  # fmt: skip

length = Family("Content-Length", "RFC 9110 8.6, RFC 9112 6.3")
for what, value in {
    "plus": b"+3", "minus": b"-3", "minus zero": b"-0", "hexadecimal": b"0x3", "hex digits": b"a", "octal": b"0o3",
    "point": b"3.0", "exponent": b"3e0", "underscore": b"0_3", "comma list, the same": b"3, 3",
    "comma list, different": b"3, 4", "trailing comma": b"3,", "leading comma": b",3", "two words": b"3 3",
    "semicolon": b"3;a", "letters behind": b"3a", "letters in front": b"a3", "quoted": b'"3"', "empty": b"",
    "blank only": b" ", "arabic digit": b"\xd9\xa3", "full-width digit": b"\xef\xbc\x93", "NUL": b"3\x00",
    "vertical tab": b"3\x0b", "overflow of 64 bits": b"18446744073709551619", "overflow by far": b"9" * 40,
    "folded": b"\r\n 3", "bare LF behind": b"3\nA: b", "bare CR behind": b"3\rA: b", "blank in front of digits": b"\x0b3",
}.items():  # fmt: skip
    length.refused(what, post(b"Content-Length: " + value, body=b"abc" + SMUGGLED))
length.refused("twice, the same", post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"))
length.refused("twice, different", post(b"Content-Length: 3", b"Content-Length: 0", body=b"abc"))
length.refused("twice, spelt differently", post(b"Content-Length: 3", b"CONTENT-LENGTH: 03", body=b"abc"))
length.refused("blank before the colon", post(b"Content-Length : 3", body=b"abc"))
length.refused("leading blank", post(b" Content-Length: 3", body=b"abc"))
length.refused(
    "over the limit by one", post(b"Content-Length: %d" % (MAX_BODY + 1)), status=413, clause="RFC 9110 15.5.14"
)
length.refused(
    "largest of 64 bits", post(b"Content-Length: 18446744073709551615"), status=413, clause="RFC 9110 15.5.14"
)
length.refused(
    "negative as a 64 bit", post(b"Content-Length: 9223372036854775808"), status=413, clause="RFC 9110 15.5.14"
)
length.passes(
    "exactly the limit", post(b"Content-Length: %d" % MAX_BODY, body=b"x" * MAX_BODY), Once(POST, body=b"x" * MAX_BODY)
)
length.passes("leading zeros", post(b"Content-Length: 0000000003", body=b"abc"), ABC, note="1*DIGIT; said anew as 3")
length.passes("blanks around", post(b"Content-Length: \t 3 \t", body=b"abc"), ABC)
length.passes("no blank behind the colon", post(b"Content-Length:3", body=b"abc"), ABC)

FAMILIES = (cl_te, te_cl, te_te, cl_0, length)
