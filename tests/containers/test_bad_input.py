"""Mistakes in the use of containers give one clear line each."""

from __future__ import annotations

import socket
import subprocess

import pytest

from containers.conftest import Images
from support.docker import ROOT, Project, commands_environment
from support.processes import DEADLINE

TLS = "--listen tls://0.0.0.0:50008 --tls-cert /certificates/server.pem --tls-key /certificates/key"
MISTAKES = [
    pytest.param(
        ("server", TLS, ""),
        (2, "--tls-cert: /certificates/server.pem: No such file or directory"),
        id="certificate",
    ),
    pytest.param(
        ("server", "--listen tcp://0.0.0.0:9607", ""),
        (3, "cannot listen on tcp://0.0.0.0:9607: Address already in use"),
        id="port",
    ),
    pytest.param(
        ("server", "", "ECHO_SERVER_MAX_CONNECTION=5"),
        (2, "ECHO_SERVER_MAX_CONNECTION, which is not an option; did you mean ECHO_SERVER_MAX_CO"),
        id="variable",
    ),
    pytest.param(
        ("loadtest", "run", "ECHO_LOAD_RATES=5"),
        (2, "ECHO_LOAD_RATES, which is not an option; did you mean ECHO_LOAD_RATE?"),
        id="variable of the load tester",
    ),
]


@pytest.mark.parametrize(("given", "said"), MISTAKES)
def test_a_mistake_is_one_line(
    images: Images, given: tuple[str, str, str], said: tuple[int, str]
) -> None:
    target, arguments, variable = given
    setting = ("--env", variable) if variable else ()
    ended = subprocess.run(
        ["docker", "run", "--rm", *setting, images.of(target), *arguments.split()],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=commands_environment(),
    )
    (line,) = ended.stderr.decode().splitlines()
    assert said[1] in line
    assert ended.returncode == said[0]


def test_certificates_that_are_not_named(images: Images) -> None:
    project = Project("echoswarm-test-input", ROOT / "docker-compose.tls.yml", images.override)
    ended = project.try_compose("up", "--detach", "echo-server")
    assert ended.returncode == 1
    assert "name the folder that has server.pem and server.key" in ended.stderr
    assert set(project.leftovers().values()) == {""}


def test_a_published_port_that_is_taken_is_named(images: Images) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        project = Project("echoswarm-test-input", images.override, ECHO_PORT=port)
        try:
            ended = project.try_compose("up", "--detach", "--no-build", "echo-server")
        finally:
            project.down()
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr
    assert "already in use" in ended.stderr
