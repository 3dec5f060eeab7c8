from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from support.processes import EchoServerProcess, StartServer

# How long an example takes says nothing on a busy machine.
settings.register_profile("echoswarm", deadline=None)
settings.load_profile("echoswarm")


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start `echo-server` processes with any options."""
    with ExitStack() as stack:
        started = 0

        def start(*options: str, **settings: Any) -> EchoServerProcess:
            nonlocal started
            started += 1
            server = EchoServerProcess(*options, log=tmp_path / f"server-{started}.log", **settings)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def echo_server(start_server: StartServer) -> EchoServerProcess:
    """An `echo-server` with its defaults and every log line."""
    return start_server("--log-level", "debug")


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As many open descriptors for the test itself as the system lets it have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that stays taken but that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
