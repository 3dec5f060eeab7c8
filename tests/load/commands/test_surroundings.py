"""Commands in unusual surroundings: proxies, other settings, files in the current folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.processes import DEADLINE, StartServer, environment, run

# The installed script, because `python -m` imports modules from the current folder.
ECHO_LOAD = Path(sys.executable).with_name("echo-load")
QUICK = ("-c", "2", "-n", "100")
ONE_STAGE = ("-c", "2", "-d", "1s")


def run_in(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ECHO_LOAD, *arguments],
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_proxy_in_the_environment_is_not_used(
    start_server: StartServer, tmp_path: Path, name: str
) -> None:
    proxy = {name: "http://127.0.0.1:1"}
    ended = run_in(tmp_path, "run", *QUICK, **proxy)
    assert (ended.returncode, "reconciled" in ended.stdout) == (0, True), ended.stderr
    server = start_server("--admin", "127.0.0.1:0")
    ended = run_in(tmp_path, "run", *QUICK, server.url, "--reconcile", server.admin, **proxy)
    assert (ended.returncode, "reconciled" in ended.stdout) == (0, True), ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ECHO_SERVER_LISTEN", "tcp://127.0.0.1:1"),
        ("ECHO_SERVER_MAX_CONNECTIONS", "1"),
        ("ECHO_SERVER_PROXY_PROTOCOL", "1"),
        ("ECHO_SERVER_FAULTS", "corrupt"),
        ("ECHO_SERVER_NO_SUCH", "1"),
    ],
)
def test_settings_of_another_server_are_not_inherited(
    tmp_path: Path, name: str, value: str
) -> None:
    ended = run_in(tmp_path, "run", *QUICK, **{name: value})
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_generator_imports_nothing_that_gevent_has_to_patch_first() -> None:
    program = "import sys, echo_load.runner.generator; print('ssl' in sys.modules)"
    assert run([sys.executable, "-c", program]).stdout == b"False\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", [("run", *QUICK), ("stress", *ONE_STAGE)], ids=" ".join)
def test_modules_of_the_current_folder_are_not_imported(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    for name in ("random", "socket", "queue", "selectors", "gevent", "json", "echo_server"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the current folder')\n")
    ended = run_in(tmp_path, *command)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_locust_of_the_current_folder_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "locust.py").write_text("raise SystemExit('a file of the current folder')\n")
    ended = run_in(tmp_path, "swarm", "--headless", "-u", "1", "-t", "1s")
    assert ended.returncode == 0, ended.stdout + ended.stderr
