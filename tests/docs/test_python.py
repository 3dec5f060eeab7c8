"""The page about Python and its examples: they run, and their types are right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import DEADLINE, StartServer, environment, run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PAGE = (ROOT / "docs" / "python.md").read_text()
SCRIPTS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PACKAGES = ("core", "server", "client", "loadtest")
WRONG = """
from echo_load import Plan, nonsense, run

Plan(connections=[])
Plan(target="localhost")
Plan(duration=b"10s")
run("localhost")
"""


def headings(script: str) -> str:
    """The names that a script imports, to tell scripts apart."""
    return re.sub(r"\W+", " ", script.partition("import")[2].partition("\n")[0]).strip()


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=headings)
def test_scripts_of_the_page_run(script: str, start_server: StartServer, tmp_path: Path) -> None:
    url = start_server().url
    is_suite = "def test_" in script
    file = tmp_path / ("test_script.py" if is_suite else "script.py")
    file.write_text(script.replace("tcp://127.0.0.1:50007", url))
    command = (
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:locust"] if is_suite else []
    )
    process = subprocess.run(
        [sys.executable, *command, str(file)],
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env=environment(),
        timeout=DEADLINE,
    )
    assert process.returncode == 0, (process.stdout.decode(), process.stderr.decode())
    assert process.stderr == b""
    assert process.stdout


@pytest.mark.slow
def test_the_example_of_a_test_suite() -> None:
    options = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:locust")
    suite = str(EXAMPLES / "test_echo_service.py")
    process = run([sys.executable, *options, "--rootdir", str(EXAMPLES), suite])
    assert process.returncode == 0, process.stdout.decode()
    assert "4 passed" in process.stdout.decode()


@pytest.mark.slow
def test_the_example_of_an_asyncio_service() -> None:
    process = run([sys.executable, str(EXAMPLES / "asyncio_service.py")])
    assert (process.returncode, process.stderr) == (0, b"")
    assert process.stdout.decode().startswith("<Result of run: passed; 1,000 messages, ")


def checked(*files: Path, cache: Path) -> str:
    """The output of `mypy --strict` for files."""
    process = run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), *map(str, files)],
        MYPYPATH=os.pathsep.join(str(ROOT / name) for name in PACKAGES),
    )
    return process.stdout.decode() + process.stderr.decode()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mypy_accepts_what_is_shown_and_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    shown = []
    for number, script in enumerate(SCRIPTS):
        shown.append(tmp_path / f"script{number}.py")
        shown[-1].write_text(script)
    examples = [one for one in EXAMPLES.glob("*.py") if one.name != "locustfile.py"]
    said = checked(wrong, *shown, *examples, cache=tmp_path / "cache")
    lines = [line for line in said.splitlines() if ": error:" in line]
    assert all(line.startswith(str(wrong)) for line in lines), said
    found = [re.sub(r".*wrong\.py:(\d+): error: .*\[(.*)\]", r"\1 \2", line) for line in lines]
    assert found == ["2 attr-defined", "4 arg-type", "5 call-arg", "6 arg-type", "7 arg-type"], said
