"""What the configuration package reports: diagnostics, and the one exception that carries them.

A ``Diagnostic`` is one sentence about one place in one file. Lines and columns count from 1, columns in characters;
line 0 means the file as a whole. Rendered form, after GCC and Rust::

    config/gateway.yaml:12:7: error: unknown key 'brust' in limits.per-client
       12 |       brust: 400
          |       ^~~~~
      hint: did you mean 'burst'?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SNIPPET_WIDTH = 100
COLOURS = {"error": "\x1b[1;31m", "warning": "\x1b[1;35m"}
BOLD, CYAN, RESET = "\x1b[1m", "\x1b[36m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    file: str
    line: int
    col: int
    message: str
    hint: str | None = None
    severity: Literal["error", "warning"] = "error"
    snippet: str | None = None
    width: int = 1

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}:{self.col}" if self.line else self.file

    def render(self, colour: bool = False) -> str:
        """The diagnostic as text of one to four lines, without a final newline."""
        bold, reset, mark = (BOLD, RESET, COLOURS[self.severity]) if colour else ("", "", "")
        lines = [f"{bold}{self.place}:{reset} {mark}{self.severity}:{reset} {self.message}"]
        if self.snippet is not None:
            text, col = _window(self.snippet, self.col)
            under = "^" + "~" * (min(self.width, len(text) - col + 1) - 1)
            lines.append(f"{self.line:>5} | {text}")
            lines.append(f"      | {' ' * (col - 1)}{mark}{under}{reset}")
        if self.hint:
            lines.append(f"  {CYAN if colour else ''}hint:{reset} {self.hint}")
        return "\n".join(lines)


def _window(line: str, col: int) -> tuple[str, int]:
    """The part of a long line around ``col``, and ``col`` within it. Control characters become spaces, one for one."""
    line = "".join(char if char.isprintable() else " " for char in line)
    if len(line) <= SNIPPET_WIDTH:
        return line, col
    start = max(0, min(col - 1 - SNIPPET_WIDTH // 2, len(line) - SNIPPET_WIDTH))
    return line[start : start + SNIPPET_WIDTH], col - start


class ConfigException(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(ConfigException):
    """The configuration cannot be used. ``diagnostics`` has every error found, in the order of the files."""

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(each.render() for each in self.diagnostics))

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[tuple[Diagnostic, ...]]]:
        return (ConfigError, (self.diagnostics,))
