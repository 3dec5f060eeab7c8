"""Measure how exact the answers of `echo-load capacity` are, on targets whose limit is known.

    python tests/benchmarks/capacity_accuracy.py [--rounds 10]

One target has a worker with a fixed service time, for which queueing theory gives the rate that
keeps the SLO; the other closes what comes above a rate. Prints each answer divided by the truth. A
round takes some minutes. The targets are those of the tests: run it with PYTHONPATH=tests.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from bench_results import FAILED, MeasurementError, exit_with
from support.known_delays import KnownDelays
from support.queueing import rate_that_keeps

SERVICE_SECONDS, LIMIT_SECONDS = 0.005, 0.05
SHED_ABOVE = 600
CLOSE = 0.1


def capacity(target: str, *arguments: str) -> float:
    """Return the rate that `echo-load capacity` finds, in messages per second."""
    command = [sys.executable, "-m", "echo_load", "capacity", target, *arguments, "--json"]
    ended = subprocess.run(command, capture_output=True, check=False)
    if not ended.stdout:
        raise MeasurementError(ended.stderr.decode().strip())
    rate: float | None = json.loads(ended.stdout)["capacity"]["rate"]
    return rate or 0.0


def single_worker() -> float:
    """Return an answer for the worker with a fixed service time, divided by the truth."""
    with KnownDelays(service=SERVICE_SECONDS) as target:
        slo = ("--slo", f"p99<{LIMIT_SECONDS * 1e3:g}ms", "--start", "100")
        found = capacity(target.target, *slo, "--arrivals", "poisson")
    return found / rate_that_keeps(0.99, LIMIT_SECONDS, SERVICE_SECONDS)


def shedding() -> float:
    """Return an answer for the target that sheds above a rate, divided by the truth."""
    with KnownDelays(sheds_above=SHED_ABOVE) as target:
        found = capacity(target.target, "--slo", "errors==0", "--start", "400", "-c", "20")
    return found / SHED_ABOVE


def main() -> int:
    """Measure, print, and return 1 if more than a tenth of the answers are off by a tenth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    code = 0
    for name, measure in (("a single worker", single_worker), ("shedding", shedding)):
        answers = []
        for _ in range(rounds):
            answers.append(measure())
            print(f"{name}: {answers[-1]:.3f} of the truth", flush=True)
        off = sum(abs(answer - 1) > CLOSE for answer in answers)
        print(f"{name}: {off} of {rounds} answers are off by more than {CLOSE:.0%}")
        code = FAILED if off > rounds * CLOSE else code
    return code


if __name__ == "__main__":
    exit_with(main)
