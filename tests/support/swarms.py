"""Locust with echo users, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.ports import free_port
from support.processes import DEADLINE, LOAD, environment

LOCUSTFILE = Path(__file__).parents[2] / "loadtest" / "locustfile.py"
SHORT = ("--headless", "-u", "5", "-r", "100", "-t", "2s")
# A locustfile with a user class of its own.
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


def processes(count: int) -> tuple[str, ...]:
    """Return the options for a number of workers, with a port of their own for their master.

    Several tests that run at the same time would share the default one.
    """
    port = str(free_port())
    return ("--processes", str(count), "--master-bind-port", port, "--master-port", port)


def locust_command(file: Path = LOCUSTFILE) -> list[str]:
    """Return the command that starts locust with a locustfile."""
    return [sys.executable, "-m", "locust", "-f", str(file)]


def locust(
    *arguments: str, file: Path = LOCUSTFILE, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run locust to its end, and check that it printed no traceback."""
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


@contextmanager
def started(*arguments: str, until_logged: bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Start an `echo-load swarm` in a process group of its own, for the duration of the block.

    Args:
        *arguments: its arguments.
        until_logged: text in its log to wait for.
    """
    process = subprocess.Popen(
        [*LOAD, "swarm", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    try:
        assert process.stderr is not None
        while until_logged not in (line := process.stderr.readline()):
            assert line, "the swarm has ended"
        yield process
    finally:
        process.kill()
        process.communicate()


class Swarm:
    """A master with a web page, and its workers.

    Args:
        host: URL of the service.
        log: log file of the master; those of workers have a number as their suffix.
        *options: further options of the master.

    Attributes:
        host: URL of the service.
        web: port of the web page.
        master: the master's process.
    """

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
        """Start a worker."""
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

    def log(self) -> str:
        """Return the master's log so far."""
        return self._log.read_text()

    def serves_page(self) -> bool:
        """Return whether the web page can be loaded."""
        # It is a ConnectionError if the reply ends early.
        with suppress(urllib.error.URLError, ConnectionError):
            self.get("/")
            return True
        return False

    def get(self, path: str) -> str:
        """Return the text of a page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web}{path}", timeout=DEADLINE) as page:
            return page.read().decode()  # type: ignore[no-any-return]

    def post(self, path: str, **fields: object) -> Any:
        """Post a form, and return the text of the answer."""
        data = urllib.parse.urlencode(fields).encode()
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.web}{path}", data, timeout=DEADLINE
        ) as page:
            return page.read().decode()

    def stats(self) -> Any:
        """Return locust's statistics."""
        return json.loads(self.get("/stats/requests"))

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Return the samples of the metrics, by name and sorted values of labels."""
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
        }

    def close(self) -> None:
        """Kill the master and the workers."""
        for process in self._started:
            process.kill()
            process.wait()


def figure(cell: str) -> int:
    """Return the number in a cell of a table: `1,234`."""
    return int(cell.replace(",", ""))
