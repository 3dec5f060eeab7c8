"""Daemon threads at the end of a program."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written

# The longest wait in seconds.
_DEADLINE = 10.0


_PROGRAM = """
import threading, time
begun = threading.Event()
def work():
    begun.set()
    time.sleep(0.3)
    print("finished", flush=True)
threading.Thread(target=work, daemon={daemon}).start()
begun.wait()
"""


def end_with_threads(quick: bool) -> Iterator[Measurement]:
    """End a program whose thread has 300 ms of work left."""
    for kind, daemon in (("daemon", True), ("not a daemon", False)):
        finished, lasted = [], []
        for _ in range(1 if quick else 5):
            began = time.perf_counter()
            ended = subprocess.run(
                [sys.executable, "-I", "-c", _PROGRAM.format(daemon=daemon)],
                stdout=subprocess.PIPE,
                check=True,
                timeout=_DEADLINE,
            )
            lasted.append(time.perf_counter() - began)
            finished.append(ended.stdout == b"finished\n")
        yield Measurement(
            "the thread finished its work", tuple(map(float, finished)), "share", kind
        )
        yield Measurement("the program lasted", tuple(lasted), "s", kind)


def conclude_daemon(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if a daemon never finished, and another thread always did."""
    daemon = measurements.find("the thread finished its work", "daemon")
    other = measurements.find("the thread finished its work", "not a daemon")
    lasted = measurements.median("the program lasted", "not a daemon")
    return Conclusion.when(
        daemon.high == 0 and other.low == 1,
        f"daemon threads finished their work in {written(daemon.median, 'share')} of the programs, "
        f"others in {written(other.median, 'share')}; these kept the program running, for "
        f"{written(lasted, 's')}.",
    )


THREAD_DAEMON = Experiment(
    "thread-daemon",
    "Daemon threads end with the main program, done or not; others hold it until they are done.",
    "A program ends while a thread of its own has 300 ms of work left.",
    end_with_threads,
    conclude_daemon,
)
