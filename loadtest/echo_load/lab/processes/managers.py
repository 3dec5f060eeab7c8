"""Objects that a manager's process keeps for others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from echo_load.lab.experiment import Conclusion, Experiment, Measurement, Measurements
from echo_load.lab.notation import written
from echo_load.lab.processes.children import context_of, join, managing, start


def note(numbers: Any, pids: Any) -> None:
    """Write into a manager's dict and list, as the tutorial does."""
    numbers["1"] = 1
    numbers["2"] = 2
    pids.append(os.getpid())


def share_by_manager(_quick: bool) -> Iterator[Measurement]:
    """Let ten processes write into a manager's dict and list."""
    context = context_of("fork")
    with managing(context) as manager:
        numbers, pids = manager.dict(), manager.list()
        processes = [context.Process(target=note, args=(numbers, pids)) for _ in range(10)]
        for process in processes:
            start(process)
        join(*processes)
        yield Measurement("the dict has both keys", (dict(numbers) == {"1": 1, "2": 2},), "yes/no")
        yield Measurement("different process ids in the list", (len(set(pids)),))


def conclude_manager(measurements: Measurements) -> Conclusion:
    """Conclude that the claim holds if all ten processes' writes are there."""
    keys = measurements.median("the dict has both keys")
    pids = measurements.median("different process ids in the list")
    return Conclusion.when(
        bool(keys) and pids == 10,
        f"the list holds {written(pids, '')} of 10 process ids, and the dict "
        + ("what was written to it." if keys else "not what was written to it."),
    )


MANAGER = Experiment(
    "manager",
    "A Manager's dict and list are shared between processes.",
    "Ten processes write two keys into a dict and append their ids to a list.",
    share_by_manager,
    conclude_manager,
)
