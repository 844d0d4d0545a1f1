"""A short run of the fuzzer with every test run; the long one is `python -m tests.conformance.fuzz`."""

from tests.conformance import model
from tests.conformance.case import post
from tests.conformance.fuzz import fuzz


async def test_five_thousand():
    tally = await fuzz(seed=20_261_123, count=5_000)
    assert not tally.broken, tally.broken[0]
    assert tally.kinds["request: accepted"] > 150
    assert tally.kinds["response: accepted, reused"] > 20


def test_the_model_reads_what_was_written():
    data = post(b"Transfer-Encoding: chunked", body=b"3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n")
    assert model.request(data, 0).body == b"abc"
    assert model.request(data, 0).end == len(data)
    assert (
        model.response(b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", head_only=False).body
        == b"x"
    )
