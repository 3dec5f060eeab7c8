from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from support.docker import COMPOSE_FILE, ROOT, Project, missing_requirement
from support.stand_ins import pinned_image, prometheus_image, python_image

StartProject = Callable[..., Project]

TARGETS = ("server", "client", "loadtest")
_SERVICES = {
    "echo-server": "server",
    "client": "client",
    "stress": "loadtest",
    "locust-master": "loadtest",
    "locust-worker": "loadtest",
}
_numbers = count(1)


def _name(target: str) -> str:
    return f"echoswarm-test-{target}:latest"


@dataclass(frozen=True)
class Images:
    """The images under test, and the compose file that names them.

    Attributes:
        override: a compose file that gives the services these images, and Prometheus an available
            one.
        python: their base image.
        prometheus: the image of Prometheus.
    """

    override: Path
    python: str
    prometheus: str

    def of(self, target: str) -> str:
        """The name of the image of a target."""
        return _name(target)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The three images, built as docker-compose builds them."""
    if missing := missing_requirement():
        pytest.exit(f"make test-containers {missing}", returncode=1)
    python = python_image(pinned_image(ROOT / "Dockerfile", r"^ARG PYTHON_IMAGE=(\S+)$"))
    prometheus = prometheus_image(pinned_image(COMPOSE_FILE, r"image: (prom/\S+)$"), python)
    override = tmp_path_factory.mktemp("compose") / "override.yml"
    lines = ["services:", f"  prometheus: {{image: '{prometheus}'}}"]
    lines += [f"  {service}: {{image: '{_name(target)}'}}" for service, target in _SERVICES.items()]
    override.write_text("\n".join(lines))
    project = Project("echoswarm-test-images", override)
    project.compose(
        *("--profile", "client", "--profile", "stress"),
        *("build", "--build-arg", f"PYTHON_IMAGE={python}", "echo-server", "client", "stress"),
    )
    return Images(override, python, prometheus)


@pytest.fixture(scope="module")
def start_project(images: Images) -> Iterator[StartProject]:
    """Bring up services in a project of their own; everything is removed at the end."""
    with ExitStack() as stack:

        def start(*up: str, files: tuple[Path, ...] = (), **variables: str) -> Project:
            name = f"echoswarm-test-{os.getpid()}-{next(_numbers)}"
            project = Project(name, *files, images.override, **variables)
            stack.callback(project.down)
            project.compose("up", "--detach", "--no-build", *up)
            project.wait_until_healthy("echo-server")
            return project

        yield start
