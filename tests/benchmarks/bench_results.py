"""The results of a suite of benchmarks, measured in interleaved rounds, as a JSON file."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import msgspec
import psutil

FAILED = 1


class MeasurementError(Exception):
    """A server or a generator failed."""


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a benchmark, and exit with the code that it returns, or with 1 and what has failed."""
    try:
        code = main()
    except MeasurementError as error:
        print(error, file=sys.stderr)
        code = FAILED
    sys.exit(code)


class Value(msgspec.Struct, frozen=True):
    """The figures of one candidate in one round.

    Attributes:
        value: the figure, in the unit of its scenario.
        cpu_us: processor time of the server per message in microseconds; 0 if not measured.
    """

    value: float
    cpu_us: float = 0.0


class Scenario(msgspec.Struct, kw_only=True):
    """One workload, and the figures of each candidate in each round.

    Attributes:
        group: name of the group of scenarios that share a table, such as `connections`.
        label: heading of its column in the table, such as `100`.
        x: its position on the axis of a plot.
        unit: unit of all values.
        reference: candidate by whose value the others are divided; None to show no ratios.
        rounds: values of each candidate, one per round.
        failed: candidates that failed, with the reason; they have no rounds.
    """

    group: str
    label: str
    x: float
    unit: str
    reference: str | None
    rounds: dict[str, list[Value]] = {}
    failed: dict[str, str] = {}

    def lines(self) -> Iterator[str]:
        """Yield the scenario as text: values, ratios to the reference with their ranges, CPU time.

        Values and ratios are medians of the rounds.
        """
        yield f"{self.group}, {self.label} ({self.unit})"
        reference = self.rounds.get(self.reference or "")
        for name, values in self.rounds.items():
            line = f"  {name:<46} {statistics.median(one.value for one in values):>12,.2f}"
            if reference:
                shares = [
                    one.value / other.value for one, other in zip(values, reference, strict=True)
                ]
                line += f"  {statistics.median(shares):5.2f} [{min(shares):.2f}-{max(shares):.2f}]"
            if cpu_us := statistics.median(one.cpu_us for one in values):
                line += f"  {cpu_us:6.2f} us CPU"
            yield line
        for name, reason in self.failed.items():
            yield f"  {name:<46} failed: {reason}"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, without its name."""

    processor: str
    cores: int
    memory_gib: float
    kernel: str
    python: str

    @classmethod
    def here(cls) -> Machine:
        """Describe this machine."""
        return cls(
            processor=_processor(),
            cores=os.cpu_count() or 1,
            memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
            kernel=platform.release(),
            python=platform.python_version(),
        )


class Suite(msgspec.Struct, kw_only=True):
    """The results of one suite.

    Attributes:
        name: name of the suite; its file is `NAME.json`.
        machine: machine on which it was measured.
        revision: commit that was measured, with `+` if files were changed.
        date: day of the measurement.
        rounds: number of interleaved rounds.
        seconds: measured seconds of each candidate in each round.
        left_out: candidates that this machine cannot run, with the reason.
        scenarios: scenarios measured so far.
    """

    name: str
    machine: Machine
    revision: str
    date: str
    rounds: int
    seconds: float
    left_out: dict[str, str]
    scenarios: list[Scenario] = []

    @classmethod
    def begin(cls, name: str, rounds: int, seconds: float, left_out: dict[str, str]) -> Suite:
        """Return a suite without scenarios."""
        return cls(
            name=name,
            machine=Machine.here(),
            revision=_revision(),
            date=time.strftime("%Y-%m-%d"),
            rounds=rounds,
            seconds=seconds,
            left_out=left_out,
        )

    @classmethod
    def read(cls, path: Path) -> Suite:
        """Read a file that `write` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def write(self, directory: Path) -> None:
        """Write the results so far to a file in a directory, which is replaced at once."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.name}.json"
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")
        unfinished.replace(path)

    def measure(
        self,
        directory: Path,
        scenario: Scenario,
        candidates: Mapping[str, Callable[[], Value | Mapping[str, Value]]],
    ) -> Scenario:
        """Measure the candidates in interleaved rounds, and write the file again.

        Args:
            directory: directory of the file.
            scenario: scenario without rounds.
            candidates: for each candidate, a function that measures it once and returns a value, or
                several by name.

        Returns:
            The scenario with its rounds.
        """
        rounds: dict[str, list[Value]] = {}
        failed: dict[str, str] = {}
        for _ in range(self.rounds):
            for name, measure in candidates.items():
                if name in failed:
                    continue
                try:
                    values = measure()
                except MeasurementError as error:
                    failed[name] = str(error)
                    print(f"  {name}: {error}", file=sys.stderr)
                    continue
                named = {name: values} if isinstance(values, Value) else values
                for one, value in named.items():
                    rounds.setdefault(one, []).append(value)
        # A candidate that failed has no rounds, because ratios need a value of each round.
        scenario.rounds = {name: rounds[name] for name in rounds if name not in failed}
        scenario.failed = failed
        self.scenarios.append(scenario)
        self.write(directory)
        print(f"{self.name}: {scenario.group}, {scenario.label}", file=sys.stderr, flush=True)
        return scenario

    def lines(self) -> Iterator[str]:
        """Yield the results as text: a table for each scenario, and the candidates left out."""
        yield f"{self.name}, medians of {self.rounds} rounds"
        for scenario in self.scenarios:
            yield ""
            yield from scenario.lines()
        for name, reason in self.left_out.items():
            yield f"left out: {name}: {reason}"

    @property
    def exit_code(self) -> int:
        """The exit code: 0, or 1 if a candidate failed."""
        return FAILED if any(one.failed for one in self.scenarios) else 0


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _revision() -> str:
    here = Path(__file__).parent
    git = ["git", "-C", str(here)]
    commit = subprocess.run(
        [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    if commit.returncode != 0:
        return "unknown"
    changed = subprocess.run(
        [*git, "status", "--porcelain", "--untracked-files=no"],
        capture_output=True,
        text=True,
        check=False,
    )
    return commit.stdout.strip() + ("+" if changed.stdout.strip() else "")
