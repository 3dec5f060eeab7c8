"""Results for tests that need any one."""

from __future__ import annotations

import pytest

from echo_load.results.result import Result
from support.processes import loaded


@pytest.fixture(scope="module")
def result() -> Result:
    """The result of a test of 100 messages, which passed."""
    return loaded("run", "-n", "100", "-c", "2")[1]
