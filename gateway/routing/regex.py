r"""Regular expressions that take the same time for every value: each byte costs one look into a table.

Python's `re` backtracks, so one header could hold a worker for minutes (`(a+)+b`). Here an expression becomes a
deterministic automaton when the configuration is read (Glushkov's positions, then the subset construction), and one
that would need more than `MAX_STATES` states is refused there. It always matches the *whole* value.

The language: text, `.`, `[a-z]`, `[^a-z]`, `\d \w \s \D \W \S`, `\` before punctuation, `( )`, `(?: )`, `|`, `*`, `+`,
`?`, `{m}`, `{m,}`, `{m,n}`; `^` first and `$` last are allowed and mean nothing; `(?i)` first ignores case. There are
no back references, no look-around and no lazy repeats: they have no meaning when the whole value must match.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeAlias

MAX_STATES: Final = 1000  # 2 KiB each
MAX_POSITIONS: Final = 1000  # characters of the expression once its repeats are written out
MAX_REPEAT: Final = 255

_ANY: Final = frozenset(range(256))
_DIGIT: Final = frozenset(b"0123456789")
_WORD: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_SPACE: Final = frozenset(b" \t\r\n\f\v")
_SETS: Final = {
    "d": _DIGIT, "w": _WORD, "s": _SPACE, "D": _ANY - _DIGIT, "W": _ANY - _WORD, "S": _ANY - _SPACE,
}  # fmt: skip
_COUNT: Final = re.compile(r"\{([0-9]{1,9})(?:(,)([0-9]{1,9})?)?\}")


class _One(NamedTuple):
    """One byte of a set."""

    allowed: frozenset[int]


class _Row(NamedTuple):
    """All, one after the other."""

    nodes: tuple[_Node, ...]


class _Either(NamedTuple):
    """One of these."""

    nodes: tuple[_Node, ...]


class _Times(NamedTuple):
    """From `least` to `most` times; None: without end."""

    node: _Node
    least: int
    most: int | None


_Node: TypeAlias = "_One | _Row | _Either | _Times"


class Regex:
    """A compiled expression. Raises ValueError with what is wrong with `text`."""

    __slots__ = ("_accepting", "_rows", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._rows, self._accepting = _automaton(_Parser(text).parse())

    def matches(self, value: bytes) -> bool:
        """True if the whole of `value` matches."""
        rows = self._rows
        state = 1
        for byte in value:
            state = rows[state][byte]
            if not state:
                return False
        return self._accepting[state]

    def __repr__(self) -> str:
        return f"<Regex {self.text!r}, {len(self._rows) - 1} states>"


class _Parser:
    """By recursive descent; depth is bounded by `MAX_DEPTH`."""

    MAX_DEPTH: Final = 20

    def __init__(self, text: str) -> None:
        self.fold = text.startswith("(?i)")
        text = text.removeprefix("(?i)").removeprefix("^")
        dollar = re.search(r"(?<!\\)(?:\\\\)*(\$)$", text)
        self.text = text[:-1] if dollar is not None else text
        self.at = 0
        self.depth = 0

    def parse(self) -> _Node:
        node = self._either()
        if self.at < len(self.text):
            raise ValueError("has a ')' too many")
        return node

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _take(self) -> str:
        char = self._peek()
        self.at += 1
        return char

    def _either(self) -> _Node:
        self.depth += 1
        if self.depth > self.MAX_DEPTH:
            raise ValueError(f"nests more than {self.MAX_DEPTH} groups")
        rows = [self._row()]
        while self._peek() == "|":
            self.at += 1
            rows.append(self._row())
        self.depth -= 1
        return rows[0] if len(rows) == 1 else _Either(tuple(rows))

    def _row(self) -> _Node:
        nodes: list[_Node] = []
        while self._peek() not in ("", "|", ")"):
            nodes.append(self._repeated(self._atom()))
        return nodes[0] if len(nodes) == 1 else _Row(tuple(nodes))

    def _repeated(self, node: _Node) -> _Node:
        char = self._peek()
        least, most = 0, None
        if char == "+":
            least = 1
        elif char == "?":
            most = 1
        elif char == "{":
            found = _COUNT.match(self.text, self.at)
            if found is None:
                raise ValueError("has a '{' that does not begin a count such as {2} or {1,3}; write \\{ for itself")
            least = int(found[1])
            most = int(found[3]) if found[3] else None if found[2] else least
            if max(least, most or 0) > MAX_REPEAT or (most is not None and most < least):
                raise ValueError(f"repeats {found[0]}; counts go up to {MAX_REPEAT}, the smaller first")
            self.at = found.end() - 1
        elif char != "*":
            return node
        self.at += 1
        if self._peek() and self._peek() in "*+?{":
            raise ValueError(f"has '{self._peek()}' after a repeat; lazy and possessive repeats do not exist here")
        return _Times(node, least, most)

    def _atom(self) -> _Node:
        char = self._take()
        if char == "(":
            return self._group()
        if char == "[":
            return _One(self._folded(self._class()))
        if char == ".":
            return _One(_ANY)
        if char == "\\":
            return _One(self._folded(self._escape()))
        if char in "*+?{":
            raise ValueError(f"has a '{char}' with nothing before it to repeat")
        if char in "^$":
            raise ValueError(f"has a '{char}' inside; the whole value always has to match, write \\{char} for itself")
        encoded = tuple(_One(self._folded(frozenset((byte,)))) for byte in char.encode())
        return encoded[0] if len(encoded) == 1 else _Row(encoded)

    def _group(self) -> _Node:
        if self._peek() == "?":
            if self.text[self.at : self.at + 2] != "?:":
                raise ValueError("has a group that begins with '(?'; only (?: ) exists here, and (?i) at the start")
            self.at += 2
        node = self._either()
        if self._take() != ")":
            raise ValueError("has a '(' that is not closed")
        return node

    def _escape(self) -> frozenset[int]:
        char = self._take()
        if char in _SETS:
            return _SETS[char]
        if not char or not char.isascii() or char.isalnum():
            raise ValueError(f"has the escape '\\{char}', which does not exist here")
        return frozenset(char.encode())

    def _class(self) -> frozenset[int]:
        negated = self._peek() == "^"
        self.at += negated
        members: set[int] = set()
        first = True
        while first or self._peek() != "]":
            first = False
            low = self._member()
            if self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                high = self._member()
                if len(low) > 1 or len(high) > 1 or min(low) > min(high):
                    raise ValueError("has a range in [ ] that does not go from one character up to another")
                members.update(range(min(low), min(high) + 1))
            else:
                members |= low
        self.at += 1
        return _ANY - members if negated else frozenset(members)

    def _member(self) -> frozenset[int]:
        char = self._take()
        if not char:
            raise ValueError("has a '[' that is not closed")
        if char == "\\":
            return self._escape()
        if not char.isascii():
            raise ValueError(f"has {char!r} in [ ]; only ASCII can stand there")
        return frozenset(char.encode())

    def _folded(self, allowed: frozenset[int]) -> frozenset[int]:
        if not self.fold:
            return allowed
        return allowed | {ord(chr(byte).swapcase()) for byte in allowed if byte < 128}


class _Positions:
    """Glushkov: which positions may come first, last, and after which. Sets of positions are the bits of an int."""

    def __init__(self) -> None:
        self.allowed: list[frozenset[int]] = []
        self.follow: list[int] = []

    def add(self, node: _Node) -> tuple[bool, int, int]:
        """Writes `node` out; returns whether it may be empty, its first and its last positions."""
        if isinstance(node, _One):
            if len(self.allowed) >= MAX_POSITIONS:
                raise ValueError(f"is too large: over {MAX_POSITIONS} characters once its repeats are written out")
            self.allowed.append(node.allowed)
            self.follow.append(0)
            bit = 1 << (len(self.allowed) - 1)
            return False, bit, bit
        if isinstance(node, _Row):
            whole = (True, 0, 0)
            for each in node.nodes:
                whole = self._then(whole, self.add(each))
            return whole
        if isinstance(node, _Either):
            empty, first, last = False, 0, 0
            for each in node.nodes:
                one = self.add(each)
                empty, first, last = empty or one[0], first | one[1], last | one[2]
            return empty, first, last
        whole = (True, 0, 0)
        for number in range(max(node.least, 1 if node.most is None else node.most)):
            part = self.add(node.node)
            endless = node.most is None and number == max(node.least, 1) - 1
            if endless:
                self._link(part[2], part[1])
            whole = self._then(whole, (part[0] or number >= node.least, part[1], part[2]))
        return whole

    def _then(self, a: tuple[bool, int, int], b: tuple[bool, int, int]) -> tuple[bool, int, int]:
        self._link(a[2], b[1])
        return a[0] and b[0], a[1] | (b[1] if a[0] else 0), b[2] | (a[2] if b[0] else 0)

    def _link(self, lasts: int, firsts: int) -> None:
        for position in _bits(lasts):
            self.follow[position] |= firsts


def _bits(number: int) -> list[int]:
    found = []
    while number:
        low = number & -number
        found.append(low.bit_length() - 1)
        number ^= low
    return found


def _automaton(node: _Node) -> tuple[list[tuple[int, ...]], list[bool]]:
    """The rows of the table and which states accept; state 0 is "never", state 1 the start."""
    positions = _Positions()
    empty, first, last = positions.add(node)
    taking = [0] * 256  # by byte: the positions that take it
    for position, allowed in enumerate(positions.allowed):
        for byte in allowed:
            taking[byte] |= 1 << position
    kinds = {taken: kind for kind, taken in enumerate(dict.fromkeys(taking))}
    of_byte = [kinds[taken] for taken in taking]
    numbers: dict[tuple[int, bool], int] = {(first, empty): 1}
    waiting = [(first, empty)]
    rows: list[tuple[int, ...]] = [(0,) * 256]
    accepting = [False]
    while waiting:
        ahead: list[tuple[int, bool]] = []
        for candidates, accepts in waiting:
            accepting.append(accepts)
            to: list[int] = []
            for taken in kinds:
                now = candidates & taken
                if not now:
                    to.append(0)
                    continue
                following = 0
                for position in _bits(now):
                    following |= positions.follow[position]
                state = (following, bool(now & last))
                if state not in numbers:
                    if len(numbers) >= MAX_STATES:
                        raise ValueError(f"is too complex: it needs over {MAX_STATES} states")
                    numbers[state] = len(numbers) + 1
                    ahead.append(state)
                to.append(numbers[state])
            rows.append(tuple([to[kind] for kind in of_byte]))
        waiting = ahead
    return rows, accepting
