"""The examples of the documentation, run as they say."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
import yaml

from support.processes import EchoServerProcess, StartServer, run
from support.swarms import locust

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.mark.slow
def test_the_locustfile(echo_server: EchoServerProcess) -> None:
    load = ("--headless", "-u", "10", "-r", "10", "-t", "2s", "--json")
    ended = locust(*load, "--host", echo_server.url, file=EXAMPLES / "locustfile.py")
    assert ended.returncode == 0, ended.stderr.decode()
    entries = {entry["name"]: entry for entry in json.loads(ended.stdout)}
    assert entries["message"]["num_requests"] > 100
    assert entries["message"]["num_failures"] == 0
    # The users disconnect and reconnect.
    assert entries["connect"]["num_requests"] > 10


@pytest.mark.slow
def test_the_search_for_a_rate(echo_server: EchoServerProcess) -> None:
    ended = run([sys.executable, str(EXAMPLES / "find_rate.py"), echo_server.url])
    assert ended.returncode == 0, ended.stderr.decode()
    *steps, verdict = ended.stdout.decode().splitlines()
    assert len(steps) == 6
    found = re.fullmatch(r"the limit is between ([\d,]+) and ([\d,]+) msg/s", verdict)
    assert found
    least, most = (int(number.replace(",", "")) for number in found.groups())
    assert 500 <= least < most <= 50_000


@pytest.mark.slow
def test_the_job_of_continuous_integration(start_server: StartServer, tmp_path: Path) -> None:
    """The candidate is slower, because two equal servers might differ by chance."""
    baseline, candidate = start_server(), start_server("--fault", "delay=20ms")
    job = f'cd "{tmp_path}" && exec sh "{EXAMPLES / "continuous_integration.sh"}"'
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = run(
        ["sh", "-c", job],
        PATH=path,
        BASELINE=baseline.url,
        CANDIDATE=candidate.url,
        DURATION="0.3s",
    )
    assert ended.returncode == 99, (ended.stdout.decode(), ended.stderr.decode())
    assert b"WORSE" in ended.stdout
    assert "plotly" in (tmp_path / "report.html").read_text()
    assert "worse" in (tmp_path / "comparison.md").read_text().splitlines()[0]


class Job(NamedTuple):
    """A job of a CI system.

    Attributes:
        variables: its environment.
        steps: its commands, and whether each is run whatever has failed before.
        reports: the files that it keeps.
    """

    variables: dict[str, str]
    steps: list[tuple[str, bool]]
    reports: set[str]


def github_actions() -> Job:
    (job,) = yaml.safe_load((EXAMPLES / "github_actions.yml").read_text())["jobs"].values()
    install, *steps = [step for step in job["steps"] if "run" in step]
    assert install["name"] == "Install"
    (kept,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    return Job(
        job["env"],
        [(step["run"], step.get("if") == "always()") for step in steps],
        set(kept["with"]["path"].split()),
    )


def gitlab_ci() -> Job:
    (job,) = yaml.safe_load((EXAMPLES / "gitlab_ci.yml").read_text()).values()
    assert job["artifacts"]["when"] == "always"
    return Job(
        job["variables"],
        [(command, False) for command in job["script"]],
        {*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]},
    )


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "code"), [("1h", 0), ("1us", 99)])
@pytest.mark.parametrize("read", [github_actions, gitlab_ci])
def test_a_job_of_a_ci_system(
    read: Callable[[], Job], echo_server: EchoServerProcess, tmp_path: Path, limit: str, code: int
) -> None:
    """Run its commands as its runner does, on a server here and with a limit that is certain."""
    job = read()
    assert job.variables.keys() == {"TARGET", "DURATION", "LIMIT"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = 0
    for command, always in job.steps:
        if not ended or always:
            step = run(
                ["bash", "-e", "-o", "pipefail", "-c", f'cd "{tmp_path}"\n{command}'],
                PATH=path,
                GITHUB_STEP_SUMMARY=str(tmp_path / "step-summary.md"),
                TARGET=echo_server.url,
                DURATION="0.5s",
                LIMIT=limit,
            )
            ended = ended or step.returncode
    assert ended == code, (step.stdout.decode(), step.stderr.decode())
    written = {file.name for file in tmp_path.iterdir() if not file.name.startswith("server-")}
    assert written - {"step-summary.md"} == job.reports
    (suite,) = ET.parse(tmp_path / "junit.xml").getroot()
    assert suite.attrib["failures"] == ("1" if code else "0")
    if read is github_actions:
        summary = (tmp_path / "step-summary.md").read_text()
        assert summary == (tmp_path / "summary.md").read_text()
