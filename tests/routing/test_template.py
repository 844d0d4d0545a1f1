"""Path templates."""

from __future__ import annotations

import pytest

from gateway.routing.template import is_template, parse


@pytest.mark.parametrize(
    ("template", "path", "captures"),
    [
        ("/v1/models/{model}", "/v1/models/digits", ["digits"]),
        ("/v1/models/{model}", "/v1/models/", None),
        ("/v1/models/{model}", "/v1/models/a/b", None),
        ("/v1/models/{model}", "/v1/models", None),
        ("/v1/models/{m}/versions/{v}:predict", "/v1/models/digits/versions/7:predict", ["digits", "7"]),
        ("/v1/models/{m}/versions/{v}:predict", "/v1/models/digits/versions/7:classify", None),
        ("/v1/models/{m}/versions/{v}:predict", "/v1/models/digits/versions/:predict", None),
        ("/v1/models/{m}:{verb}", "/v1/models/a:b:c", ["a", "b:c"]),
        ("/v1/models/{m}:{verb}", "/v1/models/:b", None),
        ("/v1/models/{m}:{verb}", "/v1/models/::b", [":", "b"]),
        ("/{a}-{b}-{c}.json", "/1-2-3-4.json", ["1", "2", "3-4"]),
        ("/{a}-{b}.json", "/1.json", None),
        ("/{a}/", "/x/", ["x"]),
        ("/{a}/", "/x", None),
        ("/{a}/*", "/x/", ["x"]),
        ("/{a}/*", "/x/y/z", ["x"]),
        ("/{a}/*", "/x", None),
        ("/x{a}x/*", "/xx/y", None),
        # a capture put into another path must not climb there
        ("/v/{name}:get", "/v/..:get", None),
        ("/v/{name}:get", "/v/.:get", None),
        ("/v/{name}:get", "/v/..x:get", ["..x"]),
    ],
)
def test_captures(template, path, captures):
    found = parse(template).captures(path.encode())
    assert found == (None if captures is None else tuple(each.encode() for each in captures))


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("/a/{b", "'{' without"),
        ("/a/b}", "'}' without"),
        ("/a/{B}", "capture '{B}'"),
        ("/a/{}", "capture '{}'"),
        ("/{a}/{a}", "'{a}' twice"),
        ("/{a}{b}", "no text before '{b}'"),
        ("/{a}*", "'/*'"),
    ],
)
def test_what_is_not_a_template(template, complaint):
    assert is_template(template)
    with pytest.raises(ValueError, match=complaint.replace("*", r"\*")):
        parse(template)


def test_names_and_head():
    template = parse("/v1/models/{model}/versions/{version}:predict")
    assert template.names == ("model", "version")
    assert template.head == b"/v1/models/"
    assert parse("/v1/x{y}/*").head == b"/v1/x"


def test_a_long_segment_takes_linear_time():
    template = parse("/{a}-{b}-{c}-{d}-{e}!")
    assert template.captures(b"/" + b"-" * 1_000_000) is None
