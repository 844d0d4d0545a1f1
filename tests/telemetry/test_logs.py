"""What the operator's log is told by the environment."""

import pytest

from gateway.errors import StartError
from gateway.telemetry.logs import set_up_logs


def test_a_level_that_does_not_exist_is_an_error_with_those_that_do(monkeypatch):
    monkeypatch.setenv("GATEWAY_LOG_LEVEL", "loud")
    with pytest.raises(StartError, match="must be one of debug, info, warning, error, critical, not 'loud'"):
        set_up_logs("supervisor")
