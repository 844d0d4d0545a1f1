"""The codec alone: recorded bytes, round trips, and bytes that are nobody's frames."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import LinkViolation
from gateway.link import encoder, frames
from gateway.link.decoder import Decoder
from gateway.link.encoder import SentHeads
from gateway.link.frames import Settings
from tests.link.encode import Recorder, encode
from tests.link.fuzz import fuzz

VECTORS = Path(__file__).parent.parent / "vectors" / "link"
FRAMES = json.loads((VECTORS / "frames.json").read_text())
VIOLATIONS = json.loads((VECTORS / "violations.json").read_text())


def decode(data, receiver, step=None):
    recorder = Recorder()
    decoder = Decoder(recorder, Settings(), client=receiver == "client")
    for start in range(0, len(data), step or len(data)):
        decoder.feed(data[start : start + (step or len(data))])
    return recorder.seen


def described(frame):
    return {key: value for key, value in frame.items() if key not in ("hex", "slot", "repeated")}


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector["name"])
def test_recorded_frames_are_made_and_read_alike(vector):
    for frame in vector["frames"]:
        assert encode(frame).hex() == frame["hex"]
    data = bytes.fromhex("".join(frame["hex"] for frame in vector["frames"]))
    wanted = [described(frame) for frame in vector["frames"]]
    for step in (None, 1, 7, 12, 100):
        assert decode(data, vector["receiver"], step) == wanted


@pytest.mark.parametrize("vector", VIOLATIONS, ids=lambda vector: vector["name"])
@pytest.mark.parametrize("step", [None, 1])
def test_recorded_violations_end_the_connection_with_their_code(vector, step):
    with pytest.raises(LinkViolation) as caught:
        decode(bytes.fromhex(vector["hex"]), vector["receiver"], step)
    assert caught.value.code == vector["code"], caught.value


def test_an_unknown_frame_that_may_be_passed_over_is():
    data = (
        encoder.hello(Settings())
        + encoder.control(0x80 | 42, b"later", code=9, stream=9)
        + encoder.control(frames.DRAIN)
    )
    assert decode(data, "client")[1:] == [{"type": "drain"}]


def test_settings_of_a_later_revision_are_passed_over():
    more = encoder.control(frames.HELLO, encoder.hello(Settings(slots=9))[12:] + b"\xff\x00\x01\x02\x03\x04", code=1)
    assert decode(more, "client")[0]["settings"]["slots"] == 9


def test_nothing_is_read_behind_an_error():
    data = encoder.hello(Settings()) + encoder.error(1, "no") + b"anything at all"
    assert [one["type"] for one in decode(data, "client")] == ["hello", "error"]


# -- round trips --------------------------------------------------------------------------------------------------

VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=40)
NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True) | st.sampled_from([n.decode() for n in frames.FIELDS])
FIELDS = st.lists(st.tuples(NAMES, VALUES).map(list), max_size=8)
STREAMS = st.integers(1, frames.MAX_STREAM)
BODIES = st.binary(max_size=200).map(bytes.hex)
REQUESTS = st.fixed_dictionaries(
    {
        "type": st.just("request"), "stream": STREAMS, "priority": st.integers(0, 7),
        "deadline_us": st.integers(0, 0xFFFFFFFF), "slot": st.integers(0, 256),
        "method": st.sampled_from(["GET", "POST", "M-SEARCH"]), "target": st.from_regex(r"/[!-~]{0,60}", fullmatch=True),
        "fields": FIELDS, "extra": FIELDS, "body": BODIES, "end": st.booleans(),
    }
)  # fmt: skip
RESPONSES = st.fixed_dictionaries(
    {
        "type": st.just("response"), "stream": STREAMS, "status": st.integers(200, 599), "slot": st.integers(0, 256),
        "fields": FIELDS, "extra": FIELDS, "body": BODIES, "end": st.booleans(),
    }
)  # fmt: skip


@given(st.lists(REQUESTS, max_size=6), st.integers(1, 400))
def test_requests_come_out_as_they_went_in(sent, step):
    data = encoder.hello(Settings()) + b"".join(map(encode, sent))
    assert decode(data, "server", step)[1:] == [described(one) for one in sent]


@given(st.lists(RESPONSES, max_size=6), st.integers(1, 400))
def test_responses_come_out_as_they_went_in(sent, step):
    for one in sent:
        one["slot"] = one["slot"] if one["fields"] else 0  # nothing is not remembered
    data = encoder.hello(Settings()) + b"".join(map(encode, sent))
    assert decode(data, "client", step)[1:] == [described(one) for one in sent]


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_violation(data):
    for receiver in ("client", "server"):
        with contextlib.suppress(LinkViolation):
            decode(encoder.hello(Settings()) + data, receiver)


def test_mutated_sessions_are_frames_or_a_violation():
    assert fuzz(2_000, random.Random(1)) > 500


# -- remembered heads ---------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 12), max_size=200), st.integers(0, 5))
def test_both_ends_remember_the_same(heads, slots):
    sent, remembered = SentHeads(slots), {}
    for number in heads:
        key = b"%d" % number
        slot = sent.find(key)
        if slot:
            assert remembered[slot] == key
        else:
            slot = sent.learn(key)
            assert slot <= slots
            if slot:
                remembered[slot] = key


def test_a_head_that_comes_once_takes_no_slot():
    sent = SentHeads(2)
    for number in range(100):
        assert sent.learn(b"once %d" % number) == 0
    assert (sent.learn(b"a"), sent.learn(b"a"), sent.find(b"a")) == (0, 1, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [(b"a", b"x" * 65_536), (b"a" * 256, b""), (b"A", b""), (b"", b""), (b"a", b"b\r\nc"), (b"a", b"\0")],
)
def test_what_cannot_be_said_is_not(name, value):
    with pytest.raises(ValueError, match="link"):
        encoder.field(name, value)


@pytest.mark.parametrize(
    ("method", "target", "fields"),
    [
        (b"GET", b"/" * 65_536, []),
        (b"G" * 256, b"/", []),
        (b"G T", b"/", []),
        (b"GET", b"/ ", []),
        (b"GET", b"", []),
        (b"GET", b"/", [(b"a", b"b")] * 129),
        (b"GET", b"/", [(b"a", b"b" * 65_000)] * 2),
    ],
)
def test_a_head_that_cannot_be_said_is_not(method, target, fields):
    with pytest.raises(ValueError):
        encoder.request_head(method, target, fields)
