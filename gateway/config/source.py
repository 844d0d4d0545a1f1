"""YAML text to plain data that remembers where every key and value stands.

Source: YAML 1.2.2, core schema, on PyYAML's libyaml parser. PyYAML itself resolves by YAML 1.1; here ``on``, ``off``,
``yes`` and ``no`` are text, ``1:30`` is text, ``010`` is ten; mapping keys are always text. ``<<: *anchor`` merges as
in YAML 1.1.

Invariants:
* duplicate keys, tags, several documents and recursive anchors are errors;
* aliases may be used, but the data they expand to is bounded (no "billion laughs"), as are size and depth;
* no substitution of any kind: ``${NAME}`` is refused in :mod:`gateway.config.checks` rather than passed on.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import yaml
from yaml._yaml import CParser
from yaml._yaml import Mark as CMark
from yaml.resolver import Resolver

from gateway.config.errors import ConfigError, Diagnostic

MAX_BYTES = 4 * 1024 * 1024  # 10,000 routes on a line each are 700 KiB
MAX_VALUES = 250_000  # 10,000 routes are 90,000
MAX_DEPTH = 40  # the deepest key of the model is at 6

Loc = tuple[str | int, ...]

_PASSWORD = re.compile(r"(?<=://)[^\s/@]+(?=@)")
_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what libyaml counts as the end of a line
_TAG = "tag:yaml.org,2002:"


class Mark(NamedTuple):
    """A stretch of one line: zero-based line and column, and width in characters."""

    line: int
    col: int
    width: int


class Place(NamedTuple):
    key: Mark | None
    value: Mark


class _Parser(CParser, Resolver):
    """libyaml's events composed to nodes, plain scalars resolved by the YAML 1.2 core schema."""

    yaml_implicit_resolvers: dict[str | None, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        CParser.__init__(self, text)
        Resolver.__init__(self)


for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]{1,30}|0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}", list("-+0123456789")),
    ("float", r"(?=.{1,40}$)[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Parser.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_pattern})$"), _first)


def _whole(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": _whole,
    "float": float,
    "merge": str,
}


@dataclass
class Source:
    """One file: its text, its data, and the place of every location in the data.

    Diagnostics of a ``secret`` file quote none of its lines.
    """

    file: str
    text: str
    secret: bool = False
    data: Any = None
    places: dict[Loc, Place] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    unread: set[Loc] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.lines = _BREAK.split(self.text)

    def diagnose(
        self, loc: Loc, message: str, hint: str | None = None, *, key: bool = False, warn: bool = False
    ) -> Diagnostic:
        """A diagnostic at ``loc``, or at the nearest thing around it that exists. ``key`` points at its key."""
        while loc not in self.places:
            key = key or isinstance(loc[-1], str)
            loc = loc[:-1]
        place = self.places[loc]
        mark = place.key if key and place.key else place.value
        return self.at(mark, message, hint, warn=warn)

    def at(self, mark: Mark, message: str, hint: str | None = None, *, warn: bool = False) -> Diagnostic:
        line = self.lines[mark.line] if mark.line < len(self.lines) else ""
        visible = line.strip() and not self.secret
        snippet = _PASSWORD.sub(lambda found: "*" * len(found[0]), line) if visible else None
        severity: Literal["error", "warning"] = "warning" if warn else "error"
        return Diagnostic(self.file, mark.line + 1, mark.col + 1, message, hint, severity, snippet, mark.width)


def parse(text: str, file: str, *, secret: bool = False) -> Source:
    """Read YAML. Raises ``ConfigError`` if there is no data to go on with; lesser faults are in ``diagnostics``."""
    source = Source(file, text.removeprefix("\ufeff"), secret)
    if len(text) > MAX_BYTES:
        raise ConfigError([Diagnostic(file, 0, 0, f"the file is larger than {MAX_BYTES // 1024} KiB")])
    bad = re.search("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", source.text)
    if bad:
        before = _BREAK.split(source.text[: bad.start()])
        problem = f"the character U+{ord(bad[0]):04X} is not allowed in YAML"
        raise ConfigError([source.at(Mark(len(before) - 1, len(before[-1]), 1), problem)])
    if (found := _too_deep(source)) is not None:
        raise ConfigError([source.at(found, f"nested more than {MAX_DEPTH} levels deep")])
    parser = _Parser(source.text)
    try:
        node = parser.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax(source, error)]) from None
    finally:
        parser.dispose()
    if node is None:
        raise ConfigError([Diagnostic(file, 0, 0, "the file is empty", "gateway init writes one to start from")])
    source.data = _Reader(source).read(node, (), None, 0)
    if source.data is None and not source.diagnostics:
        raise ConfigError([Diagnostic(file, 0, 0, "the file is empty", "gateway init writes one to start from")])
    return source


