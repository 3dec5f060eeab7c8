"""Ctrl-C while a command is being imported, and before it has begun."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.processes import CLIENT, LOAD, SERVER, run

# Runs in every Python process that has it on its path: interrupts the process, as Ctrl-C does, at
# the import of a module.
INTERRUPTING = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["INTERRUPTED_AT"]:
            del os.environ["INTERRUPTED_AT"]
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

if "INTERRUPTED_AT" in os.environ:
    sys.meta_path.insert(0, Interrupting())
"""


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ([*SERVER, "--port", "0"], "echo_core.command_line.program"),
        pytest.param([*SERVER, "--port", "0"], "gevent", marks=pytest.mark.untraced),
        ([*SERVER, "--port", "0", "--workers", "2"], "echo_server.processes.supervisor"),
        ([*CLIENT, "127.0.0.1:9"], "echo_client.cli"),
        ([*CLIENT, "127.0.0.1:9"], "echo_client.connection"),
        ([*LOAD, "--help"], "echo_load.cli"),
        ([*LOAD, "schema"], "msgspec"),
        ([*LOAD, "compare", "a.json", "b.json"], "numpy"),
        ([*LOAD, "run"], "click"),
        ([*LOAD, "run"], "numpy"),
        # In a generator, after the own server has been started.
        ([*LOAD, "run", "-c", "1", "-d", "1s"], "echo_load.engines.hub.engine"),
        ([*LOAD, "swarm", "--headless", "-t", "1s"], "echo_load.runner.local_server"),
        # In the process that is locust, and while it reads its locustfile.
        ([*LOAD, "swarm", "--headless", "-t", "1s"], "locust.main"),
        ([*LOAD, "swarm", "--headless", "-t", "1s"], "echo_load.swarm.hooks"),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, list) else value,
)
def test_an_interrupt_during_imports_ends_a_command_silently(
    command: list[str], module: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = run(command, PYTHONPATH=path, INTERRUPTED_AT=module)
    said = result.stderr.decode()
    if module == "echo_load.engines.hub.engine":
        # Generators leave Ctrl-C to the process that started them.
        assert (result.returncode, "Traceback" in said) == (0, False), said
        return
    assert (result.returncode, said.strip()) == (130, "")
