"""Work for processes of tests, which import it by name."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from echo_load.lab.processes.children import messages


def fail() -> None:
    """End with exit code 7."""
    os._exit(7)


def fail_early(end: Connection) -> None:
    """End like that where an answer is awaited."""
    end.recv_bytes()
    os._exit(7)


def end_early(end: Connection) -> None:
    """End with exit code 0 where an answer is awaited."""
    end.recv_bytes()


def answer(end: Connection) -> None:
    """Answer each message."""
    for message in messages(end):
        end.send_bytes(message)
