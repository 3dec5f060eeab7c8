"""The contents of the images."""

from __future__ import annotations

import socket
import subprocess
from importlib.metadata import version

import pytest

from containers.conftest import TARGETS, Images
from support.docker import docker, inspect
from support.processes import DEADLINE, echoes, until


def installed(image: str) -> set[str]:
    """The Python packages of an image."""
    program = (
        "from importlib.metadata import distributions\n"
        "print(*(one.metadata['Name'].lower() for one in distributions()))"
    )
    return set(docker("run", "--rm", "--entrypoint", "python3", image, "-c", program).split())


@pytest.mark.parametrize("target", ["server", "client"])
def test_small_images_have_no_load_tester(images: Images, target: str) -> None:
    packages = installed(images.of(target))
    assert {"echoswarm", "gevent"} <= packages
    assert not packages & {"locust", "numpy", "plotly", "psutil", "rich"}


@pytest.mark.parametrize("target", TARGETS)
def test_images_contain_no_installer(images: Images, target: str) -> None:
    program = "import sys, os; print(*os.listdir(sys.prefix + '/bin'))"
    entrypoint = ("--entrypoint", "python3")
    programs = docker("run", "--rm", *entrypoint, images.of(target), "-c", program).split()
    assert not [name for name in programs if name.startswith("pip")]


@pytest.mark.parametrize("target", TARGETS)
def test_images_are_labelled(images: Images, target: str) -> None:
    labels = inspect(images.of(target))["Config"]["Labels"]
    prefix = "org.opencontainers.image"
    assert labels[f"{prefix}.title"] == f"echoswarm-{target}"
    assert labels[f"{prefix}.version"] == version("echoswarm")
    assert labels[f"{prefix}.licenses"] == "MIT"
    assert labels[f"{prefix}.description"]


def test_the_load_tester_image_has_every_extra(images: Images) -> None:
    assert {"echoswarm", "locust", "numpy", "plotly"} <= installed(images.of("loadtest"))


@pytest.mark.parametrize("target", TARGETS)
def test_no_image_runs_as_root(images: Images, target: str) -> None:
    assert inspect(images.of(target))["Config"]["User"] == "10001:10001"
    arguments = ("run", "--rm", "--entrypoint", "id", images.of(target), "--user")
    assert docker(*arguments) == "10001"


@pytest.mark.parametrize("target", TARGETS)
def test_the_program_receives_signals(images: Images, target: str) -> None:
    """No shell runs between the container and the program."""
    (program,) = inspect(images.of(target))["Config"]["Entrypoint"]
    assert program == {"loadtest": "echo-load"}.get(target, f"echo-{target}")
    said = docker("run", "--rm", images.of(target), "--version")
    assert said.startswith("echoswarm ")


def test_the_server_reports_its_readiness(images: Images) -> None:
    """The health check prints one line, at whatever address the page is."""
    exposed = inspect(images.of("server"))["Config"]["ExposedPorts"]
    assert {"50007/tcp", "50007/udp", "9607/tcp"} == set(exposed)
    setting = ("--env", "ECHO_SERVER_ADMIN=127.0.0.1:9999")
    container = docker("run", "--rm", "--detach", *setting, images.of("server"))
    try:
        until(lambda: "listening" in docker("logs", container), "the server")
        kind, *check = inspect(container)["Config"]["Healthcheck"]["Test"]
        assert kind == "CMD"
        asked = ["docker", "exec", container, *check]
        until(
            lambda: subprocess.run(asked, check=False, capture_output=True).stdout == b"ready\n",
            "readiness",
        )
    finally:
        docker("rm", "--force", container)


def test_a_server_with_connections_stops_before_it_is_killed(images: Images) -> None:
    """Docker would kill it after ten seconds, with exit code 137."""
    container = docker("run", "--detach", images.of("server"))
    try:
        until(lambda: "listening" in docker("logs", container), "the server")
        address = inspect(container)["NetworkSettings"]["IPAddress"]
        with socket.create_connection((address, 50007), timeout=DEADLINE) as connection:
            assert echoes(connection)
            docker("stop", container)
        assert inspect(container)["State"]["ExitCode"] == 0
    finally:
        docker("rm", "--force", container)


def test_a_load_test_needs_no_writable_directory(images: Images) -> None:
    said = docker("run", "--rm", "--read-only", images.of("loadtest"), "run", "-c", "2", "-n", "9")
    assert "PASSED" in said


def test_images_contain_no_files_of_the_checkout(images: Images) -> None:
    command = ("run", "--rm", "--entrypoint", "ls", images.of("server"), "-A", "/")
    assert "source" not in docker(*command).split()
