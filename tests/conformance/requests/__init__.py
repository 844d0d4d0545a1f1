"""The corpus of requests: one module per question a receiver must answer, one family per way to make it hard."""

from typing import Final

from tests.conformance.case import Case
from tests.conformance.requests import chunks, fields, framing, syntax, targets

CASES: Final[tuple[Case, ...]] = tuple(
    case for module in (framing, chunks, syntax, targets, fields) for family in module.FAMILIES for case in family.cases
)
