"""Whether a model treats its rows one by one, found out on real rows.

Contract: `independent(runner, data)` runs rows alone, in company and in other company, and compares within the
tolerance of go_infer's own trial at load (docs/adr/0043): 1 % and half a percent of an output's largest. Outputs that
differ between two runs of the same row are random and not compared. What cannot be run in one of these ways is not
independent. Asked of a model before its weights are quantised: what a product quantised by the range of its Run
answers depends on the company, a little, without knowing of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from backends.models.comparison import Runner
from backends.models.heldout import HeldOut

ROWS = 8  # each alone, and all together
RELATIVE, OF_LARGEST = 0.01, 0.005


def independent(runner: Runner, data: HeldOut) -> bool:
    """True if no row's answer was another in company than alone."""
    rows = min(ROWS, len(data))
    try:
        alone = [runner.run(data.rows(row, 1)) for row in range(rows)]
        again = runner.run(data.rows(0, 1))
        together = runner.run(data.rows(0, rows))
        company = runner.run(_beside(data, rows))
    except (
        Exception
    ):  # TensorFlow's errors have no base of their own: whatever it is, it does not take rows as they come
        return False
    for name, first in alone[0].items():
        if not _same(first, again[name]):
            continue
        for answers in (together, company):
            if np.ndim(answers[name]) == 0 or len(answers[name]) < rows:
                return False
            if not all(_same(alone[row][name], answers[name][row : row + 1]) for row in range(rows)):
                return False
    return len(next(iter(together.values()))) == rows


def _beside(data: HeldOut, rows: int) -> Mapping[str, Any]:
    """The first rows, and then as many others, as a larger batch has them."""
    return {alias: np.concatenate([values, values[::-1]]) for alias, values in data.rows(0, rows).items()}


def _same(ours: Any, theirs: Any) -> bool:
    if np.shape(ours) != np.shape(theirs):
        return False
    if not np.issubdtype(np.asarray(ours).dtype, np.floating):
        return bool(np.array_equal(ours, theirs))
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    largest = max((float(np.abs(side[np.isfinite(side)]).max(initial=0)) for side in (ours, theirs)), default=0.0)
    return bool(np.allclose(ours, theirs, rtol=RELATIVE, atol=OF_LARGEST * largest, equal_nan=True))
