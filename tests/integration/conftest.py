"""The built binary and models, made on demand: `make test` has made them already."""

import pytest

from demo.layout import GO_INFER, MODELS
from demo.prepare import prepare


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    if not (GO_INFER.exists() and (MODELS / "digits" / "2").exists()):
        assert prepare() == 0, "backends or models could not be built"
