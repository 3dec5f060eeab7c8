"""Commands on a system that starts no more threads, or no more processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.processes import LOAD, SERVER, run

# Python's own calls, as they fail where the limit of processes is reached.
NO_THREADS = """
import _thread

def refuse(*arguments, **settings):
    raise RuntimeError("can't start new thread")

_thread.start_new_thread = refuse
"""
NO_PROCESSES = """
import _posixsubprocess, errno, os

def refuse(*arguments, **settings):
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

_posixsubprocess.fork_exec = os.posix_spawn = os.posix_spawnp = refuse
"""
ADVICE = "raise the limit on processes (ulimit -u)"
REFUSED = "Resource temporarily unavailable"


@pytest.mark.parametrize(
    ("shortage", "command", "code", "said"),
    [
        (NO_THREADS, [*SERVER, "--port", "0"], 3, f"can't start new thread; {ADVICE}"),
        (NO_PROCESSES, [*SERVER, "--port", "0", "--workers", "2"], 3, f"workers: {REFUSED}"),
        (NO_PROCESSES, [*LOAD, "run"], 3, f"echo-server did not start: {REFUSED}"),
        (NO_PROCESSES, [*LOAD, "run", "127.0.0.1:9"], 1, f"a generator: {REFUSED}; {ADVICE}"),
        (
            NO_PROCESSES,
            [*LOAD, "swarm", "127.0.0.1:9", "--headless"],
            1,
            f"locust: {REFUSED}; {ADVICE}",
        ),
    ],
    ids=["thread of the server", "worker", "own server", "generator", "locust"],
)
def test_a_shortage_of_resources_is_reported_in_one_line(
    shortage: str, command: list[str], code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(shortage)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = run(command, PYTHONPATH=path)
    lines = ended.stderr.decode().splitlines()
    assert ended.returncode == code, lines
    assert "Traceback" not in ended.stderr.decode()
    assert lines[-1].endswith(said)
