"""Bytes to requests: everything accepted has one meaning, everything else a status."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ProtocolError
from gateway.http.reader import ReadLimits, RequestReader

LIMITS = ReadLimits(request_line=100, header_bytes=400, header_count=10, body=50)


def read(data, limits=LIMITS):
    reader = RequestReader(limits, b"10.0.0.9")
    reader.feed(data)
    return list(reader.ready)


def refused(data, limits=LIMITS):
    reader = RequestReader(limits)
    with pytest.raises(ProtocolError) as caught:
        reader.feed(data)
    return caught.value.error_status


def get(*fields, line=b"GET / HTTP/1.1", host=b"Host: a"):
    return b"\r\n".join((line, *((host,) if host is not None else ()), *fields)) + b"\r\n\r\n"


def post(*fields, body=b""):
    return get(*fields, line=b"POST /p HTTP/1.1") + body


def test_a_whole_request():
    (request,) = read(
        b"POST /a/./b?q HTTP/1.1\r\nHOST: a:80\r\nX-One:  1 \r\nX-Two:\r\nAccept: b\r\nAccept: c\r\n"
        b"Cookie: d=1\r\nCookie: e=2\r\nContent-Length: 5\r\n\r\nhello"
    )
    assert (request.method, request.path, request.target) == (b"POST", b"/a/b", b"/a/b?q")
    assert request.headers == {
        b"host": b"a:80", b"x-one": b"1", b"x-two": b"", b"accept": b"b, c", b"cookie": b"d=1; e=2",
        b"content-length": b"5",
    }  # fmt: skip
    assert (request.body, request.peer, request.minor, request.keep_alive) == (b"hello", b"10.0.0.9", 1, True)


CHUNKED = b"Transfer-Encoding: chunked"
MALFORMED = {
    "CL and TE": (post(b"Content-Length: 3", CHUNKED, body=b"0\r\n\r\n"), 400),
    "TE and CL": (post(CHUNKED, b"Content-Length: 3", body=b"0\r\n\r\n"), 400),
    "CL twice, the same": (post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), 400),
    "CL twice, different": (post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"), 400),
    "CL list": (post(b"Content-Length: 3, 3", body=b"abc"), 400),
    "CL signed": (post(b"Content-Length: +3", body=b"abc"), 400),
    "CL negative": (post(b"Content-Length: -3", body=b"abc"), 400),
    "CL empty": (post(b"Content-Length:", body=b"abc"), 400),
    "CL hexadecimal": (post(b"Content-Length: 0x3", body=b"abc"), 400),
    "CL overflow": (post(b"Content-Length: 99999999999999999999999", body=b""), 400),
    "TE twice": (post(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), 400),
    "TE unknown": (post(b"Transfer-Encoding: gzip", body=b"x"), 400),
    "TE gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    "TE misspelt": (post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 400),
    "TE identity": (post(b"Transfer-Encoding: identity", body=b""), 400),
    "TE in HTTP/1.0": (get(CHUNKED, line=b"POST / HTTP/1.0") + b"0\r\n\r\n", 400),
    "chunk size 0x": (post(CHUNKED, body=b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    "chunk size overflow": (post(CHUNKED, body=b"fffffffffffffffff\r\n"), 400),
    "chunk with bare LF": (post(CHUNKED, body=b"3\nabc\n0\n\n"), 400),
    "chunk longer than it says": (post(CHUNKED, body=b"3\r\nabcd\r\n0\r\n\r\n"), 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare LF in a field": (b"GET / HTTP/1.1\r\nHost: a\r\nA: b\nC: d\r\n\r\n", 400),
    "bare CR": (get(b"A: b\rC: d"), 400),
    "obs-fold": (get(b"A: b\r\n c"), 400),
    "NUL": (get(b"A: b\x00c"), 400),
    "control character": (get(b"A: b\x01c"), 400),
    "space before the colon": (get(b"A : b"), 400),
    "leading space": (get(b" A: b"), 400),
    "no colon": (get(b"A"), 400),
    "empty name": (get(b": b"), 400),
    "name with a quote": (get(b'A"b: c'), 400),
    "no Host": (get(host=None), 400),
    "Host twice": (get(b"Host: b"), 400),
    "Host twice, the same": (get(b"Host: a"), 400),
    "Host list": (get(host=b"Host: a, b"), 400),
    "Host with a path": (get(host=b"Host: a/b"), 400),
    "Host with a user": (get(host=b"Host: u@a"), 400),
    "Host with a bad port": (get(host=b"Host: a:x"), 400),
    "Host with a space": (get(host=b"Host: a b"), 400),
    "Content-Type twice": (get(b"Content-Type: a/b", b"Content-Type: a/b"), 400),
    "Authorization twice": (get(b"Authorization: a", b"Authorization: b"), 400),
    "HTTP/2.0": (get(line=b"GET / HTTP/2.0"), 505),
    "HTTP/0.9": (get(line=b"GET / HTTP/0.9"), 505),
    "HTTP/1.2": (get(line=b"GET / HTTP/1.2"), 505),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "no version": (b"GET /\r\n\r\n", 505),
    "unknown method": (get(line=b"FOO / HTTP/1.1"), 400),
    "lower-case method": (get(line=b"get / HTTP/1.1"), 400),
    "CONNECT": (get(line=b"CONNECT a:1 HTTP/1.1"), 501),
    "asterisk": (get(line=b"GET * HTTP/1.1"), 400),
    "TRACE": (get(line=b"TRACE / HTTP/1.1"), 501),
    "absolute-form of another host": (get(line=b"GET http://b/ HTTP/1.1"), 400),
    "encoded slash": (get(line=b"GET /a%2fb HTTP/1.1"), 400),
    "climbing": (get(line=b"GET /../x HTTP/1.1"), 400),
    "fragment": (get(line=b"GET /a#b HTTP/1.1"), 400),
    "tab in the target": (get(line=b"GET /a\tb HTTP/1.1"), 400),
    "raw UTF-8 in the target": (get(line=b"GET /\xc3\xbc HTTP/1.1"), 400),
    "Expect something": (post(b"Expect: 200-maybe", b"Content-Length: 1", body=b"x"), 417),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name):
    data, status = MALFORMED[name]
    assert refused(data) == status


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_in_single_bytes(name):
    data, status = MALFORMED[name]
    reader = RequestReader(LIMITS)
    with pytest.raises(ProtocolError) as caught:
        for byte in data:
            reader.feed(bytes((byte,)))
    assert caught.value.error_status == status
    assert not reader.ready


@pytest.mark.parametrize(
    "host",
    [b"", b"a", b"a.example:8080", b"a:", b"127.0.0.1:1", b"[::1]", b"[::1]:80", b"xn--bcher-kva.example", b"a_b"],
)
def test_hosts(host):
    assert read(get(host=b"Host: " + host))[0].headers[b"host"] == host


@pytest.mark.parametrize(
    ("line", "fields", "minor", "keep"),
    [
        (b"GET / HTTP/1.1", (), 1, True),
        (b"GET / HTTP/1.1", (b"Connection: close",), 1, False),
        (b"GET / HTTP/1.0", (), 0, False),
        (b"GET / HTTP/1.0", (b"Connection: keep-alive",), 0, True),
    ],
)
def test_persistence(line, fields, minor, keep):
    (request,) = read(get(*fields, line=line))
    assert (request.minor, request.keep_alive) == (minor, keep)


def test_http_1_0_needs_no_host():
    assert read(get(line=b"GET /x HTTP/1.0", host=None))[0].path == b"/x"


def test_absolute_form():
    assert read(get(line=b"GET http://A/x?y HTTP/1.1"))[0].target == b"/x?y"


def test_chunked_and_its_trailers():
    (first, second) = read(
        post(CHUNKED, body=b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Evil: 1\r\nHost: b\r\n\r\n") + get(b"A: b")
    )
    assert first.body == b"abcde"
    assert b"x-evil" not in first.headers
    assert first.headers[b"host"] == b"a"
    assert second.headers == {b"host": b"a", b"a": b"b"}


def test_empty_lines_before_a_request_are_skipped():
    assert len(read(b"\r\n\r\n" + get())) == 1


# -- upgrade ------------------------------------------------------------------------------------------------------

UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")


def test_an_upgrade_is_ignored():
    first, second = read(get(*UPGRADE) + get(line=b"GET /next HTTP/1.1"))
    assert (first.path, second.path) == (b"/", b"/next")


@pytest.mark.parametrize(
    ("framing", "wire"),
    [(b"Content-Length: 35", b"%s"), (CHUNKED, b"23\r\n%s\r\n0\r\n\r\n")],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_the_body_of_an_upgrade_is_a_body_and_not_the_next_request(framing, wire, step):
    smuggled = b"GET /admin HTTP/1.1\r\nHost: evil\r\n\r\n"
    data = post(*UPGRADE, framing, body=wire % smuggled) + get(line=b"GET /next HTTP/1.1")
    reader = RequestReader(LIMITS)
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
    assert [(request.path, request.body) for request in reader.ready] == [(b"/p", smuggled), (b"/next", b"")]


def test_many_upgrades_in_one_read_cost_no_stack():
    assert len(read(get(*UPGRADE) * 3000)) == 3000


# -- limits, on both sides ----------------------------------------------------------------------------------------


def test_request_line():
    assert read(get(line=b"GET /%s HTTP/1.1" % (b"a" * 99)))
    assert refused(get(line=b"GET /%s HTTP/1.1" % (b"a" * 100))) == 414


def test_header_bytes():
    room = 400 - len(b"Hosta") - 4 - len(b"A") - 4
    assert read(get(b"A: " + b"x" * room))
    assert refused(get(b"A: " + b"x" * (room + 1))) == 431


@pytest.mark.parametrize("name", [b"X-%d", b"X"], ids=["distinct", "repeated"])
def test_header_count(name):
    fields = [(name % i if b"%" in name else name) + b": 1" for i in range(10)]
    assert read(get(*fields[:9]))
    assert refused(get(*fields)) == 431


def test_body_of_a_stated_length_is_refused_before_it_is_sent():
    assert read(post(b"Content-Length: 50", body=b"x" * 50))[0].body == b"x" * 50
    assert refused(post(b"Content-Length: 51")) == 413


@pytest.mark.parametrize("chunk", [1, 25, 50])
def test_body_of_unstated_length(chunk):
    def chunks(total):
        return b"".join(b"%x\r\n%s\r\n" % (chunk, b"x" * chunk) for _ in range(total // chunk))

    assert len(read(post(CHUNKED, body=chunks(50) + b"0\r\n\r\n"))[0].body) == 50
    assert refused(post(CHUNKED, body=chunks(50) + b"1\r\nx\r\n0\r\n\r\n")) == 413


@pytest.mark.parametrize(
    ("start", "filler", "status"),
    [
        (b"GET /", b"a", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", b"a", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: ", b"a", 431),
        (post(CHUNKED, body=b"1;"), b"a", 431),
        (post(CHUNKED, body=b"0\r\n"), b"a", 431),
        (post(CHUNKED, body=b"0\r\nA: "), b"a", 431),
        (post(CHUNKED, body=b"0\r\n"), b"A: b\r\n", 431),
        (b"", b"\r\n", None),
    ],
    ids=["target", "name", "value", "chunk extension", "trailer name", "trailer value", "trailers", "empty lines"],
)
def test_what_never_ends_is_cut_off(start, filler, status):
    reader = RequestReader(LIMITS)
    reader.feed(start)
    if status is None:
        for _ in range(1000):
            reader.feed(filler)
        assert not reader.in_head
        return
    with pytest.raises(ProtocolError) as caught:
        for _ in range(1000):
            reader.feed(filler)
    assert caught.value.error_status in (status, 431)


# -- the shape of the pieces does not matter ----------------------------------------------------------------------

SEVERAL = (
    get(b"A: b")
    + post(b"Content-Length: 50", body=b"x" * 50)
    + post(CHUNKED, body=b"3\r\nabc\r\n0\r\nT: x\r\n\r\n")
    + get(b"B: " + b"y" * 380)
    + post(*UPGRADE, b"Content-Length: 4", body=b"GET ")
    + get(line=b"GET /last?z HTTP/1.1")
)


def seen(reader):
    return [(r.method, r.target, r.headers, r.body, r.keep_alive) for r in reader.ready]


@given(st.lists(st.integers(0, len(SEVERAL)), max_size=12))
def test_any_cut_of_the_same_bytes_gives_the_same_requests(cuts):
    whole, pieces = RequestReader(LIMITS), RequestReader(LIMITS)
    whole.feed(SEVERAL)
    edges = [0, *sorted(cuts), len(SEVERAL)]
    for start, end in pairwise(edges):
        pieces.feed(SEVERAL[start:end])
    assert len(whole.ready) == 6
    assert seen(pieces) == seen(whole)
    assert not (pieces.in_head or pieces.in_body or pieces.wants_continue)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_pieces(size):
    whole, pieces = RequestReader(LIMITS), RequestReader(LIMITS)
    whole.feed(SEVERAL)
    for at in range(0, len(SEVERAL), size):
        pieces.feed(SEVERAL[at : at + size])
    assert seen(pieces) == seen(whole)


def test_a_large_body_does_not_count_against_the_head_behind_it():
    limits = ReadLimits(body=100_000)
    reader = RequestReader(limits)
    data = post(b"Content-Length: 90000", body=b"x" * 90_000) + get(line=b"GET /next HTTP/1.1")
    reader.feed(data[:-3])
    reader.feed(data[-3:])
    assert len(reader.ready) == 2


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_waited_for_and_nothing_else_is_raised(data):
    reader = RequestReader(LIMITS)
    try:
        reader.feed(data)
    except ProtocolError as error:
        assert 400 <= error.error_status <= 505


def test_phases_and_expect():
    reader = RequestReader(LIMITS)
    assert not (reader.in_head or reader.in_body)
    reader.feed(b"POST / HT")
    assert reader.in_head
    reader.feed(b"TP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
    assert (reader.in_head, reader.in_body, reader.wants_continue) == (False, True, True)
    reader.feed(b"ab")
    assert (reader.in_head, reader.in_body, reader.wants_continue) == (False, False, False)


def test_expect_means_nothing_in_http_1_0_and_without_a_body():
    reader = RequestReader(LIMITS)
    reader.feed(get(b"Expect: 100-continue", b"Content-Length: 2", line=b"POST / HTTP/1.0"))
    assert not reader.wants_continue
    reader = RequestReader(LIMITS)
    reader.feed(get(b"Expect: 100-continue"))
    assert not reader.wants_continue


@pytest.mark.parametrize("cut", [10, 20, 60, None])
def test_another_protocol_behind_a_usual_request(cut):
    """The first request line is looked at alone; what follows in the same bytes is not taken for HTTP either."""
    data = get(b"Content-Length: 5", line=b"POST /a HTTP/1.1") + b"RTSP/" + get(line=b"OPTIONS /b RTSP/1.0")
    reader = RequestReader(LIMITS)
    with pytest.raises(ProtocolError) as caught:
        for part in (data,) if cut is None else (data[:cut], data[cut:]):
            reader.feed(part)
    assert caught.value.error_status == 505
    assert [request.path for request in reader.ready] == [b"/a"]


@pytest.mark.parametrize(
    ("data", "status", "what"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 505, "HTTP/2 (and with it gRPC) is not spoken here; use HTTP/1.1"),
        (get() + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2 (and with it gRPC) is not spoken here; use HTTP/1.1"),
        (b"\x16\x03\1\2\0\1\0\1", 400, "TLS is not spoken on this port; use http:// instead of https://, or the port with TLS"),
    ],
)  # fmt: skip
def test_who_speaks_another_protocol_is_told_what_to_do(data, status, what):
    with pytest.raises(ProtocolError) as caught:
        RequestReader(LIMITS).feed(data)
    assert (caught.value.error_status, str(caught.value)) == (status, what)


@pytest.mark.parametrize("line", [b"GET /b  RTSP/1.0", b"POST  /b RTSP/1.1", b"OPTIONS   *   RTSP/1.0"])
@pytest.mark.parametrize("first", [get(), post(b"Content-Length: 1", body=b"x")])
def test_another_protocol_however_many_spaces_are_in_front_of_it(line, first):
    """llhttp skips them; a usual request, or the end of a body, is before it in the same bytes."""
    for cut in (0, len(first) - 1):
        reader = RequestReader(LIMITS)
        with pytest.raises(ProtocolError) as caught:
            for part in (first[:cut], first[cut:] + get(line=line)):
                reader.feed(part)
        assert caught.value.error_status == 505
        assert len(reader.ready) == 1


@pytest.mark.parametrize("first", [get(), get(b"X: a RTSP/ b")])
def test_thousands_of_requests_in_the_same_bytes_cost_what_each_costs(first):
    """A client must not be able to hold up a worker's loop with what it can send in one go."""

    def seconds(times):
        data = first + get() * times
        reader = RequestReader(LIMITS)
        began = time.process_time()
        reader.feed(data)
        took = time.process_time() - began
        assert len(reader.ready) == times + 1
        return took

    few = min(seconds(800) for _ in range(5))
    assert min(seconds(8000) for _ in range(2)) < 30 * few  # 10 times as many; 80 times, were all searched for each


def test_versions_of_requests_in_the_same_bytes():
    old = get(b"Connection: keep-alive", line=b"GET /b HTTP/1.0", host=None)
    assert [one.minor for one in read(get() + old + get(line=b"GET /c HTTP/1.1"))] == [1, 0, 1]
    assert refused(get() + get(line=b"GET /b HTTP/2.0")) == 505
    assert refused(get() + get(host=None)) == 400


def test_words_of_another_protocol_in_a_body_are_a_body():
    body = b"GET / RTSP/1.0 and RTSP/"
    (request,) = read(post(b"Content-Length: %d" % len(body), body=body))
    assert request.body == body
