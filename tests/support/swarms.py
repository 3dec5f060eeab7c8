"""Locusts with echo users, as processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.processes import DEADLINE, LOAD, environment

LOCUSTFILE = Path(__file__).parents[2] / "loadtest" / "locustfile.py"
SHORT = ("--headless", "-u", "5", "-r", "100", "-t", "2s")
# A locustfile of one's own.
OWN = """
import locust
from locust import task
from echo_load.swarm import users
from echo_load.swarm.hooks import install

install(locust.events)


class Mine(users.EchoUser):
    @task
    def own(self):
        assert self.client.echo(b"mine") == b"mine"
        self.client.send(b"by hand, and more")
        assert self.client.receive(7) == b"by hand"
        assert self.client.receive(10) == b", and more"
        self.client.close()
        self.environment.runner.quit()
"""


def locust_command(file: Path = LOCUSTFILE) -> list[str]:
    """How locust is started with a locustfile."""
    return [sys.executable, "-m", "locust", "-f", str(file)]


def locust(
    *arguments: str, file: Path = LOCUSTFILE, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """A locust to its end."""
    ended = subprocess.run(
        [*locust_command(file), *arguments],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(),
        cwd=cwd,
    )
    assert b"Traceback" not in ended.stderr, ended.stderr.decode()
    assert b"MonkeyPatchWarning" not in ended.stderr
    return ended


# Below those that the kernel gives to connections, a thousand for each process that runs tests.
_PORTS = count(20_000 + 1_000 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]))


def free_port() -> int:
    """A port to listen on that nobody is given: locust cannot say which one 0 became."""
    for port in _PORTS:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError


@contextmanager
def started(*arguments: str, until_said: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """An `echo-load swarm` in a process group of its own, once it has logged some words."""
    process = subprocess.Popen(
        [*LOAD, "swarm", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        while until_said not in (line := process.stderr.readline()):
            assert line, "it has ended"
        yield process
    finally:
        process.kill()
        process.communicate()


class Swarm:
    """A master with a web page, and its workers."""

    def __init__(self, host: str, log: Path, *options: str) -> None:
        self._log = log
        self.host = host
        self._bind, self.web = free_port(), free_port()
        self._started: list[subprocess.Popen[bytes]] = []
        self.master = self._start(
            *("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(self._bind)),
            *("--host", host, "--web-host", "127.0.0.1", "--web-port", str(self.web), *options),
            log=log,
        )

    def worker(self) -> subprocess.Popen[bytes]:
        return self._start(
            *("--worker", "--master-host", "127.0.0.1", "--master-port", str(self._bind)),
            log=self._log.with_suffix(f".{len(self._started)}"),
        )

    def _start(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*locust_command(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment(),
            )
        self._started.append(process)
        return process

    def said(self) -> str:
        return self._log.read_text()

    def answers(self) -> bool:
        """Its page is there."""
        with suppress(urllib.error.URLError):
            self.get("/")
            return True
        return False

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}{path}", timeout=DEADLINE) as page:
            return page.read().decode()  # type: ignore[no-any-return]

    def post(self, path: str, **fields: object) -> Any:
        data = urllib.parse.urlencode(fields).encode()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.web}{path}", data, timeout=DEADLINE
        ) as page:
            return page.read().decode()

    def stats(self) -> Any:
        return json.loads(self.get("/stats/requests"))

    def metrics(self) -> dict[tuple[str, ...], float]:
        """The samples by name and sorted values of labels."""
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
        }

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
