"""Bad input is refused before a test, in one line that says what would be right."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from echo_load.__main__ import main
from support.processes import LOAD, run

TARGET = "127.0.0.1:9"
UDP = "udp://127.0.0.1:9"
TLS = "tls://127.0.0.1:9"


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Run a command that must be refused; return its exit code and its only line."""
    before, sys.argv = sys.argv, ["echo-load", *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == 1, lines
    assert not printed.out
    assert lines[0].startswith("echo-load")
    assert ": error: " in lines[0]
    return ended.value.code, lines[0]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Stages.
        (["--stages", ""], "--stages: '' is not a stage; write it as in 100/30s or 0-100/10s"),
        (["--stages", "10"], "--stages: '10' is not a stage; write it as"),
        (["--stages", "10/"], "--stages: '10/' is not a stage"),
        (["--stages", "/10s"], "--stages: '/10s' is not a stage"),
        (["--stages", "10/1s,"], "--stages: '' is not a stage"),
        (["--stages", "5-/1s"], "--stages: '5-/1s' is not a stage"),
        (["--stages=-5/1s"], "--stages: '-5/1s' is not a stage"),
        (["--stages", "1-2-3/1s"], "--stages: '1-2-3/1s' is not a stage"),
        (["--stages", "10/1s/2s"], "--stages: '10/1s/2s' is not a stage"),
        (["--stages", "x/1s"], "--stages: stage 'x/1s': 'x' is not a count; write it as in 100"),
        (["--stages", "1.5/1s"], "--stages: stage '1.5/1s': '1.5' is not a whole number"),
        (["--stages", "1/x"], "--stages: stage '1/x': 'x' is not a duration; write it as in 10s"),
        (
            ["--stages", "10/0s"],
            "--stages: stage '10/0s' has a duration of 0; write it as in 100/30s",
        ),
        (["--stages", "0/1s,0/2s"], "--stages: '0/1s,0/2s': all stages are 0"),
        (["--stages", "x/1s", "--rate"], "--stages: stage 'x/1s': 'x' is not a rate; write it as"),
        (["--stages", "3M/1s"], "the stages have up to 3000000 connections; at most 2000000"),
        (["--stages", "1/1s", "-d", "5s"], "--duration 5s and --stages both give the duration"),
        (["--loop"], "--loop repeats --stages, but there are none"),
        (
            ["-c", "7", "--stages", "5/1s"],
            "--connections and --stages both give the number of connections; omit one",
        ),
        (
            ["--stages", "5/1s", "--stages", "7/1s"],
            "--stages is given twice and takes one value; give one list, separated by commas",
        ),
        (
            ["--rate", "5", "--stages", "7/1s"],
            "--rate 5 has no effect: the stages are rates, and there is no warm-up",
        ),
        # Rates.
        (["--rate", "x"], "--rate: 'x' is not a rate; write it as in 100, 10k, 100MB/s or"),
        (["--rate", "0"], "--rate: '0' is not a rate above 0; write it as in 10k or 100MB/s"),
        (["--rate=-5"], "--rate: '-5' is not a rate; write it as in 100, 10k, 100MB/s or"),
        (["--rate", "-5"], "--rate: '-5' is not a rate; write it as in 100, 10k, 100MB/s or"),
        (["-r-1"], "--rate: '-1' is not a rate"),
        (["--rate", "1e3"], "--rate: '1e3' is not a rate"),
        (["--rate", "nan"], "--rate: 'nan' is not a rate"),
        (["--rate", "10/m"], "--rate: '10/m' is not a rate"),
        (["--rate"], "--rate needs a number, as in --rate 10k, or --stages"),
        (["--rate", "200M"], "is above"),
        (["--rate", "--stages", "0-200M/1s"], "is above"),
        (["--arrivals", "poisson"], "--arrivals poisson has no effect without"),
        (["--arrivals", "now"], "--arrivals: 'now' is not one of 'constant', 'poisson'"),
        (["--connect-rate", "0"], "--connect-rate: '0' is not a rate above 0; write it as"),
        (["--connect-rate", "fast"], "--connect-rate: 'fast' is not a rate; write it as"),
        # Verdicts.
        (["--threshold", "p99"], "--threshold: 'p99' is not a threshold; write it as in p99<5ms"),
        (["--threshold", "p99<5"], "--threshold: 'p99<5': '5' has no unit; write it as in 5ms"),
        (
            ["--threshold", "p50<1ms", "--threshold", "x<1ms"],
            "--threshold: 'x' is not a threshold metric",
        ),
        (["--abort-on", "p99"], "--abort-on: 'p99' is not a threshold; write it as in p99<5ms"),
        (["--abort-on", "messages<5"], "--abort-on: 'messages<5' is only known at the end"),
        (["--repeat", "0"], "--repeat: '0' is not a whole number from 1 to 1000"),
        (["--repeat", "often"], "--repeat: 'often' is not a whole number from 1 to 1000"),
        (["--prometheus", "nowhere"], "--prometheus: "),
        (["--prometheus", "127.0.0.1:99999"], "--prometheus: "),
        (
            [UDP, "--threshold", "retransmits<1"],
            "'retransmits<1' is only measured over tcp and tls, but no target is tcp:// or",
        ),
        ([TARGET, "--threshold", "jitter<1ms"], "'jitter<1ms' is only measured over udp, but no"),
        ([UDP, "--threshold", "loss_burst<1ms"], "'loss_burst<1ms': '1ms' is not a count"),
        ([UDP, "--threshold", "jitter<3"], "'jitter<3': '3' has no unit"),
        ([UDP, "--abort-on", "kernel.p99>1s"], "'kernel.p99>1s' is only measured over tcp"),
        ([TARGET, "--threshold", "handshake.p99<1s"], "over tls, but no target is tls://"),
        ([TARGET, "--tls-resume"], "TLS options are given, but no target is tls://HOST:PORT"),
        (
            ["tls://127.0.0.1:9", "--tls-resume", "--engine", "threads"],
            "the threads engine does not support --tls-resume; use --engine hub",
        ),
        (["--reconcile", "http://127.0.0.1:9"], "needs a target"),
        # Numbers.
        (["-c", "0"], "--connections: '0' is not a whole number from 1 to 2000000"),
        (["-c", "x"], "--connections: 'x' is not a whole number from 1 to 2000000"),
        (["-c", "1.5"], "--connections: '1.5' is not a whole number from 1 to 2000000"),
        (["-c", "-5"], "--connections: '-5' is not a whole number from 1 to 2000000"),
        (["-n", "0"], "--messages: '0' is not a whole number from 1 to 1000000000000000"),
        (["-n"], "'-n' requires an argument"),
        (["--pipeline", "0"], "--pipeline: '0' is not a whole number from 1 to 100000"),
        (["--pipeline", "1M"], "--pipeline: '1M' is not a whole number from 1 to 100000"),
        (["--churn", "0"], "--churn: '0' is not a whole number from 1"),
        (["--processes", "0"], "--processes: '0' is not a whole number from 1 to 1024"),
        (["--processes", "2k"], "--processes: '2k' is not a whole number from 1 to 1024"),
        # Durations.
        (["-d", "0"], "--duration: '0' is not a duration above 0; write it as in 10s or 250ms"),
        (["-d", "5x"], "--duration: '5x' is not a duration; write it as in 10s, 1m30s, 250ms"),
        (["-d", "200h"], "--duration: '200h' is longer than a week (168h)"),
        (["--warmup", "-1s"], "--warmup: '-1s' is not a duration; write it as in 10s"),
        (
            ["--timeout", "0"],
            "--timeout: '0' is not a duration above 0; write it as in 10s or 250ms",
        ),
        (["--connect-timeout", "soon"], "--connect-timeout: 'soon' is not a duration"),
        # Payloads.
        (["--payload-size", "0"], "--payload-size: '0' is not a range of sizes of 1 byte or more"),
        (
            ["--payload-size", "9-5"],
            "--payload-size: '9-5' is not a range of sizes of 1 byte or more",
        ),
        (["--payload-size=-5"], "--payload-size: '-5' is not a size; write it as in 64, 16KiB"),
        (["--payload-size", "1-2-3"], "--payload-size: '1-2-3' is not a size; write it as in"),
        (["--payload-size", "5x"], "--payload-size: '5x' is not a size; write it as in 512"),
        (["--payload-size", "1GiB"], "--payload-size 1073741824 is not a size"),
        (
            [UDP, "--payload-size", "65508"],
            "messages of 65508 bytes are too large: a datagram can hold at most 65507",
        ),
        (["--message", ""], "--message is empty; it needs at least one byte"),
        (
            ["--message", "a", "--payload-file", "/etc/hostname"],
            "--message and --payload-file both",
        ),
        (
            ["--message", "a", "--payload-size", "4k"],
            "--payload-size and --message both give the size of messages; give one",
        ),
        (
            ["--payload-file", "/etc/hostname", "--payload-size", "4k"],
            "--payload-size and --payload-file both give the size of messages; give one",
        ),
        (["--payload-file", "/nowhere"], "--payload-file /nowhere: No such file or directory"),
        (["--payload-file", "/dev/null"], "--payload-file /dev/null is empty or too large"),
        (["--payload-file", "/"], "--payload-file: File '/' is a directory"),
        # Targets, sources and transports.
        (["nosuch://x"], "the scheme 'nosuch' is not supported; write tcp://HOST:PORT"),
        (["127.0.0.1:99999"], "'99999' is not a port between 0 and 65535"),
        (["127.0.0.1:0"], "'127.0.0.1:0': port 0 cannot be connected to; write HOST:PORT"),
        (["host:1:2"], "'host:1:2' is not HOST:PORT"),
        ([""], "'' has no host; write HOST:PORT"),
        (["*:9"], "'*:9': * is only for listening; write HOST:PORT"),
        (["fd://3"], "'fd://3': fd:// is only for listening"),
        (["unix://"], "unix:// has no path; write unix:///run/echo.sock"),
        ([TARGET, "tls://"], "'tls://' has no host"),
        (["--source-ip", "x"], "--source-ip: 'x' is neither an address nor a network"),
        (["--source-ip", ""], "--source-ip: '' is neither an address nor a network"),
        (["--source-ip", "127.0.0.2,"], "--source-ip: '' is neither an address nor a network"),
        (["--source-ip", "127.0.0.1/33"], "write it as in 127.0.1.1 or 127.0.1.0/24"),
        (["--source-ip", "127.0.1.5/24"], "127.0.1.5/24 has host bits set"),
        (["--source-ip", "192.0.2.1"], "--source-ip: 192.0.2.1 is not an address of this machine"),
        ([TARGET, "--source-ip", "::1"], "--source-ip: ::1 cannot reach tcp://127.0.0.1:9"),
        (["-4", "-6"], "-4 and -6 cannot be combined; give one of them"),
        (["-4", "[::1]:9"], "-4: tcp://[::1]:9 is an IPv6 address; omit it, or give an IPv4"),
        (["-6", TARGET], "-6: tcp://127.0.0.1:9 is an IPv4 address; omit it, or give"),
        (["unix:///a", "-6"], "-4/-6 applies only to IP targets, not to unix:///a"),
        (
            ["unix:///a", "--source-ip", "127.0.0.1"],
            "--source-ip applies only to IP targets, not to",
        ),
        (["--engine", "rust"], "--engine: 'rust' is not one of 'hub', 'greenlets', 'threads'"),
        (
            [UDP, "--engine", "threads"],
            "the threads engine does not support udp, which udp://127.0.0.1",
        ),
        ([TARGET, "--tls-insecure"], "TLS options are given, but no target is tls://HOST:PORT"),
        ([TLS, "--tls-ca", "/nowhere"], "--tls-ca: /nowhere: No such file or directory"),
        ([TLS, "--tls-key", "/nowhere"], "--tls-key: /nowhere needs --tls-cert FILE"),
        # What connections are opened with.
        (["--send-proxy", "v3"], "--send-proxy: 'v3' is not one of 'v1', 'v2'"),
        ([UDP, "--send-proxy", "v1"], "--send-proxy needs a stream, and udp://127.0.0.1:9 is none"),
        (
            ["--send-proxy-source", "::1"],
            "--send-proxy-source ::1 has no effect without --send-pro",
        ),
        (
            ["--send-proxy", "v2", "--send-proxy-source", "here"],
            "--send-proxy-source: 'here' is neither an address nor a network",
        ),
        (["--dscp", "AF51"], "--dscp: 'AF51' is not a DSCP; write a number from 0 to 63, EF,"),
        (["--keepalive", "500ms"], "--keepalive: '500ms' is not in whole seconds, from 1s"),
        ([UDP, "--no-nodelay"], "--no-nodelay needs TCP, which udp://127.0.0.1:9 is not"),
        (["--buffer-size", "2GiB"], "--buffer-size: '2GiB' is not a size from 1 B to 1.0 GiB"),
        # Everything else.
        (["-o", "/nowhere/result"], "cannot write /nowhere/result: No such file or directory"),
        (["--config", "/nowhere"], "--config: /nowhere: No such file or directory"),
        (["--nosuch"], "No such option '--nosuch'"),
        ([TARGET, "--reconcile", "ftp://x"], "--reconcile: 'ftp://x' is not the http://HOST:PORT"),
        ([TARGET, "--reconcile", ""], "--reconcile: '' is not the http://HOST:PORT"),
        ([TARGET, "--reconcile", "http://"], "--reconcile: 'http://' is not the http://HOST:PORT"),
        ([TARGET, "--reconcile", "a b:9"], "--reconcile: 'a b:9' is not the http://HOST:PORT"),
        ([TARGET, "--reconcile", "h:port"], "--reconcile: 'h:port' is not the http://HOST:PORT"),
    ],
)
def test_invalid_options_of_run_are_refused(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = refusal(["run", *arguments], capsys)
    assert expected in line
    assert code == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hold", "-c", "0"], "--connections: '0' is not a whole number from 1 to 2000000"),
        (["hold", "--cycle", "0"], "--cycle: '0' is not a duration above 0; write it as in 10s"),
        (["hold", "-d", "x"], "--duration: 'x' is not a duration; write it as in 10s"),
        (["hold", "--payload-size", "0"], "--payload-size: '0' is not a range of sizes"),
        (["hold", "--rate", "5"], "No such option '--rate'"),
        (["stress", "-c", "0"], "--connections: '0' is not a whole number from 1 to 2000000"),
        (["stress", "-d", "0s"], "--duration: '0s' is not a duration above 0; write it as in 10s"),
        (["stress", UDP], "the threads engine does not support udp, which udp://127.0.0.1:9 needs"),
        (["stress", "a:1", "b:2"], "unexpected extra argument"),
        (["schema", "x"], "unexpected extra argument"),
        (["nosuch"], "No such command 'nosuch'"),
    ],
)
def test_invalid_arguments_of_other_commands_are_refused(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = refusal(arguments, capsys)
    assert expected in line
    assert code == 2


def test_an_invalid_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "load.toml"
    for content, expected in (
        ("connections", "is not valid TOML"),
        (
            "conections = 5",
            "'conections' is not an option of this command; the options are abort-on, arrivals, "
            "buffer-size, churn",
        ),
        ("loop = 1", "loop = 1 is not a valid value of --loop"),
        ("connections = 0", "load.toml: connections: '0' is not a whole number from 1 to 2000000"),
    ):
        file.write_text(content)
        code, line = refusal(["run", "--config", str(file)], capsys)
        assert expected in line
        assert code == 2


@pytest.mark.parametrize(
    ("limit", "arguments", "expected"),
    [
        (
            "500",
            ["-c", "100k", "--processes", "1"],
            "100000 connections in 1 process: each may open 500 descriptors (ulimit -n); raise "
            "that limit, or use --processes 230",
        ),
        (
            "70000",
            ["-c", "69000", TARGET],
            "69000 connections to tcp://127.0.0.1:9 need as many local ports, but 1 source "
            "address has ",
        ),
        (
            "500",
            ["--stages", "0-200k/1s", "--source-ip", "127.0.0.2,127.0.0.3", TARGET],
            "200000 connections to tcp://127.0.0.1:9 need as many local ports, but 2 source "
            "addresses have ",
        ),
    ],
)
def test_a_lack_of_descriptors_or_ports_is_detected_before_a_test(
    limit: str, arguments: list[str], expected: str
) -> None:
    program = ["sh", "-c", f'ulimit -n {limit} 2>/dev/null; exec "$@"', "sh"]
    result = run([*program, *LOAD, "run", *arguments])
    (line,) = result.stderr.decode().splitlines()
    assert expected in line
    assert result.returncode == 2
    if "ports" in line:
        assert "(net.ipv4.ip_local_port_range is " in line
        assert "add source addresses, as in --source-ip 127.0.1.0/24" in line


def test_environment_variables_are_checked_like_options() -> None:
    result = run([*LOAD, "run"], ECHO_LOAD_STAGES="10/x")
    (line,) = result.stderr.decode().splitlines()
    assert "ECHO_LOAD_STAGES: stage '10/x': 'x' is not a duration" in line
    assert result.returncode == 2
