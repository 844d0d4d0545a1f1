"""Every bounded leaf of every section, tested on both sides of both bounds, found by walking the model itself."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from gateway.config import model as model_module
from gateway.config.model import Config
from gateway.config.scalars import Amount, Quantity, Ratio, Whole
from gateway.config.sections.base import Section


def sections() -> list[type[Section]]:
    return [
        Config,
        *(each for each in vars(model_module).values() if isinstance(each, type) and issubclass(each, Section)),
    ]


def kinds(annotation: object, field: FieldInfo) -> Iterator[Any]:
    yield from (each for each in field.metadata if isinstance(each, (Amount, Quantity, Ratio, Whole)))
    for option in get_args(annotation):
        if get_origin(option) is Annotated:
            yield from (each for each in option.__metadata__ if isinstance(each, (Amount, Quantity, Ratio, Whole)))


LEAVES = {
    f"{section.__name__}.{name}": kind
    for section in sections()
    for name, field in section.model_fields.items()
    for kind in kinds(field.annotation, field)
}


def accepts(kind: object, value: object) -> bool:
    try:
        TypeAdapter(Annotated[Any, kind]).validate_python(value)
    except ValidationError:
        return False
    return True


def test_the_walk_finds_the_leaves() -> None:
    assert len(LEAVES) >= 45
    assert {"Store.timeout", "Http.max_body", "Limit.rate", "Config.workers", "PoolRung.timeout"} <= LEAVES.keys()


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_bounds(leaf: str) -> None:
    kind = LEAVES[leaf]
    if isinstance(kind, Quantity):
        low, high = kind.parse(kind.ge), kind.parse(kind.le)
        assert accepts(kind, kind.ge), "the bound as text"
        assert accepts(kind, kind.le), "the bound as text"
    else:
        low, high = kind.ge, kind.le
    whole = isinstance(low, int)
    below = low - 1 if whole else math.nextafter(low, -math.inf)
    above = high + 1 if whole else math.nextafter(high, math.inf)
    assert accepts(kind, low)
    assert accepts(kind, high)
    assert not accepts(kind, below)
    assert not accepts(kind, above)
    assert not accepts(kind, True)
    assert not accepts(kind, None)
    assert not accepts(kind, math.nan)


def test_defaults_are_within_bounds() -> None:
    for section in sections():
        for name, field in section.model_fields.items():
            for kind in kinds(field.annotation, field):
                if not field.is_required() and field.default is not None:
                    assert accepts(kind, field.default), f"{section.__name__}.{name}"


def test_every_field_is_described() -> None:
    for section in sections():
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            if field.is_required():
                assert field.examples, f"{section.__name__}.{name}: 'missing key' shows an example"
