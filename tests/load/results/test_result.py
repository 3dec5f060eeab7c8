"""Results, as they are read from files."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from echo_load.plan.plan import Plan
from echo_load.report.saving import save_result
from echo_load.results.result import load_result
from echo_load.runner.controller import run


def without(name: str, value: object) -> object:
    """The value of a JSON file without a key, wherever it is."""
    if isinstance(value, dict):
        return {key: without(name, one) for key, one in value.items() if key != name}
    return [without(name, one) for one in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_a_result_of_an_earlier_version_has_a_bandwidth(tmp_path: Path) -> None:
    plan = Plan(connections=2, messages=20, processes=1, repeat=2)
    path = tmp_path / "result.json"
    save_result(result := run(plan), path)
    path.write_bytes(
        msgspec.json.encode(without("bytes_per_second", msgspec.json.decode(path.read_bytes())))
    )
    assert b"bytes_per_second" not in path.read_bytes()
    assert result.totals.bytes_per_second > 0
    assert load_result(path) == result
