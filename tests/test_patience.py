"""What is disturbed begins again; what is not has failed."""

from __future__ import annotations

import time

import pytest

from tests.patience import undisturbed


async def test_a_failure_in_a_disturbed_run_is_no_failure():
    runs = []

    @undisturbed
    async def test():
        runs.append(len(runs))
        if len(runs) == 1:
            time.sleep(0.05)  # the loop stands still
        assert len(runs) == 2

    await test()
    assert runs == [0, 1]


@pytest.mark.parametrize("failure", [AssertionError, TimeoutError, pytest.fail.Exception])
async def test_a_failure_that_nothing_disturbed_is_one_at_once(failure):
    runs = []

    async def test():
        runs.append(len(runs))
        raise failure

    with pytest.raises(failure):
        await undisturbed(test, stall=20.0)()
    assert runs == [0]