def _too_deep(source: Source) -> Mark | None:
    """Where the nesting passes the bound, seen from events, before the recursive composer runs."""
    depth = 0
    try:
        for event in yaml.parse(source.text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    return Mark(*_position(event.start_mark), 1)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except yaml.YAMLError:
        pass  # the composer finds the same fault and reports it
    return None


def _position(mark: CMark | yaml.Mark | None) -> tuple[int, int]:
    return (mark.line, mark.column) if mark else (0, 0)


SYNTAX = (
    ("cannot start any token", "this character cannot start a value", "put the value in quotes"),
    (
        "mapping values are not allowed",
        "a ':' is not allowed here",
        "check the indentation, or put the value in quotes",
    ),
    ("could not find expected ':'", "this line is neither 'key: value' nor a list item", None),
    ("did not find expected key", "expected a key at this indentation", "check that the keys of a section line up"),
    ("did not find expected '-' indicator", "expected a list item here", "check that the '-' of a list line up"),
    ("did not find expected ',' or", "a list or mapping in brackets is not closed", None),
    ("unexpected end of stream", "a quoted text is not closed", None),
    ("did not find expected node content", "a value is missing here", None),
    ("unknown escape character", "this escape is not known", "use 'single quotes' to keep a backslash as it is"),
    ("found undefined alias", "this alias has no anchor before it", None),
    ("found duplicate anchor", "this anchor is defined twice", None),
    ("but found another document", "only one document is allowed in a file", "remove the '---'"),
)


def _syntax(source: Source, error: yaml.MarkedYAMLError) -> Diagnostic:
    problem = f"{error.context or ''} {error.problem or ''}"
    mark = error.problem_mark or error.context_mark
    line, col = _position(mark)
    if line >= len(source.lines) or (line == len(source.lines) - 1 and not source.lines[line].strip()):
        line, col = _position(error.context_mark or mark)
    text = source.lines[line] if line < len(source.lines) else ""
    if "\t" in text[: col + 1]:
        return source.at(Mark(line, text.index("\t"), 1), "a tab is used for indentation", "YAML wants spaces")
    known = next(((say, hint) for part, say, hint in SYNTAX if part in problem), None)
    say, hint = known or (f"not valid YAML: {error.problem or ''}", None)
    return source.at(Mark(line, col, 1), say, hint)


class _Reader:
    """Nodes to data, filling in ``source.places``. Raises ``ConfigError`` where going on would be unbounded."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.values = 0

    def read(self, node: yaml.Node, loc: Loc, key: Mark | None, depth: int) -> object:
        self.values += 1
        mark = _mark(node)
        self.bounded(node, depth)
        self.source.places[loc] = Place(key, mark)
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.ScalarNode) and kind in SCALARS:
            try:
                return SCALARS[kind](node.value)
            except ValueError:
                self.fault(mark, f"{node.value!r} is not a value of the type '!!{kind}'")
                self.source.unread.add(loc)
                return None
        if isinstance(node, yaml.SequenceNode) and kind == "seq":
            return [self.read(item, (*loc, index), None, depth + 1) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode) and kind == "map":
            return self.mapping(node, loc, depth)
        self.fault(mark, f"tags such as {node.tag.replace(_TAG, '!!')} are not supported", "write the plain value")
        self.source.unread.add(loc)
        return None

    def mapping(self, node: yaml.Node, loc: Loc, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node, merged in self.pairs(node, depth):
            mark = _mark(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(mark, "a key must be plain text", "write {} for an empty mapping, [] for a list")
                continue
            name = key_node.value
            if name not in data:
                data[name] = self.read(value_node, (*loc, name), mark, depth + 1)
            elif not merged:
                first = self.source.places[*loc, name].key
                self.fault(mark, f"duplicate key '{name}', first written in line {first.line + 1 if first else '?'}")
        return data

    def pairs(self, node: yaml.Node, depth: int) -> list[tuple[yaml.Node, yaml.Node, bool]]:
        """The mapping's own keys, then those it merges with ``<<``: what comes first wins."""
        self.values += len(node.value)
        self.bounded(node, depth)
        pairs = [(key, value, False) for key, value in node.value if key.tag != _TAG + "merge"]
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if isinstance(other, yaml.MappingNode):
                        pairs += [(name, content, True) for name, content, _ in self.pairs(other, depth + 1)]
                    else:
                        self.fault(_mark(key), "'<<' needs the alias of a mapping, such as *name")
        return pairs

    def bounded(self, node: yaml.Node, depth: int) -> None:
        if self.values > MAX_VALUES:
            problem = f"anchors and aliases expand to more than {MAX_VALUES} values"
            raise ConfigError([self.source.at(_mark(node), problem)])
        if depth > MAX_DEPTH:
            problem = f"nested more than {MAX_DEPTH} levels deep, or an anchor that contains itself"
            raise ConfigError([self.source.at(_mark(node), problem)])

    def fault(self, mark: Mark, message: str, hint: str | None = None) -> None:
        self.source.diagnostics.append(self.source.at(mark, message, hint))


def _mark(node: yaml.Node) -> Mark:
    start, end = node.start_mark, node.end_mark
    width = end.column - start.column if end.line == start.line else 1
    return Mark(start.line, start.column, max(1, width))
