"""Functions that tests run in child processes."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from echo_load.lab.processes.children import messages


def fail() -> None:
    """End the process with exit code 7."""
    os._exit(7)


def fail_early(end: Connection) -> None:
    """Receive a message, and end the process with exit code 7 instead of answering."""
    end.recv_bytes()
    os._exit(7)


def end_early(end: Connection) -> None:
    """Receive a message, and return, so that the process ends with exit code 0, without answer."""
    end.recv_bytes()


def answer(end: Connection) -> None:
    """Send each message back."""
    for message in messages(end):
        end.send_bytes(message)
