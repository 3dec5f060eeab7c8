"""The Docker engine, used through its commands, and projects of `docker-compose`."""

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
# Timeout of a command, which may build or pull an image.
BUILD_SECONDS = 600.0


def commands_environment(**settings: str) -> dict[str, str]:
    """Return the environment for `docker` and `docker-compose`, plus `settings`."""
    kept = {
        name: value
        for name, value in environment(**settings).items()
        if not name.startswith("COMPOSE_")
    }
    if not _has_buildkit():
        kept |= {"DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
    return kept


def docker(*arguments: str, stdin: bytes | None = None) -> str:
    """Run a `docker` command that must succeed, and return its standard output."""
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


def inspect(name: str) -> Any:
    """Return the engine's description of a container or an image."""
    (found,) = json.loads(docker("inspect", name))
    return found


def has_image(name: str) -> bool:
    """Return whether the engine has an image, without pulling it."""
    return _succeeds("docker", "image", "inspect", name)


def is_available(name: str) -> bool:
    """Return whether the engine has an image; try to pull it if not."""
    return has_image(name) or _succeeds("docker", "pull", "--quiet", name)


def missing_requirement() -> str | None:
    """Return the reason for which tests with containers cannot run here; None if they can."""
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
    """The services of docker-compose.yml in a project of their own, on any free ports.

    Args:
        name: name of the project.
        *files: compose files in addition to docker-compose.yml.
        **variables: environment variables for the compose files.
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
        """Run a `docker-compose` command that may fail."""
        return subprocess.run(
            [*self._command, *arguments],
            capture_output=True,
            timeout=BUILD_SECONDS,
            check=False,
            env=self._environment,
            text=True,
        )

    def compose(self, *arguments: str) -> str:
        """Run a `docker-compose` command that must succeed, and return its standard output."""
        ended = self.try_compose(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout.strip()

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers, including those that have ended."""
        return self.compose("ps", "--all", "--quiet", service).split()

    def state(self, service: str) -> Any:
        """Return the engine's description of the state of a service's only container."""
        (container,) = self.containers(service)
        return inspect(container)["State"]

    def wait_until_healthy(self, service: str) -> None:
        """Wait for a service's health check to pass."""
        until(lambda: self._health(service) == "healthy", f"{service} to be healthy")
        # A restarted service is published on other ports.
        self._urls.clear()

    def _health(self, service: str) -> str:
        state = self.state(service)
        return str(state["Health"]["Status"]) if state["Running"] else "not running"

    def logs(self, service: str) -> str:
        """Return the output of a service."""
        return self.compose("logs", "--no-color", service)

    def url(self, service: str, port: int) -> str:
        """Return the URL on which a port of a service is published; cached until it restarts."""
        if (service, port) not in self._urls:
            published = self.compose("port", service, str(port)).splitlines()[0]
            self._urls[service, port] = f"http://{published}"
        return self._urls[service, port]

    def metric(self, name: str, **labels: str) -> float:
        """Return the sum of the server's samples with these labels."""
        page = fetch(f"{self.url('echo-server', 9607)}/metrics")
        return sum_of_metric(page, f"echo_server_{name}", labels)

    @contextmanager
    def loading(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run an `echo-load` command in a container of its own for the duration of the block."""
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
                # Removing the container ends the command.
                _succeeds("docker", "rm", "--force", name)
            client.communicate()

    def load(self, *arguments: str) -> tuple[int, Result]:
        """Run an `echo-load` command in a container; return its exit code and its result."""
        with self.loading(*arguments) as client:
            return result_of(client)

    def processes(self, service: str) -> tuple[int, list[int]]:
        """Return the process id of a container's first process, and those of its children.

        They are those of this machine, not of the container.
        """
        (container,) = self.containers(service)
        first = inspect(container)["State"]["Pid"]
        lines = docker("top", container, "-eo", "pid,ppid").splitlines()[1:]
        family = [tuple(map(int, line.split())) for line in lines]
        return first, [pid for pid, parent in family if parent == first]

    @contextmanager
    def dropping(self, service: str, *match: str) -> Iterator[None]:
        """Drop packets to a service for the duration of the block.

        Args:
            service: name of the service.
            *match: options of iptables that select the packets (iptables-extensions(8)).
        """
        first, _ = self.processes(service)
        inside = ["nsenter", "--target", str(first), "--net", "iptables"]
        rule = ["INPUT", *match, "--jump", "DROP"]
        subprocess.run([*inside, "--append", *rule], check=True, timeout=DEADLINE)
        try:
            yield
        finally:
            subprocess.run([*inside, "--delete", *rule], check=True, timeout=DEADLINE)

    def leftovers(self) -> Mapping[str, str]:
        """Return the ids of the project's containers, networks and volumes that still exist."""
        label = f"label=com.docker.compose.project={self.name}"
        return {
            "containers": docker("ps", "--all", "--quiet", "--filter", label),
            "networks": docker("network", "ls", "--quiet", "--filter", label),
            "volumes": docker("volume", "ls", "--quiet", "--filter", label),
        }

    def down(self) -> None:
        """Remove the containers, networks and volumes of the project."""
        # A container of `docker-compose run` that is left after a failed test is an orphan.
        self.try_compose("down", "--volumes", "--remove-orphans", "--timeout", "1")


def result_of(client: subprocess.Popen[bytes]) -> tuple[int, Result]:
    """Wait for the end of an `echo-load` command; return its exit code and its result."""
    output, errors = client.communicate(timeout=DEADLINE)
    assert output, errors.decode()
    return client.returncode, msgspec.json.decode(output, type=Result)


def fetch(url: str) -> str:
    """Return the text of a page."""
    with urllib.request.urlopen(url, timeout=DEADLINE) as page:
        text: str = page.read().decode()
    return text


def kill(pid: int) -> None:
    """Kill a process with SIGKILL."""
    os.kill(pid, signal.SIGKILL)
