"""Which route a request takes. Compiled once per snapshot; the first route in the file that matches wins.

The cost does not grow with the number of routes. Routes with the same path lie on one shelf, by host. The shelf of an
exact path is one dictionary look-up. The longest of the prefixes that a path begins with is found by halving the
*lengths* that occur (Waldvogel et al., "Scalable high speed IP routing lookups", SIGCOMM 1997): 1 look-up for one
length, 6 for sixty; shorter prefixes of the same path hang on it. Templates are a tree of segments. What is tried one
after the other are only routes with the same path and the same host, which differ in method, header or query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from gateway.request import Request
from gateway.routing.conditions import Conditions
from gateway.routing.host import host_name
from gateway.routing.template import Segment, Template

LONGEST_HOST: Final = 253  # RFC 1035 section 2.3.4; a longer one has no wildcard looked up


class Match(NamedTuple):
    """`path` is the whole path, or the prefix without the star; `template` stands in for both.

    `hosts` in lower case without port, or with a wildcard as `*.example.com`; empty means any.
    """

    path: bytes
    prefix: bool
    methods: frozenset[bytes] = frozenset()
    hosts: tuple[bytes, ...] = ()
    template: Template | None = None
    conditions: Conditions | None = None


class Matched(Protocol):
    """What the table must know about a route."""

    @property
    def match(self) -> Match: ...


R = TypeVar("R", bound=Matched)
_Entry = tuple[int, frozenset[bytes] | None, Conditions | None, R]  # place in the file, methods, conditions, route


class _Shelf(Generic[R]):
    """The routes with one path, in file order, by host."""

    __slots__ = ("above", "any", "domains", "hosts")

    def __init__(self) -> None:
        self.any: list[_Entry[R]] = []
        self.hosts: dict[bytes, list[_Entry[R]]] | None = None
        self.domains: dict[bytes, list[_Entry[R]]] = {}  # `.example.com`
        self.above: _Shelf[R] | None = None  # of the next shorter prefix

    def add(self, entry: _Entry[R]) -> None:
        hosts = entry[3].match.hosts
        if not hosts:
            self.any.append(entry)
            return
        if self.hosts is None:
            self.hosts = {}
        for host in dict.fromkeys(hosts):
            if host.startswith(b"*."):
                self.domains.setdefault(host[1:], []).append(entry)
            else:
                self.hosts.setdefault(host, []).append(entry)

    def first(self, request: Request, best: _Entry[R] | None) -> _Entry[R] | None:
        """The first entry that takes the request, if it stands before `best` in the file; else `best`."""
        best = _first(self.any, request, best)
        if self.hosts is not None:
            for entries in self.by_host(request):
                best = _first(entries, request, best)
        return best

    def by_host(self, request: Request) -> list[list[_Entry[R]]]:
        """The entries that name the request's host, or a domain above it."""
        assert self.hosts is not None
        host = host_name(request)
        exact = self.hosts.get(host)
        found = [] if exact is None else [exact]
        if self.domains and len(host) <= LONGEST_HOST:
            dot = host.find(b".", 1)
            while dot > 0:
                domain = self.domains.get(host[dot:])
                if domain is not None:
                    found.append(domain)
                dot = host.find(b".", dot + 1)
        return found


def _first(entries: list[_Entry[R]], request: Request, best: _Entry[R] | None) -> _Entry[R] | None:
    for entry in entries:
        place, methods, conditions, _ = entry
        if best is not None and place > best[0]:
            return best
        if (methods is None or request.method in methods) and (conditions is None or conditions.hold(request)):
            return entry
    return best


class _Node(Generic[R]):
    """A place in the tree of templates."""

    __slots__ = ("below", "fixed", "here", "shapes")

    def __init__(self) -> None:
        self.fixed: dict[bytes, _Node[R]] = {}
        # Segments with captures by the lengths of their first and last text; within, by these texts.
        self.shapes: dict[tuple[int, int], dict[bytes, list[tuple[Segment, _Node[R]]]]] = {}
        self.here: _Shelf[R] | None = None
        self.below: _Shelf[R] | None = None

    def child(self, segment: Segment) -> _Node[R]:
        """The node below `segment`; made if there is none."""
        first, last = segment.texts[0], segment.texts[-1]
        if len(segment.texts) == 1:
            return self.fixed.setdefault(first, _Node())
        alike = self.shapes.setdefault((len(first), len(last)), {}).setdefault(first + b"/" + last, [])
        for known, node in alike:
            if known == segment:
                return node
        node = _Node()
        alike.append((segment, node))
        return node

    def following(self, value: bytes) -> Iterator[_Node[R]]:
        """The nodes below every segment that `value` fits."""
        fixed = self.fixed.get(value)
        if fixed is not None:
            yield fixed
        size = len(value)
        for (first, last), table in self.shapes.items():
            if size > first + last:
                for segment, node in table.get(value[:first] + b"/" + value[size - last :], ()):
                    if segment.captures(value) is not None:
                        yield node


