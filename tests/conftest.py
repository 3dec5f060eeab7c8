from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from support.certificates import Certificates, make_certificates
from support.processes import EchoServerProcess, StartServer

# On a busy machine, the duration of an example is not significant.
settings.register_profile("echoswarm", deadline=None)
settings.load_profile("echoswarm")


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """A function that starts `echo-server` processes, which end with the test."""
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
    """An `echo-server` with default options except for the log level `debug`."""
    return start_server("--log-level", "debug")


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """The certificates of an authority, a server and a client."""
    return make_certificates(tmp_path / "certificates")


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """The highest limit of open descriptors that the test's process may set."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port that is taken but has no listener."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
