"""The corpus of hostile backends: what they say, what the client must be told, and whether they may be asked again.

`status` is what the client sees; `body` its answer where that is the backend's. `reused` says whether the connection
may carry another request: None where both are right. The word "evil" stands in everything that must reach no client.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from tests.conformance.house import MAX_RESPONSE

CLOSE: Final = None
OK: Final = b"HTTP/1.1 200 OK\r\n"
TWO: Final = OK + b"Content-Length: 2\r\n"
CHUNKED: Final = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EVIL: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


class Answer(NamedTuple):
    """One entry: see the module header. `says` are bytes, pauses in seconds, or the end of the connection."""

    id: str
    says: tuple[bytes | float | None, ...]
    clause: str
    status: int
    body: bytes | None
    reused: bool | None
    method: bytes
    note: str


ANSWERS: Final[list[Answer]] = []


def bad(family: str, clause: str, method: bytes = b"GET", **entries: object) -> None:
    """Each is answered 502, and the connection is not used again."""
    for what, says in entries.items():
        add(f"{family}/{what}", says, clause, 502, None, reused=False, method=method)


def add(
    name: str,
    says: object,
    clause: str,
    status: int = 200,
    body: bytes | None = b"ok",
    *,
    reused: bool | None,
    method: bytes = b"GET",
    note: str = "",
) -> None:
    steps = says if isinstance(says, tuple) else (says,)
    ANSWERS.append(Answer(name.replace("_", " "), steps, clause, status, body, reused, method, note))


bad(
    "framing", "RFC 9112 6.3",
    CL_and_TE=TWO + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
    TE_and_CL=OK + b"Transfer-Encoding: chunked\r\nContent-Length: 44\r\n\r\n0\r\n\r\n" + EVIL,
    CL_and_identity=TWO + b"Transfer-Encoding: identity\r\n\r\nok",
    two_lengths_the_same=TWO + b"Content-Length: 2\r\n\r\nok",
    two_lengths=TWO + b"Content-Length: 6\r\n\r\nokevil",
    list_of_lengths=OK + b"Content-Length: 2, 2\r\n\r\nok",
    list_of_different_lengths=OK + b"Content-Length: 2, 6\r\n\r\nokevil",
    plus=OK + b"Content-Length: +2\r\n\r\nok",
    minus=OK + b"Content-Length: -2\r\n\r\nok",
    hexadecimal=OK + b"Content-Length: 0x2\r\n\r\nok",
    two_words=OK + b"Content-Length: 2 2\r\n\r\nok",
    letters=OK + b"Content-Length: two\r\n\r\nok",
    empty=OK + b"Content-Length:\r\n\r\nok",
    overflow=OK + b"Content-Length: 18446744073709551618\r\n\r\nok",
    blank_before_the_colon=OK + b"Content-Length : 2\r\n\r\nok",
    gzip=OK + b"Transfer-Encoding: gzip\r\n\r\nevil",
    gzip_and_chunked=OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    chunked_and_gzip=OK + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    identity=OK + b"Transfer-Encoding: identity\r\n\r\nevil",
    xchunked=OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    chunked_twice=OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    chunked_twice_in_a_list=OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    empty_coding=OK + b"Transfer-Encoding:\r\n\r\nevil",
    vertical_tab=OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    chunked_in_1_0=b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    chunked_in_1_0_kept=b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
)  # fmt: skip
bad(
    "chunks", "RFC 9112 7.1",
    minus=CHUNKED + b"-2\r\nok\r\n0\r\n\r\n",
    plus=CHUNKED + b"+2\r\nok\r\n0\r\n\r\n",
    hexadecimal=CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n",
    blank_behind=CHUNKED + b"2 \r\nok\r\n0\r\n\r\n",
    letters=CHUNKED + b"zz\r\nok\r\n0\r\n\r\n",
    overflow=CHUNKED + b"10000000000000002\r\nok\r\n0\r\n\r\n",
    LF_behind_the_size=CHUNKED + b"2\nok\r\n0\r\n\r\n",
    LF_behind_the_data=CHUNKED + b"2\r\nok\n0\r\n\r\n",
    LF_in_an_extension=CHUNKED + b"2;a\nb\r\nok\r\n0\r\n\r\n",
    NUL_in_an_extension=CHUNKED + b"2;\x00\r\nok\r\n0\r\n\r\n",
    longer_than_the_size=CHUNKED + b"2\r\nokevil\r\n0\r\n\r\n",
    shorter_than_the_size=CHUNKED + b"8\r\nok\r\n0\r\n\r\nevil",
    Content_Length_in_the_trailers=CHUNKED + b"2\r\nok\r\n0\r\nContent-Length: 44\r\n\r\n",
    folded_trailer=CHUNKED + b"2\r\nok\r\n0\r\nA: b\r\n evil\r\n\r\n",
    over_the_limit=CHUNKED + b"800\r\n%s\r\n" % (b"x" * 2048) * 3,
    end_in_a_size=(CHUNKED + b"2\r\nok\r\n1", CLOSE),
    end_in_the_data=(CHUNKED + b"8\r\nok", CLOSE),
    end_before_the_last=(CHUNKED + b"2\r\nok\r\n", CLOSE),
    end_in_the_trailers=(CHUNKED + b"2\r\nok\r\n0\r\nA: b\r\n", CLOSE),
)  # fmt: skip
add(
    "chunks/trailers",
    CHUNKED + b"2\r\nok\r\n0\r\nX-A: evil\r\nSet-Cookie: evil\r\n\r\n",
    "RFC 9110 6.5.1",
    reused=True,
    note="dropped",
)
add("chunks/extensions", CHUNKED + b"2;evil=1\r\nok\r\n0;evil\r\n\r\n", "RFC 9112 7.1.1", reused=True)
add("chunks/nothing", CHUNKED + b"0\r\n\r\n", "RFC 9112 7.1", body=b"", reused=True)
add(
    "chunks/a response inside",
    CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(EVIL), EVIL.replace(b"evil", b"fine")),
    "RFC 9112 7.1",
    body=EVIL.replace(b"evil", b"fine"),
    reused=True,
)
bad(
    "status-line", "RFC 9112 4",
    HTTP_0_9=(b"evil evil evil\r\n", CLOSE),
    html=b"<html>evil</html>",
    SSH=b"SSH-2.0-evil\r\n",
    TLS=b"\x15\x03\x01\x00\x02\x02\x46evil",
    binary=bytes(range(256)),
    version_0_9=b"HTTP/0.9 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    version_1_2=b"HTTP/1.2 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    version_2_0=b"HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    version_2=b"HTTP/2 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    settings_of_HTTP_2=b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    lower_case=b"http/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    RTSP=b"RTSP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    RTSP_1_1=b"RTSP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ICE=b"ICE/1.0 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    ICY=b"ICY 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    no_status=b"HTTP/1.1\r\nContent-Length: 4\r\n\r\nevil",
    two_digits=b"HTTP/1.1 20 OK\r\nContent-Length: 4\r\n\r\nevil",
    four_digits=b"HTTP/1.1 2000 OK\r\nContent-Length: 4\r\n\r\nevil",
    status_0=b"HTTP/1.1 000 OK\r\nContent-Length: 4\r\n\r\nevil",
    status_99=b"HTTP/1.1 099 OK\r\nContent-Length: 4\r\n\r\nevil",
    status_600=b"HTTP/1.1 600 OK\r\nContent-Length: 4\r\n\r\nevil",
    status_999=b"HTTP/1.1 999 OK\r\nContent-Length: 4\r\n\r\nevil",
    minus=b"HTTP/1.1 -20 OK\r\nContent-Length: 4\r\n\r\nevil",
    letters=b"HTTP/1.1 two OK\r\nContent-Length: 4\r\n\r\nevil",
    two_blanks=b"HTTP/1.1  200 OK\r\nContent-Length: 4\r\n\r\nevil",
    tab=b"HTTP/1.1\t200 OK\r\nContent-Length: 4\r\n\r\nevil",
    leading_blank=b" HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    leading_line=b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    leading_NUL=b"\x00HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    a_request=b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
    CR_in_the_reason=b"HTTP/1.1 200 O\rK: evil\r\nContent-Length: 2\r\n\r\nok",
    LF_in_the_reason=b"HTTP/1.1 200 O\nK: evil\r\nContent-Length: 2\r\n\r\nok",
)  # fmt: skip
add("status-line/no reason", b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "RFC 9112 4", reused=True)
add(
    "status-line/any reason",
    b"HTTP/1.1 200 evil \xff\r\nContent-Length: 2\r\n\r\nok",
    "RFC 9112 4",
    reused=True,
    note="said anew",
)
add("status-line/1.0", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "RFC 9112 9.3", reused=False)
add(
    "status-line/1.0 with keep-alive",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "RFC 9112 9.3",
    reused=True,
)
add("status-line/599", b"HTTP/1.1 599 X\r\nContent-Length: 2\r\n\r\nok", "RFC 9110 15", 599, reused=True)
add("status-line/in pieces", (b"HT", 0.01, b"TP/1.", 0.01, TWO[7:] + b"\r\nok"), "RFC 9112 4", reused=True)
bad(
    "fields", "RFC 9112 5, RFC 9110 5.5",
    bare_CR=TWO + b"A: b\rSet-Cookie: evil\r\n\r\nok",
    bare_LF=TWO + b"A: b\nSet-Cookie: evil\r\n\r\nok",
    LF_everywhere=b"HTTP/1.1 200 OK\nContent-Length: 4\n\nevil",
    LF_at_the_end=TWO + b"\nevil",
    NUL=TWO + b"A: b\x00evil\r\n\r\nok",
    control=TWO + b"A: b\x01evil\r\n\r\nok",
    DEL=TWO + b"A: \x7fevil\r\n\r\nok",
    fold=TWO + b"A: b\r\n evil\r\n\r\nok",
    fold_with_tab=TWO + b"A: b\r\n\tevil\r\n\r\nok",
    blank_before_the_colon=TWO + b"Evil : b\r\n\r\nok",
    leading_blank=OK + b" Evil: b\r\nContent-Length: 2\r\n\r\nok",
    no_colon=TWO + b"Evil\r\n\r\nok",
    empty_name=TWO + b": evil\r\n\r\nok",
    name_with_a_blank=TWO + b"Evil name: b\r\n\r\nok",
    name_with_a_quote=TWO + b'Evil": b\r\n\r\nok',
    NUL_in_a_name=TWO + b"Evil\x00: b\r\n\r\nok",
    head_too_large=TWO + b"A: " + b"x" * 70_000 + b"\r\n\r\nok",
    head_of_many=TWO + b"A: b\r\n" * 12_000 + b"\r\nok",
    head_without_end=OK + b"A: b\r\n" * 60_000,
    name_without_end=OK + b"x" * 200_000,
    status_line_without_end=b"HTTP/1.1 200 " + b"x" * 200_000,
)  # fmt: skip
add("fields/obs-text", TWO + b"A: \xc3\xbc\r\n\r\nok", "RFC 9110 5.5", reused=True)
add(
    "fields/framing for the client",
    TWO + b"Keep-Alive: evil\r\nProxy-Connection: evil\r\nUpgrade: evil\r\nTE: evil\r\nTrailer: evil\r\n\r\nok",
    "RFC 9110 7.6.1",
    reused=True,
)
add(
    "fields/named by Connection",
    TWO + b"Connection: X-A, x-b\r\nX-A: evil\r\nX-B: evil\r\n\r\nok",
    "RFC 9110 7.6.1",
    reused=True,
)
add(
    "fields/named in two lines",
    TWO + b"X-A: evil\r\nConnection: keep-alive\r\nConnection: x-a\r\n\r\nok",
    "RFC 9110 7.6.1",
    reused=True,
)
add(
    "fields/what we alone say",
    TWO
    + b"X-Request-Id: evil\r\nRateLimit: evil\r\nRateLimit-Policy: evil\r\nDegraded: evil\r\nProxy-Authenticate: evil\r\n\r\nok",
    "RFC 9110 7.6.1",
    reused=True,
)
add("fields/close among others", TWO + b"Connection: x-a, close\r\nX-A: evil\r\n\r\nok", "RFC 9112 9.6", reused=False)
add(
    "fields/close and keep-alive",
    TWO + b"Connection: keep-alive\r\nConnection: close\r\n\r\nok",
    "RFC 9112 9.6",
    reused=False,
)
add(
    "fields/Upgrade that nobody asked for",
    TWO + b"Connection: upgrade\r\nUpgrade: evil\r\n\r\nok",
    "RFC 9110 7.8",
    reused=True,
)

add("interim/100", b"HTTP/1.1 100 Continue\r\nX-A: evil\r\n\r\n" + TWO + b"\r\nok", "RFC 9110 15.2", reused=True)
add(
    "interim/103 and 199",
    b"HTTP/1.1 103 E\r\nLink: evil\r\n\r\nHTTP/1.1 199 E\r\nX: evil\r\n\r\n" + TWO + b"\r\nok",
    "RFC 9110 15.2",
    reused=True,
)
add("interim/late", (b"HTTP/1.1 102 P\r\n\r\n", 0.05, TWO + b"\r\nok"), "RFC 9110 15.2", reused=True)
add("interim/many", b"HTTP/1.1 102 P\r\n\r\n" * 100 + TWO + b"\r\nok", "RFC 9110 15.2", reused=True)
bad(
    "interim", "RFC 9110 15.2, 15.2.2",
    flood=(b"HTTP/1.1 102 P\r\nA: evil\r\n\r\n" * 40_000, TWO + b"\r\nok"),
    with_a_body=b"HTTP/1.1 100 C\r\nContent-Length: 4\r\n\r\nevil" + TWO + b"\r\nok",
    in_chunks=b"HTTP/1.1 100 C\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + TWO + b"\r\nok",
    then_the_end=(b"HTTP/1.1 100 C\r\n\r\n", CLOSE),
    that_closes=b"HTTP/1.1 100 C\r\nConnection: close\r\n\r\n" + TWO + b"\r\nok",
    switching=b"HTTP/1.1 101 S\r\n\r\nevil",
    switching_to_websocket=b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nevil",
)  # fmt: skip

NONE = "RFC 9112 6.3, RFC 9110 6.4.1"
add("no-body/204", b"HTTP/1.1 204 N\r\n\r\n", NONE, 204, b"", reused=True)
add("no-body/204 with a body", b"HTTP/1.1 204 N\r\nContent-Length: 4\r\n\r\nevil", NONE, 204, b"", reused=False)
add(
    "no-body/204 with a body that comes late",
    (b"HTTP/1.1 204 N\r\nContent-Length: 44\r\n\r\n", 0.03, EVIL),
    NONE,
    204,
    b"",
    reused=False,
)
add("no-body/204 with unstated bytes", b"HTTP/1.1 204 N\r\n\r\n" + EVIL, NONE, 204, b"", reused=False)
add(
    "no-body/204 in chunks",
    b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    NONE,
    204,
    b"",
    reused=False,
)
add(
    "no-body/204 in chunks that come late",
    (b"HTTP/1.1 204 N\r\nTransfer-Encoding: chunked\r\n\r\n", 0.03, EVIL),
    NONE,
    204,
    b"",
    reused=False,
)
add("no-body/304 with a body", b"HTTP/1.1 304 N\r\nContent-Length: 4\r\n\r\nevil", NONE, 304, b"", reused=False)
add(
    "no-body/304 with a body that comes late",
    (b"HTTP/1.1 304 N\r\nContent-Length: 44\r\n\r\n", 0.03, EVIL),
    NONE,
    304,
    b"",
    reused=False,
)
add(
    "no-body/HEAD",
    TWO + b"\r\n",
    NONE,
    body=b"",
    reused=False,
    method=b"HEAD",
    note="a body was announced: it might still come",
)
add("no-body/HEAD of nothing", OK + b"Content-Length: 0\r\n\r\n", NONE, body=b"", reused=True, method=b"HEAD")
add("no-body/HEAD with a body", OK + b"Content-Length: 4\r\n\r\nevil", NONE, body=b"", reused=False, method=b"HEAD")
add(
    "no-body/HEAD with a response as body",
    OK + b"Content-Length: 44\r\n\r\n" + EVIL,
    NONE,
    body=b"",
    reused=False,
    method=b"HEAD",
)
add(
    "no-body/HEAD with a body that comes late",
    (OK + b"Content-Length: 44\r\n\r\n", 0.03, EVIL),
    NONE,
    body=b"",
    reused=False,
    method=b"HEAD",
)
add("no-body/HEAD in chunks", CHUNKED + b"4\r\nevil\r\n0\r\n\r\n", NONE, body=b"", reused=False, method=b"HEAD")
add("no-body/HEAD in chunks that come late", (CHUNKED, 0.03, EVIL), NONE, body=b"", reused=False, method=b"HEAD")
add("no-body/205 without a length", (b"HTTP/1.1 205 R\r\n\r\n", CLOSE), NONE, 205, b"", reused=False)

add("lies/one byte more", TWO + b"\r\nokX", "RFC 9112 6.3", reused=False)
add("lies/a response more", TWO + b"\r\nok" + EVIL, "RFC 9112 6.3", reused=False, note="response-queue poisoning")
add("lies/half a response more", TWO + b"\r\nok" + EVIL[:20], "RFC 9112 6.3", reused=False)
add(
    "lies/a response more, a moment later",
    (TWO + b"\r\nok", 0.03, EVIL),
    "RFC 9112 6.3",
    reused=None,
    note="into the idle connection",
)
add(
    "lies/408 on the idle connection",
    (TWO + b"\r\nok", 0.03, b"HTTP/1.1 408 T\r\nConnection: close\r\nContent-Length: 4\r\n\r\nevil", CLOSE),
    "RFC 9110 15.5.9",
    reused=None,
)
add("lies/NUL on the idle connection", (TWO + b"\r\nok", 0.03, b"\x00"), "RFC 9112 6.3", reused=None)
add("lies/a response more in chunks", CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + EVIL, "RFC 9112 7.1", reused=False)
add("lies/a response more and close", TWO + b"Connection: close\r\n\r\nok" + EVIL, "RFC 9112 9.6", reused=False)
add("lies/an empty line more", TWO + b"\r\nok\r\n", "RFC 9112 2.2", reused=None, note="nothing can hide in it")
add("lies/closed at once", (TWO + b"\r\nok", CLOSE), "RFC 9112 9.6", reused=False)
add("lies/no length, ended by the end", (OK + b"\r\nok", CLOSE), "RFC 9112 6.3", reused=False)
add("lies/no length, keep-alive", (OK + b"Connection: keep-alive\r\n\r\nok", CLOSE), "RFC 9112 6.3", reused=False)
add(
    "lies/shorter than stated",
    OK + b"Content-Length: 9\r\n\r\nok",
    "RFC 9112 6.3",
    504,
    None,
    reused=False,
    note="it may still come, until the deadline",
)
add("lies/no length and no end", OK + b"\r\nok", "RFC 9112 6.3", 504, None, reused=False)
add("lies/silence", b"", "RFC 9110 15.6.5", 504, None, reused=False)
add("lies/half a head", OK + b"A: b", "RFC 9110 15.6.5", 504, None, reused=False)
add("lies/half a version", b"HTTP/1", "RFC 9110 15.6.5", 504, None, reused=False)
bad(
    "lies", "RFC 9112 8",
    end_at_once=(CLOSE,),
    end_in_the_version=(b"HTTP/1", CLOSE),
    end_in_the_head=(OK + b"Content-Le", CLOSE),
    end_in_the_body=(OK + b"Content-Length: 9\r\n\r\nok", CLOSE),
    body_over_the_limit=OK + b"Content-Length: %d\r\n\r\n" % (MAX_RESPONSE + 1) + b"x" * (MAX_RESPONSE + 1),
    a_stated_length_over_the_limit=OK + b"Content-Length: 9999999999\r\n\r\nok",
    unstated_body_over_the_limit=(OK + b"\r\n" + b"x" * (MAX_RESPONSE + 1), CLOSE),
)  # fmt: skip
add(
    "lies/exactly the limit",
    OK + b"Content-Length: %d\r\n\r\n" % MAX_RESPONSE + b"x" * MAX_RESPONSE,
    "RFC 9110 8.6",
    body=b"x" * MAX_RESPONSE,
    reused=True,
)
add(
    "early/413 before the body",
    (b"HTTP/1.1 413 L\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", CLOSE),
    "RFC 9112 9.5",
    413,
    reused=False,
    method=b"POST",
)