class RouteTable(Generic[R]):
    """`find` returns the first route in the file that matches, or None; `allowed` then says which methods exist."""

    def __init__(self, routes: Iterable[R]) -> None:
        self._exact: dict[bytes, _Shelf[R]] = {}
        self._tree: _Node[R] | None = None
        prefixes: dict[bytes, _Shelf[R]] = {}
        for place, route in enumerate(routes):
            match = route.match
            if match.template is not None:
                shelf = self._planted(match.template)
            else:
                shelf = (prefixes if match.prefix else self._exact).setdefault(match.path, _Shelf())
            shelf.add((place, match.methods or None, match.conditions, route))
        self._lengths = sorted({len(prefix) for prefix in prefixes})
        self._marks = _marks(prefixes, self._lengths)

    def find(self, request: Request) -> R | None:
        path = request.path
        best: _Entry[R] | None = None
        shelf = self._exact.get(path)
        if shelf is not None:
            best = shelf.first(request, None)
        if self._lengths:
            shelf = self._longest(path)
            while shelf is not None:
                best = shelf.first(request, best)
                shelf = shelf.above
        if self._tree is not None:
            for shelf in self._fitting(path):
                best = shelf.first(request, best)
        return None if best is None else best[3]

    def allowed(self, request: Request) -> frozenset[bytes]:
        """The methods that some route has for this path; empty when no route has the path."""
        methods: set[bytes] = set()
        for shelf in self._having(request.path):
            for entries in (shelf.any, *(shelf.by_host(request) if shelf.hosts is not None else ())):
                for _, allowed, conditions, _ in entries:
                    if allowed is not None and (conditions is None or conditions.hold(request)):
                        methods |= allowed
        return frozenset(methods)

    def _having(self, path: bytes) -> Iterator[_Shelf[R]]:
        shelf = self._exact.get(path)
        if shelf is not None:
            yield shelf
        shelf = self._longest(path)
        while shelf is not None:
            yield shelf
            shelf = shelf.above
        if self._tree is not None:
            yield from self._fitting(path)

    def _longest(self, path: bytes) -> _Shelf[R] | None:
        """The shelf of the longest prefix that `path` begins with."""
        lengths, marks = self._lengths, self._marks
        low, high = 0, len(lengths)
        best: _Shelf[R] | None = None
        while low < high:
            middle = (low + high) >> 1
            start = path[: lengths[middle]]
            if start in marks:
                best = marks[start]
                low = middle + 1
            else:
                high = middle
        return best

    def _planted(self, template: Template) -> _Shelf[R]:
        """The shelf of a template in the tree."""
        if self._tree is None:
            self._tree = _Node()
        node = self._tree
        for segment in template.segments:
            node = node.child(segment)
        if template.below:
            node.below = node.below or _Shelf()
            return node.below
        node.here = node.here or _Shelf()
        return node.here

    def _fitting(self, path: bytes) -> list[_Shelf[R]]:
        """The shelves of all templates that `path` fits."""
        assert self._tree is not None
        level = [self._tree]
        found: list[_Shelf[R]] = []
        for value in path.split(b"/")[1:]:
            found += [node.below for node in level if node.below is not None]
            level = [after for node in level for after in node.following(value)]
            if not level:
                return found
        return found + [node.here for node in level if node.here is not None]


def _marks(prefixes: dict[bytes, _Shelf[R]], lengths: list[int]) -> dict[bytes, _Shelf[R] | None]:
    """By text: the shelf of the longest prefix that the text begins with. The texts are the prefixes, and the places
    where the search for one must learn that it has to look at longer ones. Also hangs each prefix on its next shorter.
    """
    texts = set(prefixes)
    for prefix in prefixes:
        low, high = 0, len(lengths)
        while low < high:
            middle = (low + high) >> 1
            if lengths[middle] < len(prefix):
                texts.add(prefix[: lengths[middle]])
                low = middle + 1
            elif lengths[middle] > len(prefix):
                high = middle
            else:
                break
    marks: dict[bytes, _Shelf[R] | None] = {}
    inside: list[tuple[bytes, _Shelf[R]]] = []  # the prefixes that the text at hand begins with
    for text in sorted(texts):
        while inside and not text.startswith(inside[-1][0]):
            inside.pop()
        shelf = prefixes.get(text)
        if shelf is not None:
            shelf.above = inside[-1][1] if inside else None
            inside.append((text, shelf))
        marks[text] = inside[-1][1] if inside else None
    return marks
