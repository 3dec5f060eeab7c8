"""The processes that experiments on processes start, and the faults that they notice in them."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.managers import SyncManager
from multiprocessing.process import BaseProcess
from typing import cast

from echo_load.errors import LoadError
from echo_load.lab.experiment import CannotRunError

# The longest that an experiment waits for one of its processes, in seconds.
DEADLINE = 20.0
METHODS = ("fork", "spawn", "forkserver")
# A fork server and its child have standard streams, two pipes each, a listener and libraries open.
_FEWEST_DESCRIPTORS = 32


def context_of(method: str) -> SpawnContext:
    """Return the context of a start method.

    Raises:
        CannotRunError: this system does not have it.
    """
    if method not in multiprocessing.get_all_start_methods():
        raise CannotRunError(f"this system does not start processes by {method}")
    # All contexts have the same names.
    return cast("SpawnContext", multiprocessing.get_context(method))


def start(process: BaseProcess) -> None:
    """Start a process.

    Raises:
        CannotRunError: this process may open too few descriptors.
        LoadError: the server that starts processes by forkserver has ended.
    """
    try:
        process.start()
    except (EOFError, ConnectionError) as error:
        raise _not_started("a process") from error


def join(*processes: BaseProcess) -> None:
    """Wait for processes.

    Raises:
        LoadError: one has not ended in time, or has failed.
    """
    for process in processes:
        process.join(DEADLINE)
        check_ended_well(process)


def check_ended_well(process: BaseProcess) -> None:
    """Check that a process has ended, with exit code 0.

    Raises:
        LoadError: it has not.
    """
    if process.exitcode is None:
        raise LoadError(f"a process did not end within {DEADLINE:.0f} s")
    if process.exitcode != 0:
        raise LoadError(f"a process ended with exit code {process.exitcode}")


@contextmanager
def connected(
    context: SpawnContext, target: Callable[..., object], *arguments: object
) -> Iterator[Connection]:
    """Start a process with one end of a pipe; yield the other end, and wait for the process.

    Closing this end is what tells the process to end.

    Args:
        context: that of the start method.
        target: what the process does; its last argument is its end of the pipe.
        arguments: those before that.

    Raises:
        LoadError: the process ended too early, or failed.
    """
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs), daemon=True)
    start(process)
    # Were it open here, the end of the process would not be the end of the stream.
    theirs.close()
    with ours:
        try:
            yield ours
        except (EOFError, ConnectionError) as error:
            join(process)
            raise LoadError("a process ended too early") from error
    join(process)


def messages(end: Connection) -> Iterator[bytes]:
    """Yield what comes through a pipe until its other end is closed."""
    while True:
        try:
            message = end.recv_bytes()
        except EOFError:
            return
        yield message


@contextmanager
def managing(context: SpawnContext) -> Iterator[SyncManager]:
    """Start a manager, and shut it down after the block.

    Raises:
        CannotRunError: this process may open too few descriptors.
        LoadError: the manager's process has ended.
    """
    try:
        with context.Manager() as manager:
            yield manager
    except (EOFError, ConnectionError) as error:
        raise _not_started("a manager") from error


def _not_started(what: str) -> LoadError:
    """Return the error of a server of multiprocessing's that closed the connection to it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= limit < _FEWEST_DESCRIPTORS:
        return CannotRunError(
            f"too few descriptors to start {what}: the limit is {limit} (ulimit -n)"
        )
    return LoadError(f"the server process of {what} ended too early")
