"""Output to full devices, closed pipes and terminals, and after signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from echo_load.results.result import Result
from support.processes import (
    DEADLINE,
    LOAD,
    EchoServerProcess,
    StartServer,
    environment,
    run,
    until,
)

RUN = [*LOAD, "run", "-c", "2", "-d", "200ms"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code"), [(["--json"], 1), ([], 1), (["--threshold", "max<1us"], 99)]
)
def test_a_full_device_is_one_error_and_the_result_is_kept(
    echo_server: EchoServerProcess, tmp_path: Path, options: list[str], code: int
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
    assert ended.returncode == code
    assert ended.stderr.decode().splitlines()[-1] == (
        "echo-load: error: cannot write the output: No space left on device"
    )
    assert msgspec.json.decode(output.read_bytes(), type=Result).passed == (code == 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stdout", "stderr", "code"), [(True, False, 1), (False, True, 0), (True, True, 1)]
)
def test_a_full_device_does_not_prevent_other_reports(
    echo_server: EchoServerProcess, tmp_path: Path, stdout: bool, stderr: bool, code: int
) -> None:
    output, page = tmp_path / "result.json", tmp_path / "report.html"
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*RUN, echo_server.url, "-o", str(output), "--html", str(page)],
            stdout=full if stdout else subprocess.DEVNULL,
            stderr=full if stderr else subprocess.DEVNULL,
            timeout=DEADLINE,
            check=False,
            env=environment(),
        )
    assert ended.returncode == code
    assert msgspec.json.decode(output.read_bytes(), type=Result).passed
    assert page.stat().st_size > 100_000


@pytest.mark.parametrize("options", [["--json"], []])
@pytest.mark.parametrize(("threshold", "code"), [("max<1h", 0), ("max<1us", 99)])
def test_a_reader_that_closes_the_pipe_is_not_an_error(
    echo_server: EchoServerProcess, tmp_path: Path, options: list[str], threshold: str, code: int
) -> None:
    """An example is `echo-load run ... | head -1`."""
    output, page = tmp_path / "result.json", tmp_path / "report.html"
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [
            *(*RUN, echo_server.url, *options, "--threshold", threshold),
            *("-o", str(output), "--html", str(page)),
        ],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=DEADLINE,
        check=False,
        env=environment(),
    )
    os.close(writing)
    assert ended.returncode == code
    assert b"Traceback" not in ended.stderr
    assert msgspec.json.decode(output.read_bytes(), type=Result).passed == (code == 0)
    assert page.stat().st_size > 100_000


@pytest.mark.slow
def test_a_terminal_that_is_gone_is_not_an_error(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    ours, theirs = os.openpty()
    client = subprocess.Popen(
        [*LOAD, "run", echo_server.url, "-c", "2", "-d", "2s", "-o", str(output)],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment(),
        start_new_session=True,
    )
    os.close(theirs)
    until(lambda: echo_server.log().count("connection accepted") == 2, "the test to run")
    os.close(ours)
    assert client.wait(DEADLINE) == 1
    assert msgspec.json.decode(output.read_bytes(), type=Result).passed


@pytest.mark.slow
def test_without_a_terminal_stages_begin_and_end_with_a_line(
    echo_server: EchoServerProcess,
) -> None:
    ended = run(
        [*LOAD, "run", echo_server.url, "--stages", "1/200ms,2/50ms,0-3/200ms", "--repeat", "2"]
    )
    first, *lines = ended.stderr.decode().splitlines()
    assert "1, then 2, then 0-3 connections" in first
    assert [line.split(", ", 2)[:2] for line in lines if "ended" not in line] == [
        [f"repeat {repeat} of 2", f"stage {number} of 3: {level}"]
        for repeat in (1, 2)
        for number, level in enumerate(["1 connection", "2 connections", "0-3 connections"], 1)
    ]
    for begun, has_ended in zip(lines[::2], lines[1::2], strict=True):
        assert re.fullmatch(
            rf"{begun.partition(':')[0]} has ended: [\d,]+ messages?, 0 errors so far", has_ended
        )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", "utf-8"])
def test_reports_are_printed_in_any_encoding(
    start_server: StartServer, tmp_path: Path, encoding: str
) -> None:
    """Names may look like markup, or have bytes that are not text."""
    folder = tmp_path / "[bold]:100: µ"
    folder.mkdir()
    payload = os.fsencode(folder) + b"/payload \xff"
    Path(os.fsdecode(payload)).write_bytes(b"hello")
    url = f"unix://{folder}/[red].sock"
    server = start_server("--listen", url)
    output, page = tmp_path / "result.json", tmp_path / "report.html"
    ended = subprocess.run(
        [*RUN, url, "--payload-file", payload, "-o", str(output), "--html", str(page)],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(PYTHONIOENCODING=encoding),
    )
    assert ended.returncode == 0, ended.stderr
    shown = url.encode(encoding, "replace").replace(b"?", b"u")
    assert b"PASSED  echo-load run " + shown in ended.stdout
    assert b"p50" in ended.stdout
    result = msgspec.json.decode(output.read_bytes(), type=Result)
    assert result.targets == [url]
    assert (result.plan.payload_file or "").endswith("payload \\udcff")
    assert "[red].sock" in page.read_text()
    assert server.process.poll() is None


def test_a_closed_standard_output_is_one_error_and_the_result_is_kept(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    output = tmp_path / "result.json"
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *RUN, echo_server.url, "-o", str(output)],
        stderr=subprocess.PIPE,
        timeout=DEADLINE,
        check=False,
        env=environment(),
    )
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines()[-1] == (
        "echo-load: error: cannot write the output: Bad file descriptor"
    )
    assert msgspec.json.decode(output.read_bytes(), type=Result).passed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_process_group_ends_a_test_with_its_result(
    echo_server: EchoServerProcess, number: signal.Signals
) -> None:
    """A service manager, `timeout` or a closed terminal sends such signals."""
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


def test_a_local_server_ends_with_its_load_tester() -> None:
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
