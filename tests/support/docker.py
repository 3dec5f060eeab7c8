"""A Docker engine, through its commands, and the project that `docker-compose` brings up."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from echo_load.results.result import Result
from support.processes import DEADLINE, environment, sum_of_metric, until

ROOT = Path(__file__).parents[2]
COMPOSE_FILE = ROOT / "docker-compose.yml"
# What building or pulling an image may take.
BUILD_SECONDS = 600.0


def commands_environment(**settings: str) -> dict[str, str]:
    """The environment for `docker` and `docker-compose`; keyword arguments are set in it."""
    kept = {
        name: value
        for name, value in environment(**settings).items()
        if not name.startswith("COMPOSE_")
    }
    if not _has_buildkit():
        kept |= {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
    return kept


def docker(*arguments: str, stdin: bytes | None = None) -> str:
    """Standard output of a `docker` command that must succeed."""
    ended = subprocess.run(
        ["docker", *arguments],
        input=stdin,
        capture_output=True,
        timeout=BUILD_SECONDS,
        check=False,
        env=commands_environment(),
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode().strip()


def inspect(thing: str) -> Any:
    """What the engine knows of a container or an image."""
    (found,) = json.loads(docker("inspect", thing))
    return found


def has_image(name: str) -> bool:
    """Whether an image is there, without pulling it."""
    return _succeeds("docker", "image", "inspect", name)


def can_have(name: str) -> bool:
    """Whether an image is there, pulled now if need be."""
    return has_image(name) or _succeeds("docker", "pull", "--quiet", name)


def what_is_missing() -> str | None:
    """One line on what these tests need and do not find; None if all is there."""
    if os.geteuid() != 0:
        return "needs root: it kills processes in containers and changes their firewalls"
    for program in ("docker", "docker-compose", "iptables", "nsenter"):
        if shutil.which(program) is None:
            return f"needs {program}, which is not installed"
    if not _succeeds("docker", "info"):
        return "needs a running Docker engine, and `docker info` reaches none; start dockerd"
    return None


@cache
def _has_buildkit() -> bool:
    return _succeeds("docker", "buildx", "version")


def _succeeds(*command: str) -> bool:
    ended = subprocess.run(command, capture_output=True, timeout=BUILD_SECONDS, check=False)
    return ended.returncode == 0


class Project:
    """The services of docker-compose.yml under a name of their own, on any free ports.

    Args:
        name: of the project.
        *files: compose files on top of docker-compose.yml.
        **variables: of the environment, for the compose files.
    """

    def __init__(self, name: str, *files: Path, **variables: str) -> None:
        self.name = name
        self._urls: dict[tuple[str, int], str] = {}
        self._command = ["docker-compose", "--project-name", name]
        self._command += ["--project-directory", str(ROOT), "--file", str(COMPOSE_FILE)]
        for file in files:
            self._command += ["--file", str(file)]
        ports = ("ECHO_PORT", "ADMIN_PORT", "LOCUST_PORT", "PROMETHEUS_PORT", "TLS_PORT")
        self._environment = commands_environment(**(dict.fromkeys(ports, "0") | variables))

    def try_compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `docker-compose` command that may fail."""
        return subprocess.run(
            [*self._command, *arguments],
            capture_output=True,
            timeout=BUILD_SECONDS,
            check=False,
            env=self._environment,
            text=True,
        )

    def compose(self, *arguments: str) -> str:
        """Standard output of a `docker-compose` command that must succeed."""
        ended = self.try_compose(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout.strip()

    def containers(self, service: str) -> list[str]:
        """The ids of a service's containers, also of those that have ended."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def state(self, service: str) -> Any:
        """What the engine says of the state of a service's only container."""
        (container,) = self.containers(service)
        return inspect(container)["State"]

    def wait_until_healthy(self, service: str) -> None:
        """Wait for a service's health check to pass."""
        until(lambda: self._health(service) == "healthy", f"{service} to be healthy")
        # Started anew, it is published on other ports.
        self._urls.clear()

    def _health(self, service: str) -> str:
        state = self.state(service)
        return str(state["Health"]["Status"]) if state["Running"] else "not running"

    def logs(self, service: str) -> str:
        """What a service has written."""
        return self.compose("logs", "--no-color", service)

    def url(self, service: str, port: int) -> str:
        """Where a port of a service is published, since it was last seen to be healthy."""
        if (service, port) not in self._urls:
            published = self.compose("port", service, str(port)).splitlines()[0]
            self._urls[service, port] = f"http://{published}"
        return self._urls[service, port]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the server's samples that have these labels."""
        page = fetch(f"{self.url('echo-server', 9607)}/metrics")
        return sum_of_metric(page, f"echo_server_{name}", labels)

    @contextmanager
    def loading(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """An `echo-load` command in a container of its own, while it runs."""
        name = f"{self.name}-load"
        run = ["run", "--rm", "--no-deps", "-T", "--name", name, "stress"]
        client = subprocess.Popen(
            [*self._command, *run, *arguments, "--json"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
        )
        try:
            yield client
        finally:
            if client.poll() is None:
                # The command ends when its container does.
                _succeeds("docker", "rm", "--force", name)
            client.communicate()

    def load(self, *arguments: str) -> tuple[int, Result]:
        """Exit code and result of an `echo-load` command in a container of its own."""
        with self.loading(*arguments) as client:
            return result_of(client)

    def processes(self, service: str) -> tuple[int, list[int]]:
        """A container's first process and the children of that, by their numbers out here."""
        (container,) = self.containers(service)
        first = inspect(container)["State"]["Pid"]
        lines = docker("top", container, "-eo", "pid,ppid").splitlines()[1:]
        family = [tuple(map(int, line.split())) for line in lines]
        return first, [pid for pid, parent in family if parent == first]

    @contextmanager
    def losing(self, service: str, *match: str) -> Iterator[None]:
        """Drop what reaches a service and matches (iptables-extensions(8)), while in the block."""
        first, _ = self.processes(service)
        inside = ["nsenter", "--target", str(first), "--net", "iptables"]
        rule = ["INPUT", *match, "--jump", "DROP"]
        subprocess.run([*inside, "--append", *rule], check=True, timeout=DEADLINE)
        try:
            yield
        finally:
            subprocess.run([*inside, "--delete", *rule], check=True, timeout=DEADLINE)

    def remains(self) -> Mapping[str, str]:
        """What of the project is left: containers, networks, volumes."""
        label = f"label=com.docker.compose.project={self.name}"
        return {
            "containers": docker("ps", "--all", "--quiet", "--filter", label),
            "networks": docker("network", "ls", "--quiet", "--filter", label),
            "volumes": docker("volume", "ls", "--quiet", "--filter", label),
        }

    def down(self) -> None:
        """Remove all of it."""
        # What `docker-compose run` left behind where a test failed is an orphan.
        self.try_compose("down", "--volumes", "--remove-orphans", "--timeout", "1")


def result_of(client: subprocess.Popen[bytes]) -> tuple[int, Result]:
    """Exit code and result of an `echo-load` command that comes to its end."""
    output, errors = client.communicate(timeout=DEADLINE)
    assert output, errors.decode()
    return client.returncode, msgspec.json.decode(output, type=Result)


def fetch(url: str) -> str:
    """The text of a page."""
    with urllib.request.urlopen(url, timeout=DEADLINE) as page:
        text: str = page.read().decode()
    return text


def kill(pid: int) -> None:
    """End a process as a crash would."""
    os.kill(pid, signal.SIGKILL)
