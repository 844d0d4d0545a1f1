"""What the page on routing shows is a configuration."""

import re
from pathlib import Path

from gateway.config.lint import lint
from gateway.config.load import load_text

PAGE = Path(__file__).parents[1] / "docs/routing.md"
HEAD = """version: 1
pools:
  ranker: {backends: [{url: "http://a:1"}]}
  ranker-next: {backends: [{url: "http://b:1"}]}
  ranker-lab: {backends: [{url: "http://c:1"}]}
"""


def test_the_examples_are_configurations() -> None:
    canary, shadow, *others = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    text = HEAD + canary + shadow + "".join(others)
    config = load_text(text, Path("x.yaml"))
    assert [route.name for route in config.routes] == ["ranker", "short-path", "live", "moved", "secure", "hello"]
    assert config.routes[0].shadow is not None
    assert lint(config) == []
