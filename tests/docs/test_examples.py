"""The examples of the documentation, run as they say."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

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
