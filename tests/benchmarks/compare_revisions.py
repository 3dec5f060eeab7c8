"""Measure two revisions in turns, and let `echo-load compare` judge what has changed.

    python tests/benchmarks/compare_revisions.py REVISION [--rounds 6] [--fail-on-worse]

The server of each revision meets the generator of the files as they are now, and the generator of
each revision the server of the files as they are now. The server has core 0 to itself and the
generator core 1. Results are written to build/bench/revisions.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench_results import MeasurementError, exit_with
from measuring import WARMUP_SECONDS, generated, listening, option_parser

ROOT = Path(__file__).parents[2]
PACKAGES = ("core", "server", "client", "loadtest")
RESULTS = Path("build/bench/revisions")
# Fewer repeats cannot show a difference.
LEAST_ROUNDS = 4
WORKLOADS = {
    "one in flight": ("--connections", "100"),
    "64 in flight": ("--connections", "100", "--pipeline", "64"),
    "16 KiB": ("--connections", "100", "--payload-size", "16KiB"),
    "connect, echo, close": ("--connections", "64", "--churn", "1"),
}


@dataclass(frozen=True)
class Revision:
    """The files of a revision.

    Attributes:
        name: its name in the names of files.
        directory: where its files are.
    """

    name: str
    directory: Path

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return the command line of one of its programs."""
        path = os.pathsep.join(str(self.directory / package) for package in PACKAGES)
        # Without -P, the working directory would come before the path.
        return ["env", f"PYTHONPATH={path}", sys.executable, "-P", "-m", module, *arguments]


@contextmanager
def checked_out(revision: str) -> Iterator[Revision]:
    """Check a revision out into a temporary folder, until the block ends.

    Raises:
        MeasurementError: there is no such revision.
    """
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run(
        [*git, "rev-parse", "--verify", "--quiet", "--short", f"{revision}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if commit.returncode != 0:
        raise MeasurementError(f"there is no revision {revision!r}; give one that git knows")
    name = commit.stdout.strip()
    with tempfile.TemporaryDirectory() as directory:
        files = Path(directory) / name
        subprocess.run([*git, "worktree", "add", "--quiet", "--detach", files, name], check=True)
        try:
            yield Revision(name, files)
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", files], check=True)


def result(server: Revision, client: Revision, workload: Sequence[str], seconds: float) -> Any:
    """Return the result of one run of `echo-load run`, as JSON."""
    with listening(server.command("echo_server", "--port", "0")) as (_, port):
        return generated(
            [
                *client.command("echo_load", "run", f"tcp://127.0.0.1:{port}", *workload),
                *("--duration", f"{seconds}s", "--warmup", f"{WARMUP_SECONDS}s"),
                *("--processes", "1", "--json"),
            ]
        )


def with_repeats(results: Sequence[Any]) -> Any:
    """Return one result whose repeats are separate runs of the same test."""
    first = results[0]
    repeats = [{"started_at": one["started_at"], "stages": one["stages"]} for one in results]
    return {**first, "plan": {**first["plan"], "repeat": len(results)}, "repeats": repeats}


def compare(
    name: str,
    revisions: Sequence[str],
    pairs: Sequence[tuple[Revision, Revision]],
    options: argparse.Namespace,
) -> int:
    """Measure two pairs of server and generator in turns with each workload; return the exit code.

    Args:
        name: what is compared: `server` or `generator`.
        revisions: the names of the revisions.
        pairs: server and generator of the earlier revision, and of the current files.
        options: rounds, seconds, and what counts as a failure.
    """
    code = 0
    for label, workload in WORKLOADS.items():
        results: list[list[Any]] = [[] for _ in pairs]
        for _ in range(options.rounds):
            for found, (server, client) in zip(results, pairs, strict=True):
                found.append(result(server, client, workload, options.seconds))
        paths = []
        folder = RESULTS / f"{name}, {label}"
        folder.mkdir(parents=True, exist_ok=True)
        for revision, found in zip(revisions, results, strict=True):
            path = folder / f"{revision}.json"
            path.write_bytes(msgspec.json.encode(with_repeats(found)))
            paths.append(str(path))
        print(f"\n{name}, {label}", flush=True)
        judge = [sys.executable, "-m", "echo_load", "compare", *paths]
        if options.fail_on_worse:
            judge += ["--fail-on", "worse"]
        code = max(code, subprocess.run(judge, check=False).returncode)
    return code


def main() -> int:
    """Measure, print the comparisons, and return the exit code."""
    parser = option_parser(__doc__)
    parser.set_defaults(rounds=6, seconds=1.0)
    parser.add_argument("revision", help="revision to compare the files with, such as main~5")
    parser.add_argument("--fail-on-worse", action="store_true", help="exit with 99 if worse")
    options = parser.parse_args()
    if options.rounds < LEAST_ROUNDS:
        parser.error(f"{options.rounds} rounds cannot show a difference; give {LEAST_ROUNDS}")
    current = Revision("current", ROOT)
    with checked_out(options.revision) as earlier:
        names = [earlier.name, current.name]
        return max(
            compare("server", names, [(earlier, current), (current, current)], options),
            compare("generator", names, [(current, earlier), (current, current)], options),
        )


if __name__ == "__main__":
    exit_with(main)
