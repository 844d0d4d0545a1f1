"""One bad file per mistake: ``bad/NAME.yaml`` and, beside it, the exact text that the user reads."""

from pathlib import Path

import pytest

from gateway.config.errors import ConfigError
from gateway.config.load import load

FOLDER = Path(__file__).parent
BAD = sorted((FOLDER / "bad").glob("*.yaml"))
# Words of pydantic and PyYAML that must never reach a user.
FOREIGN = ("Input should", "Field required", "pydantic", "Extra inputs", "while parsing", "tag:yaml.org", "Tuple")


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_message(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    with pytest.raises(ConfigError) as caught:
        load(path.relative_to(FOLDER))
    text = str(caught.value)
    assert text + "\n" == path.with_suffix(".txt").read_text(encoding="utf-8")
    assert not [word for word in FOREIGN if word in text]


def test_corpus_is_complete() -> None:
    assert len(BAD) >= 80
    assert {path.stem for path in BAD} == {path.stem for path in (FOLDER / "bad").glob("*.txt")}


def test_all_faults_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        load(FOLDER / "bad/many-at-once.yaml")
    lines = [each.line for each in caught.value.diagnostics]
    assert lines == sorted(lines)
    assert len(lines) == 10


def test_secrets_are_not_shown() -> None:
    for name, secret in (("store-database", "secret"), ("keys-file-bad", "demo-key-alice")):
        with pytest.raises(ConfigError) as caught:
            load(FOLDER / f"bad/{name}.yaml")
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value.diagnostics)
