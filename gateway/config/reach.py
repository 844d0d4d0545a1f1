"""Which requests one match takes of another's: for warnings about routes that are never reached.

``covers`` is careful: True only if it is certain, so some unreachable routes are not found (those that several earlier
ones take together, and regular expressions that mean the same but are written differently).
"""

from gateway.config.model import Match, ValueTest
from gateway.routing import template


def covers(wide: Match, narrow: Match) -> bool:
    """Every request that ``narrow`` takes, ``wide`` takes too."""
    return (
        _covers_methods(wide, narrow)
        and _covers_hosts(wide, narrow)
        and all(implied(test, narrow.headers.get(name)) for name, test in wide.headers.items())
        and all(implied(test, narrow.query.get(name)) for name, test in wide.query.items())
        and covers_path(wide, narrow)
    )


def _covers_methods(wide: Match, narrow: Match) -> bool:
    return wide.methods is None or bool(narrow.methods and set(narrow.methods) <= set(wide.methods))


def _covers_hosts(wide: Match, narrow: Match) -> bool:
    if not wide.host:
        return True
    return bool(narrow.host) and all({host, *covering_domains(host)} & set(wide.host) for host in narrow.host)


def covering_domains(host: str) -> list[str]:
    """The wildcards that take ``host`` (itself perhaps a wildcard)."""
    labels = host.split(".")
    return ["*." + ".".join(labels[start:]) for start in range(1, len(labels))]


def covers_path(wide: Match, narrow: Match) -> bool:
    if not wide.template:
        return narrow.head.startswith(wide.literal) if wide.prefix else narrow.whole and wide.path == narrow.path
    pattern = template.parse(wide.path)
    if narrow.whole:
        return pattern.captures(narrow.path.encode()) is not None
    if not narrow.template:
        # A prefix that ends in "/" and fits with any text after it.
        return pattern.below and narrow.literal.endswith("/") and pattern.captures(narrow.literal.encode()) is not None
    inner = template.parse(narrow.path)
    if pattern.below:
        if len(inner.segments) < len(pattern.segments) + (not inner.below):
            return False
    elif inner.below or len(inner.segments) != len(pattern.segments):
        return False
    return all(_covers_segment(a, b) for a, b in zip(pattern.segments, inner.segments, strict=False))


def _covers_segment(wide: template.Segment, narrow: template.Segment) -> bool:
    if wide == narrow:
        return True
    if len(narrow.texts) == 1:
        return wide.captures(narrow.texts[0]) is not None
    # One capture with less text around it takes all that one with more text takes.
    if len(wide.texts) != 2:
        return False
    return narrow.texts[0].startswith(wide.texts[0]) and narrow.texts[-1].endswith(wide.texts[1])


def implied(wide: ValueTest, narrow: ValueTest | None) -> bool:
    """A value that passes ``narrow`` passes ``wide`` too."""
    if narrow is None:
        return False
    if wide == narrow:
        return True
    if wide.present is not None:
        return wide.present and narrow.present is not False
    if wide.prefix is not None:
        given = narrow.exact if narrow.exact is not None else narrow.prefix
        return given is not None and given.startswith(wide.prefix)
    return False


def can_start(match: Match, start: str) -> bool:
    """Some path of ``match`` may begin with ``start``."""
    if match.whole:
        return match.path.startswith(start)
    return match.head.startswith(start) or start.startswith(match.head)
