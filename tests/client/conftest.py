"""Servers for tests of the client."""

from __future__ import annotations

import pytest

from support.processes import EchoServerProcess, StartServer


@pytest.fixture
def udp_server(start_server: StartServer) -> EchoServerProcess:
    """An `echo-server` that listens on UDP."""
    return start_server("--listen", "udp://127.0.0.1:0")
