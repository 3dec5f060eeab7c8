"""The echo servers that are compared, each started as a program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import psutil

from echo_load.errors import LocalServerError

# The module of each model, by its name; the hub's is the server of this project.
MODULES = {
    "threads": "echo_load.lab.models.threads",
    "fork": "echo_load.lab.models.forking",
    "prefork": "echo_load.lab.models.preforked",
    "greenlets": "echo_load.lab.models.greenlets",
    "asyncio": "echo_load.lab.models.tasks",
    "hub": "echo_server",
}
_ECHO_SERVER_OPTIONS = ("--host", "127.0.0.1", "--port", "0", "--log-level", "warning")


@contextmanager
def serving(model: str, cores: frozenset[int]) -> Iterator[tuple[str, int]]:
    """Serve with a model on some cores while in the block.

    Yields:
        The target, `tcp://127.0.0.1:PORT`, and the id of the server's process.

    Raises:
        LocalServerError: it did not start.
    """
    options = _ECHO_SERVER_OPTIONS if model == "hub" else ()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", MODULES[model], *options],
        env={name: value for name, value in os.environ.items() if "ECHO_SERVER_" not in name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        preexec_fn=partial(os.sched_setaffinity, 0, cores),  # noqa: PLW1509  # a system call
        # By its group all that it forks is found.
        process_group=0,
        text=True,
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            line = process.stdout.readline()
        if not line.startswith("listening "):
            raise LocalServerError(f"the echo server of the model {model} did not start")
        yield line.removeprefix("listening ").strip(), process.pid
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """End a server and what it has forked, at once."""
    # One that is stopped forks no more, so that none is missed.
    process.send_signal(signal.SIGSTOP)
    with suppress(ChildProcessError):
        os.waitpid(process.pid, os.WUNTRACED)
    children = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children)
