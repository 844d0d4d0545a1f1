"""YAML by the core schema of 1.2, with places, and bounded."""

import time

import pytest

from gateway.config.errors import ConfigError
from gateway.config.source import MAX_BYTES, Mark, Source, parse


def read(text: str) -> object:
    source = parse(text, "t.yaml")
    assert source.diagnostics == []
    return source.data


def test_yaml_1_1_surprises() -> None:
    text = "on: [connect]\npath: off\na: yes\nb: no\nc: 1:30\nd: 010\ne: 0o10\nf: 1_000\ng: 2001-01-01\nh: =\n5: y\n"
    assert read(text) == {
        "on": ["connect"], "path": "off", "a": "yes", "b": "no", "c": "1:30", "d": 10, "e": 8, "f": "1_000",
        "g": "2001-01-01", "h": "=", "5": "y",
    }  # fmt: skip


def test_scalars() -> None:
    text = "[true, False, ~, null, 7, -7, 0x1F, 1.5, .5, 1e3, '7', \"true\", 7s, 5., -, inf, nan]"
    expected = [True, False, None, None, 7, -7, 31, 1.5, 0.5, 1000.0, "7", "true", "7s", 5.0, "-", "inf", "nan"]
    assert read(text.replace(" -,", " '-',")) == expected


def test_a_digest_of_digits_stays_text() -> None:
    assert read("1" * 64) == "1" * 64
    assert read("12e4" + "5" * 60) == "12e4" + "5" * 60


def test_places() -> None:
    source = parse("a:\n  - b: 10\n    c: {d: é, e: x}\n", "t.yaml")
    assert source.places["a", 0, "b"].key == Mark(1, 4, 1)
    assert source.places["a", 0, "b"].value == Mark(1, 7, 2)
    assert source.places["a", 0, "c", "e"].key == Mark(2, 14, 1)
    assert source.diagnose(("a", 0, "nowhere"), "m").col == 5


def test_aliases_and_merge() -> None:
    data = read("base: &base {x: 1, y: {z: 2}}\ncopy: *base\nmore: {<<: *base, x: 3}\nboth: {<<: [{x: 9}, *base]}\n")
    assert data == {
        "base": {"x": 1, "y": {"z": 2}},
        "copy": {"x": 1, "y": {"z": 2}},
        "more": {"x": 3, "y": {"z": 2}},
        "both": {"x": 9, "y": {"z": 2}},
    }


def test_duplicates_are_all_reported() -> None:
    source = parse("a: 1\na: 2\nb: {c: 1, c: 2}\n", "t.yaml")
    assert [(each.line, each.col) for each in source.diagnostics] == [(2, 1), (3, 11)]


def laughs(width: int, depth: int, item: str) -> str:
    lines = ["k0: &k0 " + item]
    lines += [f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * width)}]" for i in range(1, depth)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        laughs(10, 30, "x"),
        "k0: &k0 {a: 1}\n" + "\n".join(f"k{i}: &k{i} {{<<: [{', '.join([f'*k{i - 1}'] * 9)}]}}" for i in range(1, 30)),
        "a: &a {<<: *a}",
        "a: &a [*a]",
        "[" * 200_000,
        "- " * 200_000,
        "{a: " * 200_000,
        "x" * (MAX_BYTES + 1),
        "- 1\n" * 260_000,
    ],
    ids=["aliases", "merges", "merge-itself", "itself", "flow", "block", "mappings", "size", "values"],
)
def test_bounded(text: str) -> None:
    started = time.process_time()
    with pytest.raises(ConfigError):
        parse(text, "t.yaml")
    assert time.process_time() - started < 60  # what has no bound takes hours


def test_long_lines_are_cut_around_the_place() -> None:
    source = Source("t.yaml", "x" * 300 + "HERE" + "y" * 300)
    lines = source.at(Mark(0, 300, 4), "m").render().split("\n")
    assert all(len(line) < 120 for line in lines)
    assert lines[1][lines[2].index("^") :].startswith("HERE")


def test_passwords_are_masked() -> None:
    snippet = parse("url: redis://me:hunter2@host", "t.yaml").diagnose(("url",), "m").snippet
    assert snippet == "url: redis://**********@host"


def test_colour_only_when_asked() -> None:
    diagnostic = parse("a: 1", "t.yaml").diagnose(("a",), "m", "h")
    assert "\x1b" not in diagnostic.render()
    assert "\x1b[1;31m" in diagnostic.render(colour=True)
