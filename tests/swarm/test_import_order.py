"""No command makes gevent warn that it patches too late."""

from __future__ import annotations

import pytest

from support.processes import CLIENT, LOAD, StartServer, run
from support.swarms import locust_command

LOCUST = (*locust_command(), "--headless", "-u", "2", "-t", "1s")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        (*CLIENT, "{target}"),
        (*LOAD, "run", "tcp://{target}", "-n", "10", "-c", "2"),
        (*LOAD, "run", "tcp://{target}", "-n", "10", "-c", "2", "--engine", "greenlets"),
        (*LOAD, "run", "tcp://{target}", "-n", "10", "-c", "2", "--engine", "threads"),
        (*LOAD, "stress", "tcp://{target}", "-c", "2", "-d", "1s"),
        (*LOAD, "hold", "tcp://{target}", "-c", "2", "-d", "1s"),
        (*LOAD, "swarm", "tcp://{target}", "--headless", "-u", "2", "-t", "1s"),
        (*LOCUST, "--host", "tcp://{target}"),
        (*LOCUST, "--host", "tcp://{target}", "EchoBlockUser"),
    ],
    ids=lambda command: " ".join(command[2:4]),
)
def test_nothing_is_patched_too_late(command: tuple[str, ...], start_server: StartServer) -> None:
    server = start_server(PYTHONWARNINGS="always")
    target = server.url.removeprefix("tcp://")
    ended = run(
        [part.format(target=target) for part in command], stdin=b"x", PYTHONWARNINGS="always"
    )
    assert ended.returncode == 0, ended.stderr.decode()
    for log in (ended.stderr.decode(), server.log()):
        assert "MonkeyPatchWarning" not in log
