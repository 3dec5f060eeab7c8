"""The `echo-server` that is started for a test without targets."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

from echo_core.endpoint import Endpoint
from echo_core.limits import SPARE_DESCRIPTORS
from echo_load.errors import LocalServerError

_STOP_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1
_OPTIONS = (
    *("--host", "127.0.0.1", "--port", "0", "--admin", "127.0.0.1:0", "--drain-timeout", "1s"),
    *("--log-level", "warning", "--log-format", "console"),
)


def _end_with_parent() -> None:
    """Make the kernel end this process when its parent ends, for any reason (prctl(2))."""
    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _environment() -> dict[str, str]:
    """Return the environment of this process, without variables that set options of the server."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("ECHO_SERVER_")
    }


def _memory_file() -> IO[bytes]:
    """Return a file in memory for the server's log; a container may have no writable directory."""
    return os.fdopen(os.memfd_create("echo-server-log"), "w+b")


class LocalServer:
    """A running `echo-server --port 0`; a context manager.

    The server runs in a session of its own, so that Ctrl-C at the terminal does not reach it: it
    would refuse connections while the test is still being stopped.

    Args:
        connections: number of connections that it must be able to hold.
        descriptors: number of descriptors that one process may open.
        proxy_protocol: whether it expects PROXY headers.

    Attributes:
        endpoint: its endpoint, once entered.
        admin: URL of its admin page, `http://127.0.0.1:PORT`, once entered.

    Raises:
        LocalServerError: on entering, the server ended before it listened.
    """

    endpoint: Endpoint
    admin: str

    def __init__(self, connections: int, descriptors: int, *, proxy_protocol: bool = False) -> None:
        # 10 % more than needed: the kernel distributes connections to workers unevenly, by a hash.
        workers = math.ceil(connections * 1.1 / max(1, descriptors - SPARE_DESCRIPTORS))
        expecting = ("--proxy-protocol",) if proxy_protocol else ()
        self._options = (*_OPTIONS, "--workers", str(workers), *expecting)

    def __enter__(self) -> Self:
        self._log: IO[bytes] = _memory_file()  # closed in __exit__
        try:
            self._process = subprocess.Popen(
                # -P: do not import modules from the current directory.
                [sys.executable, "-P", "-m", "echo_server", *self._options],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509  # it only makes a system call
                text=True,
            )
        except OSError as error:
            self._log.close()
            raise LocalServerError(f"echo-server did not start: {error.strerror}") from error
        assert self._process.stdout is not None
        try:
            line = self._process.stdout.readline()
            admin = self._process.stdout.readline()
        except BaseException:
            self.kill()
            raise
        if not (line.startswith("listening ") and admin.startswith("admin ")):
            self._process.wait()
            reason = self._last_line()
            self.__exit__(None, None, None)
            raise LocalServerError(f"echo-server did not start: {reason}")
        self.endpoint = Endpoint.parse(line.removeprefix("listening ").strip())
        self.admin = admin.removeprefix("admin ").strip()
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
        """Return the reason for which the server ended early; None if it is still running."""
        code = self._process.poll()
        if code is None:
            return None
        return f"the echo-server under test ended with exit code {code}: {self._last_line()}"

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="backslashreplace").strip().splitlines()
        return lines[-1] if lines else "it printed nothing"
