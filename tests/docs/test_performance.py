"""The tables of README.md and docs/performance.md are made from the measured results."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MAKE = Path(__file__).parents[2] / "docs" / "make_performance.py"


def test_the_tables_match_the_results() -> None:
    ended = subprocess.run(
        [sys.executable, MAKE, "--check"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "current\n", "")
