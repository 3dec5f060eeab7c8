"""Results outlive whoever reads the screen."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from echo_load.result import Result
from support.processes import DEADLINE, LOAD, EchoServerProcess, environment, until

RUN = [*LOAD, "run", "-c", "2", "-d", "200ms"]


@pytest.mark.parametrize("options", [["--json"], []])
def test_a_full_device_costs_one_line_and_not_the_result(
    echo_server: EchoServerProcess, tmp_path: Path, options: list[str]
) -> None:
    output = tmp_path / "result.json"
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*RUN, echo_server.url, *options, "-o", str(output)],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=DEADLINE,
            check=False,
            env=environment(),
        )
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines()[-1] == (
        "echo-load: error: cannot write the output: No space left on device"
    )
    assert msgspec.json.decode(output.read_bytes(), type=Result).passed


def test_a_reader_that_left_costs_nothing_but_the_exit_code(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [*RUN, echo_server.url, "--json", "-o", str(output)],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=DEADLINE,
        check=False,
        env=environment(),
    )
    os.close(writing)
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr
    assert msgspec.json.decode(output.read_bytes(), type=Result).passed


def test_standard_output_may_be_closed(echo_server: EchoServerProcess) -> None:
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *RUN, echo_server.url],
        stderr=subprocess.PIPE,
        timeout=DEADLINE,
        check=False,
        env=environment(),
    )
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_still_gives_a_result(
    echo_server: EchoServerProcess, number: signal.Signals
) -> None:
    """As `timeout`, a service manager or a closed terminal sends it."""
    client = subprocess.Popen(
        [*LOAD, "run", echo_server.url, "-c", "3", "-d", "60s", "--processes", "2", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
    )
    until(lambda: echo_server.log().count("connection accepted") == 3, "all to be connected")
    os.killpg(client.pid, number)
    output, _ = client.communicate(timeout=DEADLINE)
    assert client.returncode == 130
    assert msgspec.json.decode(output, type=Result).verdict == "interrupted"


def test_a_server_that_was_started_ends_with_its_load_tester() -> None:
    client = subprocess.Popen(
        [*LOAD, "run", "-c", "2", "-d", "60s"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert client.stderr is not None
    with client.stderr:
        port = client.stderr.readline().split(b",")[0].rpartition(b":")[0].rpartition(b":")[2]
        client.kill()
        client.wait(DEADLINE)
    listening = f":{int(port.split(b':')[0]):04X} 00000000:0000 0A"

    def is_gone() -> bool:
        return listening not in Path("/proc/net/tcp").read_text()

    until(is_gone, "the server to end")
