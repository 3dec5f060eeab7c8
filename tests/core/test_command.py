from __future__ import annotations

import sys
from pathlib import Path

import pytest

from support.processes import CLIENT, LOAD, SERVER, run

COMMANDS = {"echo-server": SERVER, "echo-client": CLIENT, "echo-load": LOAD}


@pytest.mark.parametrize("name", COMMANDS)
def test_version_shows_all_relevant_versions(name: str) -> None:
    result = run([*COMMANDS[name], "--version"])
    assert result.returncode == 0
    for word in (b"echoswarm 0.", b"Python 3.", b"gevent ", b"Linux"):
        assert word in result.stdout


@pytest.mark.untraced
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_imports_nothing_heavy(name: str, option: str) -> None:
    program = (
        f"import sys; sys.argv = ['{name}', '{option}']\n"
        f"from {COMMANDS[name][2]}.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'gevent', 'structlog', 'numpy', 'rich', 'prompt_toolkit', 'asyncio', 'ssl'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    result = run([sys.executable, "-c", program])
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Usage: {name}".encode())


SERVER_MISTAKES = {
    "--port 70000": "--port: '70000' is not a whole number from 0 to 65535",
    "--port abc": "--port: 'abc' is not a whole number from 0 to 65535",
    "--port -1": "--port: '-1' is not",
    "--host=": "--host: '' is not a host name",
    "--host a..b": "--host: 'a..b' is not a host name",
    "--backlog 0": "--backlog: '0' is not a whole number from 1",
    "--drain-timeout soon": "--drain-timeout: 'soon' is not a duration; write it as in 10s",
    "--drain-timeout 169h": "--drain-timeout: '169h' is longer than a week (168h)",
    "--log-level loud": "--log-level: 'loud' is not one of",
    "--log-format xml": "--log-format: 'xml' is not one of",
    "--prot 1": "No such option '--prot'",
    "--port 1 --port 2": "--port is given twice and takes one value; give it once",
    "--access-log-sample 1%": "--access-log-sample has no effect without --access-log; add",
    "--when-full wait": "--when-full has no effect without --max-connections",
    "--fault-seed 1": "--fault-seed has no effect without --fault; add --fault",
    "--unix-mode 600": "--unix-mode applies only to unix sockets; add --listen unix:///PATH",
    "--udp-low-ports": "--udp-low-ports applies only to UDP; add --listen udp://HOST:PORT",
    **{
        f"--listen udp://127.0.0.1:0 {given}": f"{given.split()[0]} applies only to connections; "
        "add --listen tcp://HOST:PORT"
        for given in (
            "--backlog 9",
            "--max-connections 9",
            "--max-connections-per-ip 9",
            "--idle-timeout 9s",
            "--rate-limit 9k",
            "--proxy-protocol",
            "--access-log",
        )
    },
    "--handshake-timeout 9s": "--handshake-timeout applies only to TLS and PROXY headers; add",
    "extra": "unexpected extra argument (extra)",
    "--config /nonexistent.toml": "--config: /nonexistent.toml: No such file",
}
CLIENT_MISTAKES = {
    "localhost:70000": "'70000' is not a port",
    "localhost:0": "port 0 cannot be connected to",
    "http://localhost:80": "the scheme 'http' is not supported; write tcp://HOST:PORT",
    "--port 0": "--port: '0' is not a whole number from 1 to 65535",
    "--timeout 0s": "--timeout: '0s' is not a duration above 0",
    f"--timeout {'9' * 5000}h": "is not a duration",
    f"localhost:{'9' * 5000}": "is not a port",
    "-4 [::1]:9": "tcp://[::1]:9 is an IPv6 address; omit -4 and -6",
    "-6 127.0.0.1:9": "tcp://127.0.0.1:9 is an IPv4 address; omit -4 and -6",
    "-n 0": "--messages: '0' is not a whole number from 1 to 1000000",
    "-n many": "--messages: 'many' is not a whole number",
    "-n -1": "--messages: '-1' is not a whole number",
    "-n 1 -n 2": "--messages is given twice",
    "-i 1s": "--interval has no effect without -n; add -n 10",
    "--payload-size 64": "--payload-size has no effect without -n; add -n 10",
    "-n 1 -i 0": "--interval: '0' is not an interval of 1ms or more",
    "-n 1 -i soon": "--interval: 'soon' is not a duration",
    "-n 1 --payload-size 15": "--payload-size: '15' is not a size from 16 to 65507 bytes",
    "-n 1 --payload-size 64KiB": "--payload-size: '64KiB' is not a size from 16 to 65507 bytes",
    "-n 1 fd://3": "fd://",
    "--datagrams words udp://localhost:1": "--datagrams: 'words' is not one of",
    "--datagrams input localhost:1": "--datagrams applies only to udp:// targets, not to tcp://",
    "--datagrams input -n 1 udp://localhost:1": "--datagrams applies only to a pipe, and this is a "
    "ping (-n)",
    "localhost:1 --port 2": "--port cannot be combined with the target tcp://localhost:1",
}
LOAD_MISTAKES = {
    "stress -c 0": "--connections: '0' is not a whole number from 1 to 2000000",
    "stress -c many": "--connections: 'many' is not a whole number",
    "stress -d 0": "--duration: '0' is not a duration above 0",
    "stress -d 5x": "--duration: '5x' is not a duration",
    "stress --processes 0": "--processes: '0' is not",
    "stress --timeout never": "--timeout: 'never' is not a duration",
    "stress udp://localhost:1": "the threads engine does not support udp, which udp://localhost:1 "
    "needs",
    "stress -o /nonexistent/result.json": "cannot write /nonexistent/result.json: No such file",
    "run --rate 0": "--rate: '0' is not a rate above 0",
    "run --rate fast": "--rate: 'fast' is not a rate",
    "run --rate": "--rate needs a number, as in --rate 10k, or --stages",
    "run --rate 200M": "a rate of 200,000,000 messages per second is above 100,000,000",
    "run --stages 5/1s,100": "--stages: '100' is not a stage; write it as in 100/30s",
    "run --stages 5/1s -d 10s": "--duration 10s and --stages both give the duration",
    "run --loop": "--loop repeats --stages, but there are none",
    "run --arrivals poisson": "has no effect without --rate",
    "run --payload-size 0": "--payload-size: '0' is not a range of sizes of 1 byte or more",
    "run --payload-size 9-5": "--payload-size: '9-5' is not a range of sizes",
    "run --payload-file /nonexistent": "--payload-file /nonexistent: No such file",
    "run --message=": "is empty; it needs",
    "run --message a --payload-file b": "--message and --payload-file both give what is sent",
    "run --source-ip here": "--source-ip: 'here' is neither an address nor a network",
    "run -4 -6": "-4 and -6 cannot be combined",
    "run localhost:0": "'localhost:0': port 0 cannot be connected to",
    "run --engine threads udp://localhost:1": "use --engine hub",
    "run --payload-size 64KiB udp://localhost:1": "messages of 65536 bytes are too large: a "
    "datagram can hold at most 65507",
    "run --tls-insecure localhost:1": "TLS options are given, but no target is tls://HOST:PORT",
    "strss": "No such command 'strss'",
}
MISTAKES = [
    *(("echo-server", given, said) for given, said in SERVER_MISTAKES.items()),
    *(("echo-client", given, said) for given, said in CLIENT_MISTAKES.items()),
    *(("echo-load", given, said) for given, said in LOAD_MISTAKES.items()),
]


@pytest.mark.parametrize(("name", "given", "said"), MISTAKES)
def test_a_usage_error_is_one_line_and_exit_2(name: str, given: str, said: str) -> None:
    result = run([*COMMANDS[name], *given.split()])
    assert result.returncode == 2
    assert result.stdout == b""
    lines = result.stderr.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(name)
    assert said in lines[0]


@pytest.mark.parametrize("arguments", [[], ["lab"]], ids=["echo-load", "echo-load lab"])
def test_a_group_without_a_command_prints_its_help_as_an_error(arguments: list[str]) -> None:
    ended = run([*LOAD, *arguments])
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert ended.stderr == run([*LOAD, *arguments, "--help"]).stdout


def test_flags_override_the_environment_the_file_and_the_default(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('port = 70001\nhost = "192.0.2.1"\n')
    arguments = [*SERVER, "--config", str(file)]
    assert b"'70001' is not" in run(arguments).stderr
    assert b"'70002' is not" in run(arguments, ECHO_SERVER_PORT="70002").stderr
    flags = [*arguments, "--port", "70003"]
    assert b"'70003' is not" in run(flags, ECHO_SERVER_PORT="70002").stderr
    result = run([*arguments, "--port", "0"])
    assert (result.returncode, b"192.0.2.1" in result.stderr) == (3, True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("port = ", "is not valid TOML"),
        ("\xff", "is not valid TOML"),
        ("prot = 1", "'prot' is not an option of this command; the options are"),
        ("port = [1, 2]", "port = [1, 2] is not a valid value of --port"),
        ("port = true", "port = True is not a valid value"),
        ("[server]\nport = 1", "'server' is not an option of this command"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(content, encoding="latin-1")
    result = run([*SERVER, "--config", str(file)])
    assert result.returncode == 2
    assert said in result.stderr.decode()
    assert len(result.stderr.splitlines()) == 1


def test_several_values_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "load.toml"
    file.write_text("connections = [3, 0]\n")
    result = run([*LOAD, "stress", "--config", str(file)])
    assert b"load.toml: connections: '0' is not" in result.stderr
    result = run([*LOAD, "stress"], ECHO_LOAD_CONNECTIONS="3 none")
    assert b"ECHO_LOAD_CONNECTIONS: 'none' is not" in result.stderr


def test_a_missing_extra_is_named() -> None:
    program = (
        "import sys\n"
        "sys.modules['numpy'] = None\n"
        "sys.argv = ['echo-load', 'stress']\n"
        "from echo_load.__main__ import main\n"
        "main()\n"
    )
    result = run([sys.executable, "-c", program])
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [
        "echo-load: error: the package 'numpy' is missing; "
        "install it with pip install '.[load]' in a checkout of echoswarm"
    ]


UNKNOWN_VARIABLES = [
    ("echo-server", "ECHO_SERVER_PROT", "did you mean ECHO_SERVER_PORT?"),
    ("echo-server", "ECHO_SERVER_PORT_", "did you mean ECHO_SERVER_PORT?"),
    ("echo-server", "ECHO_SERVER_ZZZ", "--help lists the options"),
    ("echo-client", "ECHO_CLIENT_TIME_OUT", "did you mean ECHO_CLIENT_TIMEOUT?"),
    ("echo-load", "ECHO_LOAD_CONNECTION", "did you mean ECHO_LOAD_CONNECTIONS?"),
]


@pytest.mark.parametrize(("name", "variable", "advice"), UNKNOWN_VARIABLES)
def test_an_unknown_variable_is_one_line_and_exit_2(name: str, variable: str, advice: str) -> None:
    arguments = ["schema"] if name == "echo-load" else []
    result = run([*COMMANDS[name], *arguments], stdin=b"", **{variable: "1"})
    assert (result.returncode, result.stdout) == (2, b"")
    assert result.stderr.decode() == (
        f"{name}: error: the environment sets {variable}, which is not an option; {advice}\n"
    )
    assert run([*COMMANDS[name], "--help"], stdin=b"", **{variable: "1"}).returncode == 0


def test_variables_of_other_commands_are_ignored() -> None:
    others = {
        "ECHO_LOAD_CYCLE": "1s",
        "ECHO_SWARM_WAIT": "1s",
        "ECHO_SERVER_ANYTHING": "1",
        "LOCUST_USERS": "1",
    }
    assert run([*LOAD, "schema"], stdin=b"", **others).returncode == 0


def test_the_hidden_variable_of_a_worker_is_known() -> None:
    result = run([*SERVER], ECHO_SERVER_WORKER="none")
    assert b"error: ECHO_SERVER_WORKER: " in result.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["echo-server", "--port", "0", "--admin", "127.0.0.1:0"], 3),
        (["echo-load", "run", "-c", "1", "-n", "1"], 3),
        (["echo-load", "run", "-c", "1", "-n", "1", "127.0.0.1:9"], 1),
    ],
    ids=["server", "with a server of its own", "with a target"],
)
def test_too_few_descriptors_are_one_line(command: list[str], code: int) -> None:
    program = ["sh", "-c", 'ulimit -n 10; exec "$@"', "sh"]
    result = run([*program, *COMMANDS[command[0]], *command[1:]])
    line = result.stderr.decode().splitlines()[-1]
    assert result.returncode == code
    assert line.startswith(command[0])
    assert "Too many open files" in line
    assert "Traceback" not in result.stderr.decode()
