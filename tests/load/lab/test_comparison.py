"""The processes whose memory is compared."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from multiprocessing import resource_tracker

from echo_load.lab.comparison import generators


def test_only_generators_are_counted() -> None:
    """A tracker as the third of two processes made a connection of `threads x 2` seem larger."""
    resource_tracker.ensure_running()
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    generator = context.Process(target=theirs.__class__.recv, args=(theirs,))
    generator.start()
    try:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
            assert generators() == [generator.pid]
            server.communicate(b"\n")
    finally:
        ours.send("end")
        generator.join()
