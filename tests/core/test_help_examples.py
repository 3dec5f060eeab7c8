"""The examples in the helps, run as a person who copies them would, with smaller numbers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import click
import pytest

from echo_client.cli import echo_client
from echo_core.command_line.arguments import Command, Example
from echo_load.cli import echo_load
from echo_server.cli import echo_server
from support.certificates import make_certificates
from support.processes import DEADLINE, StartServer
from support.shells import with_programs

# What is replaced in a command line, so that it takes a second and suits any machine.
SMALLER = {
    r"-c \d+k?": "-c 5",
    r"-r \d+k": "-r 200",
    r"0-20k/1m": "0-200/1s",
    r"-d \S+": "-d 1s",
    r"-u \d+": "-u 5",
    r"-t \S+": "-t 1s",
    r"<\d+ms": "<30s",
    r"--cycle \S+": "--cycle 200ms",
    r"--up-to \S+": "--up-to 600ms",
    r"--at-least \d+m": "--at-least 200ms",
    r"--at-least \d+k": "--at-least 10",
    r"--keepalive \S+": "--keepalive 1s",
    r"--source-ip \S+": "--source-ip 127.0.1.0/30",
    r"-i 1s": "-i 1ms",
}
# What is set beside them, for the same reason.
SETTINGS = {
    "ECHO_LOAD_CONNECTIONS": "5",
    "ECHO_LOAD_DURATION": "1s",
    "ECHO_LOAD_CYCLE": "200ms",
    "ECHO_LOAD_REPEAT": "1",
    "ECHO_LOAD_WARMUP": "0s",
    "ECHO_LOAD_START": "50",
    "ECHO_LOAD_HIGHEST": "100",
    "LOCUST_HEADLESS": "true",
    "LOCUST_USERS": "5",
    "LOCUST_RUN_TIME": "1s",
}


def settings_for(line: str) -> dict[str, str]:
    """Return the variables to set for a command line."""
    settings = dict(SETTINGS)
    if "--stages" in line:
        del settings["ECHO_LOAD_DURATION"]
    if "echo-load capacity" in line:
        settings["ECHO_LOAD_PRECISION"] = "50%"
    return settings


def examples(command: click.Command) -> list[Example]:
    """Return the examples of a command and of those in it."""
    found = list(command.examples) if isinstance(command, Command) else []
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            found += examples(subcommand)
    return found


TESTS = [
    one
    for one in [*examples(echo_client), *examples(echo_load)]
    # tests/core/test_completion.py gives these to shells.
    if "completion" not in one.line
]


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds the programs."""
    return with_programs(tmp_path / "bin")


@pytest.mark.slow
@pytest.mark.parametrize("example", TESTS, ids=lambda example: example.line)
def test_an_example_of_a_client_passes(
    example: Example, start_server: StartServer, shell: dict[str, str], tmp_path: Path
) -> None:
    files = make_certificates(tmp_path / "certificates")
    files.authority.rename(tmp_path / "ca.pem")
    content = os.urandom(1_000_000)
    (tmp_path / "big.bin").write_bytes(content)
    scheme = re.search(r"(tls|udp)://", example.line)
    listen = f"{scheme[0] if scheme else 'tcp://'}127.0.0.1:0"
    options = files.options if listen.startswith("tls") else ()
    line = example.line
    for pattern, smaller in SMALLER.items():
        line = re.sub(pattern, smaller, line)
    for address in sorted(set(re.findall(r"10\.0\.0\.\d(?::\d+)?(?!/)", line))):
        server = start_server("--listen", listen, *options)
        line = line.replace(address, f"127.0.0.1:{server.port}")
    ended = subprocess.run(
        ["bash", "-c", line],
        input=b"hello\n",
        capture_output=True,
        cwd=tmp_path,
        env=shell | settings_for(line),
        timeout=DEADLINE,
        check=False,
    )
    assert ended.returncode == 0, (line, ended.stdout.decode(), ended.stderr.decode())
    if "copy.bin" in line:
        assert (tmp_path / "copy.bin").read_bytes() == content
    for page in re.findall(r"--html (\S+)", line):
        assert b"<html" in (tmp_path / page).read_bytes()


@pytest.mark.parametrize("example", examples(echo_server), ids=lambda example: example.line)
def test_an_example_of_the_server_listens(
    example: Example, shell: dict[str, str], tmp_path: Path
) -> None:
    line = re.sub(r"\b(50007|9607)\b", "0", example.line)
    with subprocess.Popen(
        ["bash", "-c", f"exec {line}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=shell | settings_for(line),
    ) as server:
        assert server.stdout is not None
        first = server.stdout.readline().decode()
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=DEADLINE)
    assert first.startswith("listening "), log.decode()
    assert server.returncode == 0, log.decode()


def test_there_are_examples() -> None:
    assert len(TESTS) >= 15
    assert len([one for one in TESTS if one.line.startswith("echo-load run ")]) == 4
