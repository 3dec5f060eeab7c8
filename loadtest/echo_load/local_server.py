"""Starts and stops an `echo-server` for tests that name no target."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from types import TracebackType
from typing import IO, Self

from echo_core.endpoint import Endpoint
from echo_load.errors import LocalServerError

_STOP_SECONDS = 5.0
_OPTIONS = (
    *("--host", "127.0.0.1", "--port", "0", "--drain-timeout", "1s"),
    *("--log-level", "warning", "--log-format", "console"),
)


class LocalServer:
    """An `echo-server --port 0` of our own, as any user would start it; a context manager.

    It runs in a session of its own, so that Ctrl-C at the terminal does not reach it: connections
    would be refused while the test is still being stopped.

    Attributes:
        endpoint: where it listens, once entered.

    Raises:
        LocalServerError: it ended before it listened.
    """

    endpoint: Endpoint

    def __enter__(self) -> Self:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # closed in __exit__
        self._process = subprocess.Popen(
            [sys.executable, "-m", "echo_server", *_OPTIONS],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            text=True,
        )
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
        except BaseException:
            self.kill()
            raise
        if not line.startswith("listening "):
            self._process.wait()
            reason = self._last_line()
            self.__exit__(None, None, None)
            raise LocalServerError(f"echo-server did not start: {reason}")
        self.endpoint = Endpoint.parse(line.removeprefix("listening ").strip())
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()

    def kill(self) -> None:
        """End the server at once."""
        self._process.kill()
        self._process.wait()

    def failure(self) -> str | None:
        """What ended the server while it was being tested; None if it still runs."""
        code = self._process.poll()
        if code is None:
            return None
        return f"the echo-server under test ended with exit code {code}: {self._last_line()}"

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="backslashreplace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"
