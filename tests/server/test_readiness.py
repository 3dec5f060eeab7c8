"""The health check of the server's image, as a container runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import DEADLINE, StartServer, environment

PROGRAM = Path(__file__).parents[2] / "server" / "container" / "readiness.py"


def readiness(admin: str) -> tuple[int, str]:
    """Exit code and the one line that it says."""
    ended = subprocess.run(
        [sys.executable, "-IS", str(PROGRAM)],
        capture_output=True,
        check=False,
        env=environment(ECHO_SERVER_ADMIN=admin),
        text=True,
        timeout=DEADLINE,
    )
    (line,) = (ended.stdout + ended.stderr).splitlines()
    return ended.returncode, line


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "*", "[::1]", "[::]"])
def test_a_serving_server_is_ready(start_server: StartServer, host: str) -> None:
    server = start_server("--admin", f"{host}:0")
    assert server.admin is not None
    port = server.admin.rpartition(":")[2]
    assert readiness(f"{host}:{port}") == (0, "ready")
    assert readiness(f"http://{host}:{port}") == (0, "ready")


def test_a_server_that_does_not_serve_is_not_ready(unused_port: int) -> None:
    code, line = readiness(f"127.0.0.1:{unused_port}")
    assert (code, line) == (1, f"127.0.0.1:{unused_port}: [Errno 111] Connection refused")
    assert readiness("nonsense") == (
        1,
        "ECHO_SERVER_ADMIN is 'nonsense', which is not HOST:PORT",
    )
