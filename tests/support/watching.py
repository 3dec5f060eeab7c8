"""A running `echo-load watch`."""

from __future__ import annotations

import signal
import subprocess
import threading
import urllib.request
from collections.abc import Sequence

import msgspec

from echo_load.results.result import Result
from echo_load.results.watch import WatchResult
from support.processes import (
    DEADLINE,
    LOAD,
    environment,
    sum_of_metric,
    until,
)


class Watching:
    """A running `echo-load watch`, which says on standard error what it sees.

    Args:
        *arguments: its targets and options.
        timeout: the time that a server has to reply. What does not wait for it is not to be an
            outage because the machine is busy.
        prefix: the command that runs it.
    """

    def __init__(self, *arguments: str, timeout: str = "10s", prefix: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, *LOAD, "watch", *arguments, "--timeout", timeout, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for("watching")

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.decode())

    def wait_for(self, text: str) -> None:
        until(lambda: any(text in line for line in self.said), text)

    def metrics(self) -> str:
        """Return the page for Prometheus; needs `--prometheus`."""
        (url,) = (line.split()[1] for line in self.said if line.startswith("metrics "))
        with urllib.request.urlopen(url, timeout=DEADLINE) as response:
            text: str = response.read().decode()
            return text

    def figure(self, name: str) -> float:
        """Return a figure of a watch that serves metrics to Prometheus."""
        return sum_of_metric(self.metrics(), f"echo_load_{name}", {})

    def stop(self) -> tuple[int, WatchResult]:
        code, result = self.stop_with_result()
        assert result.watch is not None
        return code, result.watch

    def stop_with_result(self) -> tuple[int, Result]:
        self.process.send_signal(signal.SIGINT)
        assert self.process.stdout is not None
        result = msgspec.json.decode(self.process.stdout.read(), type=Result)
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self.process.stdout.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        assert result.exit_code == code
        return code, result
