"""Results that reports are made of."""

from __future__ import annotations

import pytest

from echo_load.results.result import Result
from support.processes import StartServer, loaded


@pytest.fixture
def closed(start_server: StartServer) -> Result:
    """Return the result of a closed loop that passed and was reconciled."""
    server = start_server("--admin", "127.0.0.1:0")
    _, result = loaded("run", server.url, "-c", "3", "-n", "300", "--reconcile", server.admin)
    return result


@pytest.fixture
def failed(start_server: StartServer) -> Result:
    """Return the result of an open loop that failed and crossed a threshold."""
    url = start_server("--fault", "corrupt@20%").url
    _, result = loaded(
        *("run", url, "-c", "3", "-r", "500", "-d", "1s", "--threshold", "p50<1us"),
        *("--threshold", "errors<1"),
    )
    return result
