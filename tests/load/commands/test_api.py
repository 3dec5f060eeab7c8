"""The Python API: `from echo_load import Plan, run`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import pytest

import echo_load
from support.processes import StartServer, run

SCRIPT = """
import sys
from echo_load import Plan, Result, StagePlan, parse_stages, run

if __name__ == "__main__":
    result = run(Plan(targets=(sys.argv[1],), connections=5, messages=100, processes=2))
    assert isinstance(result, Result)
    print(result.passed, result.totals.messages, result.latency_us.response.count)
    stages = parse_stages("1-3/100ms,2/100ms", rates=False)
    assert stages[0] == StagePlan(first=1, last=3, duration=0.1)
    result = run(Plan(stages=stages, engine="threads"))
    assert result.reconciliation is not None
    print(result.passed, [stage.name for stage in result.stages], result.reconciliation.balanced)
"""


def python(code: str) -> str:
    result = run([sys.executable, "-c", code])
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout.decode().strip()


@pytest.mark.slow
def test_a_script_runs_a_plan(start_server: StartServer, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = run([sys.executable, str(script), start_server().url])
    assert result.stderr == b""
    assert result.stdout.decode().splitlines() == [
        "True 100 100",
        "True ['1-3 connections', '2 connections'] True",
    ]


@pytest.mark.untraced
def test_unused_modules_are_not_imported() -> None:
    heavy = "{'numpy', 'gevent', 'rich', 'psutil', 'hdrh', 'msgspec', 'locust'}"
    loaded = f"print(sorted({heavy} & set(sys.modules)))"
    assert python(f"import sys, echo_load; {loaded}") == "[]"
    assert python(f"import sys, echo_load.cli; {loaded}") == "[]"
    # A plan does not import the engines, nor numpy.
    assert python(f"import sys; from echo_load import Plan; {loaded}") == "['msgspec']"
    assert "gevent" not in python(f"import sys; from echo_load import run; {loaded}")


def records(kind: Any, seen: set[type]) -> Iterator[type]:
    """Yield the structures that values of a type consist of."""
    for part in get_args(kind):
        yield from records(part, seen)
    is_record = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    if (is_record or dataclasses.is_dataclass(kind)) and kind not in seen:
        seen.add(kind)
        yield kind
        for part in get_type_hints(kind).values():
            yield from records(part, seen)


def test_all_types_of_results_are_exported() -> None:
    types = set(records(echo_load.Result, set()))
    assert {"Result", "TargetWatch", "BufferSizes", "WrongReply"} <= {one.__name__ for one in types}
    for one in types:
        assert getattr(echo_load, one.__name__) is one


def test_the_package_exports_its_names_only() -> None:
    assert (
        python(
            "import echo_load\n"
            "assert all(getattr(echo_load, name) for name in echo_load.__all__)\n"
            "try: echo_load.nonsense\n"
            "except AttributeError as error: print(error)"
        )
        == "module 'echo_load' has no attribute 'nonsense'"
    )
