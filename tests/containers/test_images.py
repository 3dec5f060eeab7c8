"""What is in the images, and what is not."""

from __future__ import annotations

import json

import pytest

from containers.conftest import TARGETS, Images
from support.engine import docker, inspect


def installed(image: str) -> set[str]:
    """The Python packages of an image."""
    listed = docker(
        *("run", "--rm", "--entrypoint", "python3", image, "-m", "pip"),
        *("list", "--format=json"),
    )
    return {one["name"].lower() for one in json.loads(listed)}


@pytest.mark.parametrize("target", ["server", "client"])
def test_small_images_have_no_load_tester(images: Images, target: str) -> None:
    packages = installed(images.of(target))
    assert {"echoswarm", "gevent"} <= packages
    assert not packages & {"locust", "numpy", "plotly", "psutil", "rich"}


def test_the_load_tester_has_all_of_it(images: Images) -> None:
    assert {"echoswarm", "locust", "numpy", "plotly"} <= installed(images.of("loadtest"))


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_is_root(images: Images, target: str) -> None:
    assert inspect(images.of(target))["Config"]["User"] == "10001:10001"
    arguments = ("run", "--rm", "--entrypoint", "id", images.of(target), "--user")
    assert docker(*arguments) == "10001"


@pytest.mark.parametrize("target", TARGETS)
def test_the_program_gets_the_signals(images: Images, target: str) -> None:
    """No shell stands in between."""
    (program,) = inspect(images.of(target))["Config"]["Entrypoint"]
    assert program == {"loadtest": "echo-load"}.get(target, f"echo-{target}")
    said = docker("run", "--rm", images.of(target), "--version")
    assert said.startswith("echoswarm ")


def test_the_server_says_whether_it_is_ready(images: Images) -> None:
    check = inspect(images.of("server"))["Config"]["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    assert "/readyz" in check[-1]


def test_nothing_of_the_checkout_is_left_in_them(images: Images) -> None:
    command = ("run", "--rm", "--entrypoint", "ls", images.of("server"), "-A", "/")
    assert "source" not in docker(*command).split()
