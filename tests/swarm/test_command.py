"""`echo-load swarm`: options, targets, interrupts, ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from echo_load.swarm.options import OPTIONS
from support.ports import free_port
from support.processes import (
    DEADLINE,
    LOAD,
    EchoServerProcess,
    StartServer,
    accepts,
    environment,
    run,
    until,
)
from support.swarms import SHORT, locust, started


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--host", "nonsense:x"], "--host: 'nonsense:x': 'x' is not a port"),
        (["--host", "http://127.0.0.1:1"], "--host: "),
        ([], "--host is missing; write it as in --host tcp://HOST:50007"),
        (["--host", "h", "--payload-size", "x"], "--payload-size: 'x' is not a size"),
        (
            ["--host", "udp://127.0.0.1:1", "--payload-size", "70000"],
            "messages of 70000 bytes are too large: a datagram can hold at most 65507",
        ),
        (["--host", "h", "--wait", "3s-1s"], "--wait: '3s-1s' is not a range of durations"),
        (["--host", "h", "--timeout", "0s"], "--timeout: '0s' is not a duration above 0"),
        (["--host", "h", "--threshold", "p99"], "--threshold: 'p99' is not a threshold"),
        (
            ["--host", "h", "--threshold", "retransmits<1"],
            "--threshold: 'retransmits<1': a swarm does not measure retransmits",
        ),
        (
            ["--host", "h", "--threshold", "p99{h:50007}<1s"],
            "--threshold: 'p99{h:50007}<1s': a swarm has one target, which needs no name",
        ),
        (
            ["--host", "h", "--rate", "5"],
            "--rate applies only to EchoBlockUser, which is not running; add EchoBlockUser",
        ),
        (
            ["--host", "h", "--block-connections", "5"],
            "--block-connections applies only to EchoBlockUser",
        ),
        (
            ["--host", "h", "--wait", "1s", "EchoBlockUser"],
            "--wait applies only to EchoUser, which is not running",
        ),
        (["--host", "tls://h:1", "--tls-ca", "/nope"], "/nope"),
        (["--host", "tls://h:1", "--tls-ca", "/nope", "EchoBlockUser"], "/nope"),
        (["--host", "h", "--payload-size", "1TB"], "1000000000000"),
        (["--host", "h", "--send-proxy", "v3"], "--send-proxy: 'v3' is not v1 or v2"),
        (
            ["--host", "h", "--send-proxy", "v1", "--send-proxy-source", "10.0.0.1/8"],
            "--send-proxy-source: '10.0.0.1/8' is neither an address nor a network",
        ),
        (
            ["--host", "h", "--send-proxy-source", "10.0.0.0/8", "EchoBlockUser"],
            "--send-proxy-source 10.0.0.0/8 has no effect without --send-proxy",
        ),
        (
            ["--host", "udp://127.0.0.1:1", "--send-proxy", "v2"],
            "--send-proxy needs a stream, and udp://127.0.0.1:1 is none",
        ),
        (["--host", "h", "--stages", "x"], "--stages: 'x' is not a stage"),
        (["--host", "h", "--rate", "fast"], "--rate: 'fast' is not a rate"),
        (
            ["--host", "h", "--block-connections", "0"],
            "'0' is not a whole number from 1",
        ),
    ],
)
def test_bad_options_are_refused_in_one_line(options: list[str], line: str) -> None:
    ended = locust(*SHORT, *options)
    assert ended.returncode == 2
    (error,) = [one for one in ended.stderr.decode().splitlines() if "error" in one.lower()]
    assert error.startswith("locust: error: ")
    assert line in error


@pytest.mark.slow
def test_an_interrupt_ends_a_swarm_with_its_figures(
    start_server: StartServer, tmp_path: Path
) -> None:
    """Requests in progress are not lost, nor counted in part."""
    server = start_server("--admin", "127.0.0.1:0")
    page = tmp_path / "report.html"
    options = ["--headless", "-u", "5", "-t", "60s", "--html", str(page)]
    with started(server.url, *options, until_logged=b"All users spawned") as swarm:
        # A swarm that ends before its first reply has failed.
        until(lambda: server.metric("received_bytes_total") > 64_000, "messages")
        os.killpg(swarm.pid, signal.SIGINT)
        _, log = swarm.communicate(timeout=DEADLINE)
    assert swarm.returncode == 0
    assert b"Traceback" not in log
    assert b"Shutting down (exit code 0)" in log
    assert page.stat().st_size > 10_000


@pytest.mark.slow
def test_an_interrupt_ends_a_master_that_waits_for_workers() -> None:
    options = ["--headless", "--master", "--expect-workers", "1"]
    port = ["--master-bind-port", str(free_port())]
    with started("127.0.0.1:9", *options, *port, until_logged=b"Waiting for workers") as master:
        os.killpg(master.pid, signal.SIGINT)
        _, log = master.communicate(timeout=DEADLINE)
    assert (master.returncode, b"Traceback" in log) == (130, False)


def test_a_swarm_without_a_test_has_not_failed() -> None:
    """The web page was opened and closed again, without a test that could have failed."""
    port = ["--web-port", str(free_port())]
    with started("127.0.0.1:9", *port, until_logged=b"Starting web interface") as swarm:
        until(lambda: accepts(int(port[1])), "the page")
        # The page is answered once locust waits for signals, which it does not yet when it listens.
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/", timeout=DEADLINE) as page:
            assert page.status == 200
        os.killpg(swarm.pid, signal.SIGINT)
        _, log = swarm.communicate(timeout=DEADLINE)
    assert (swarm.returncode, b"no message came back" in log) == (0, False), log.decode()


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--web-port"], "--web-port: cannot serve the page on 127.0.0.1:{}: Address already in"),
        (["--headless", "--master", "--master-bind-port"], "Socket bind failure: Address already"),
    ],
)
def test_a_port_in_use_is_refused_in_one_line(options: list[str], line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run([*LOAD, "swarm", "127.0.0.1:9", *options, str(port)])
    assert ended.returncode in {1, 2}
    log = ended.stderr.decode()
    (error,) = [one for one in log.splitlines() if "INFO" not in one]
    assert error.startswith(f"echo-load swarm: error: {line.format(port)}")


@pytest.mark.slow
def test_a_target_may_be_any_of_the_arguments(echo_server: EchoServerProcess) -> None:
    command = [*LOAD, "swarm", "--headless", "-u", "1", "-t", "1s"]
    assert run([*command, echo_server.url, "EchoUser"]).returncode == 0
    for arguments, error in (
        (["a:1", "b:2"], "a:1 and b:2 are both targets; give only one"),
        (["tcp://h:99999"], "'99999' is not a port"),
    ):
        ended = run([*command, *arguments])
        (line,) = ended.stderr.decode().splitlines()
        assert ended.returncode == 2
        assert line.startswith("echo-load swarm: error: ")
        assert error in line


@pytest.mark.slow
def test_thresholds_may_be_in_a_file(echo_server: EchoServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "locust.toml"
    file.write_text('[tool.locust]\nthreshold = ["p99<1h", "p50<1us"]\n')
    ended = locust(*SHORT, "--host", echo_server.url, "--config", str(file))
    assert ended.returncode == 99
    assert b"threshold p99<1h kept: " in ended.stderr
    assert b"threshold p50<1us crossed: " in ended.stderr


def test_an_unknown_environment_variable_is_refused() -> None:
    ended = run([*LOAD, "swarm", "--headless"], ECHO_SWARM_RAET="5")
    assert ended.returncode == 2
    assert ended.stderr.decode() == (
        "echo-load: error: the environment sets ECHO_SWARM_RAET, which is not an option; "
        "did you mean ECHO_SWARM_RATE?\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("users", [[], ["EchoBlockUser"]])
def test_the_command_starts_a_server_and_a_swarm(users: list[str]) -> None:
    ended = run([*LOAD, "swarm", *users, "--headless", "-u", "3", "-t", "1s", "--threshold=loss<1"])
    log = ended.stderr.decode()
    assert ended.returncode == 0, log
    assert "threshold loss<1 kept: 0" in log
    assert "MonkeyPatchWarning" not in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_the_environment_and_options_override_defaults(
    echo_server: EchoServerProcess,
) -> None:
    def log(*options: str, **settings: str) -> str:
        command = [*LOAD, "swarm", echo_server.url, "--headless", *options]
        ended = run(command, stdin=b"", **settings)
        assert ended.returncode == 0, ended.stderr.decode()
        return ended.stderr.decode()

    default = log()
    assert '{"EchoUser": 100}' in default
    assert "Run time limit set to 10 seconds" in default
    stages = log("--stages", "2/1s")
    assert '{"EchoUser": 2}' in stages
    assert "Run time limit" not in stages
    told = log(LOCUST_USERS="7", LOCUST_RUN_TIME="1s")
    assert '{"EchoUser": 7}' in told
    assert "Run time limit set to 1 seconds" in told


@pytest.mark.slow
def test_the_command_lists_its_options() -> None:
    ended = run([*LOAD, "swarm", "--help"])
    assert ended.returncode == 0
    for option in (b"--payload-size", b"--block-connections", b"--threshold", b"--tls-insecure"):
        assert option in ended.stdout
    # Locust's own help starts no server.
    ended = run([*LOAD, "swarm", "--", "--help"])
    assert ended.returncode == 0
    assert b"--headless" in ended.stdout


@pytest.mark.slow
def test_the_command_takes_a_target(echo_server: EchoServerProcess) -> None:
    arguments = ["--headless", "-u", "2", "-t", "3s", "EchoBlockUser", "--block-connections", "4"]
    ended = run([*LOAD, "swarm", echo_server.url, *arguments])
    assert ended.returncode == 0, ended.stderr.decode()
    until(lambda: echo_server.log().count("connection accepted") == 8, "all connections")
    ended = run([*LOAD, "swarm", "nonsense:x", "--headless"])
    assert ended.returncode == 2
    assert ended.stderr.decode().splitlines() == [
        "echo-load swarm: error: 'nonsense:x': 'x' is not a port between 0 and 65535"
    ]


@pytest.mark.slow
def test_a_signal_to_the_command_ends_locust_too(start_server: StartServer) -> None:
    server = start_server("--admin", "127.0.0.1:0")
    client = subprocess.Popen(
        [*LOAD, "swarm", server.url, "--headless", "-u", "2", "-t", "10m"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    # A swarm that ends before its first reply has failed.
    until(lambda: server.metric("received_bytes_total") > 64_000, "messages")
    (child,) = psutil.Process(client.pid).children()
    os.kill(client.pid, signal.SIGTERM)
    assert client.wait(DEADLINE) == 0
    assert not child.is_running()


def test_every_option_has_an_environment_variable() -> None:
    """Flags have variables, too."""
    program = (
        "import echo_load.swarm.locustfile\n"
        "from echo_load.swarm.options import INSECURE, OPTIONS\n"
        "from locust.argument_parser import get_parser\n"
        "parsed = vars(get_parser().parse_args([]))\n"
        "for name in (*(one[0] for one in OPTIONS), INSECURE[0]):\n"
        "    value = parsed[name.replace('-', '_')]\n"
        "    print(name, *value if isinstance(value, list) else [value])\n"
    )
    names = [one[0] for one in OPTIONS]
    variables = {f"ECHO_SWARM_{name.upper().replace('-', '_')}": f"of {name}" for name in names}
    result = run(
        [sys.executable, "-c", program], stdin=b"", ECHO_SWARM_TLS_INSECURE="true", **variables
    )
    assert result.stdout.decode().splitlines() == [
        *(f"{name} of {name}" for name in names),
        "tls-insecure True",
    ]
