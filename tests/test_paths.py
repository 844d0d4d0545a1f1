"""Replacing the beginning of a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.paths import climbs, replace_prefix


@pytest.mark.parametrize(
    ("target", "start", "new", "expected"),
    [
        (b"/a/x?q=1", b"/a", b"/b", b"/b/x?q=1"),
        (b"/a/x", b"/a/", b"/", b"/x"),
        (b"/a/x", b"/a", b"/", b"/x"),  # not //x
        (b"/a", b"/a", b"/", b"/"),
        (b"/a/x", b"/b", b"/c", b"/a/x"),
        (b"/ax", b"/a", b"/b", b"/bx"),  # a prefix of text, as in matches
        (b"/a?x=/a/..", b"/a", b"/b", b"/b?x=/a/.."),
        # what would climb, or name its own folder, stays as it came
        (b"/a../secret", b"/a", b"/files/", b"/a../secret"),
        (b"/a..", b"/a", b"/files/", b"/a.."),
        (b"/a./x", b"/a", b"/files/", b"/a./x"),
        (b"/a..b", b"/a", b"/files/", b"/files/..b"),
    ],
)
def test_replace(target, start, new, expected):
    assert replace_prefix(target, ((start, new),)) == expected


def test_the_first_that_fits_counts():
    assert replace_prefix(b"/a/b/c", ((b"/a/b", b"/x"), (b"/a", b"/y"))) == b"/x/c"


PATH = st.lists(st.sampled_from([b"a", b".a", b"..a", b"a.", b"a.."]), min_size=1, max_size=4).map(
    lambda parts: b"/" + b"/".join(parts)
)
PREFIX = st.sampled_from([b"/", b"/a", b"/.", b"/a.", b"/..", b"/a/", b"/..a"])


@given(PATH, PREFIX, st.sampled_from([b"/", b"/b", b"/b/"]))
def test_nothing_climbs(path, start, new):
    assert not climbs(path)
    out = replace_prefix(path, ((start, new),))
    assert not climbs(out)
    assert b"//" not in out
