"""Targets from the command line, the environment and configuration files."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.processes import (
    CLIENT,
    LOAD,
    EchoServerProcess,
    StartServer,
    loaded,
    run,
)

QUICK = ("-c", "2", "-n", "4", "--processes", "1")


def written(path: Path, content: str) -> str:
    """Write a configuration file, and return its path."""
    path.write_text(content)
    return str(path)


def refused(*command: str, **settings: str) -> str:
    """Run a command that must be refused with one line; return the line."""
    ended = run(command, stdin=b"", **settings)
    lines = ended.stderr.decode().splitlines()
    assert (ended.returncode, len(lines), ended.stdout) == (2, 1, b""), lines
    return lines[0]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *(([*LOAD, one], "targets") for one in ("run", "hold", "capacity", "watch")),
        *(([*LOAD, one], "targets") for one in ("stress", "idle")),
        ([*CLIENT], "target"),
    ],
    ids=["run", "hold", "capacity", "watch", "stress", "idle", "client"],
)
def test_the_command_line_overrides_the_environment_and_that_the_file(
    command: list[str], name: str, tmp_path: Path
) -> None:
    prefix = "ECHO_CLIENT" if name == "target" else "ECHO_LOAD"
    variable = {f"{prefix}_{name.upper()}": "variable:x"}
    config = ("--config", written(tmp_path / "config.toml", f'{name} = "file:x"\n'))
    assert "'argument:x'" in refused(*command, *config, "argument:x", **variable)
    assert "'variable:x'" in refused(*command, *config, **variable)
    assert "'file:x'" in refused(*command, *config)
    config = ("--config", written(tmp_path / "list.toml", f'{name} = ["list:x"]\n'))
    assert "'list:x'" in refused(*command, *config)


def test_several_targets_from_the_environment_and_from_a_file(
    start_server: StartServer, tmp_path: Path
) -> None:
    urls = [start_server().url, start_server().url]
    config = written(tmp_path / "config.toml", f"targets = {urls}\nconnections = 2\n")
    code, result = loaded("run", "-n", "4", "--processes", "1", "--config", config)
    assert (code, list(result.targets)) == (0, urls)
    ended = run([*LOAD, "run", *QUICK], ECHO_LOAD_TARGETS=" ".join(urls))
    assert ended.returncode == 0, ended.stderr.decode()
    assert all(f"{url}" in ended.stdout.decode() for url in urls)


def test_a_command_for_one_target_refuses_several(tmp_path: Path) -> None:
    line = refused(*LOAD, "idle", ECHO_LOAD_TARGETS="a:1 b:2")
    assert line == (
        "echo-load idle: error: the command takes one target, and ECHO_LOAD_TARGETS is set to 2: "
        "a:1, b:2"
    )
    config = written(tmp_path / "config.toml", 'targets = ["a:1", "b:2", "c:3"]\n')
    line = refused(*LOAD, "stress", "--config", config)
    assert "targets in the file of --config is set to 3: a:1, b:2, c:3" in line
    assert "is set to 2" in refused(*LOAD, "swarm", ECHO_LOAD_TARGETS="a:1 b:2")


def test_a_wrong_value_is_reported_by_the_name_of_where_it_was_set(tmp_path: Path) -> None:
    wrong = "'a:x': 'x' is not a port between 0 and 65535"
    assert refused(*LOAD, "run", "a:x") == f"echo-load run: error: TARGET: {wrong}"
    assert refused(*CLIENT, "a:x") == f"echo-client: error: TARGET: {wrong}"
    line = refused(*LOAD, "run", ECHO_LOAD_TARGETS="b:1 a:x")
    assert line == f"echo-load run: error: ECHO_LOAD_TARGETS: {wrong}"
    line = refused(*CLIENT, ECHO_CLIENT_TARGET="a:x")
    assert line == f"echo-client: error: ECHO_CLIENT_TARGET: {wrong}"
    config = written(tmp_path / "config.toml", 'targets = ["a:x"]\nrate = "fast"\n')
    line = refused(*LOAD, "run", "--config", config)
    assert line == f"echo-load run: error: --config: {config}: targets: {wrong}"
    # Options, too.
    line = refused(*LOAD, "run", "a", "--config", config)
    assert f"--config: {config}: rate: 'fast' is not a rate; write it as in" in line
    line = refused(*LOAD, "run", "a", "--config", config, ECHO_LOAD_RATE="slow")
    assert "error: ECHO_LOAD_RATE: 'slow' is not a rate; write it as in" in line
    assert "error: --rate: 'x' is" in refused(*LOAD, "run", "--rate", "x", ECHO_LOAD_RATE="slow")
    assert "error: ECHO_LOAD_STAGES: 'up' is" in refused(*LOAD, "run", ECHO_LOAD_STAGES="up")
    # The name that click makes of the function's parameter works as well.
    line = refused(*LOAD, "run", ECHO_LOAD_IPV4="perhaps")
    assert "error: ECHO_LOAD_IPV4: 'perhaps' is not" in line


@pytest.mark.parametrize("value", ["[]", "5", "true", '["a:1", 5]', "[[]]", '"\\u0000"'])
def test_a_file_with_something_else_than_targets_is_refused(value: str, tmp_path: Path) -> None:
    config = written(tmp_path / "config.toml", f"targets = {value}\n")
    assert "is not a valid value of targets" in refused(*LOAD, "run", "--config", config)
    assert "is not a valid value of targets" in refused(*LOAD, "idle", "--config", config)


def test_the_name_is_suggested_for_a_similar_one(tmp_path: Path) -> None:
    line = refused(*LOAD, "idle", ECHO_LOAD_TARGET="a:1")
    assert "ECHO_LOAD_TARGET, which is not an option; did you mean ECHO_LOAD_TARGETS?" in line
    config = written(tmp_path / "config.toml", 'target = "a:1"\n')
    line = refused(*LOAD, "idle", "--config", config)
    assert "'target' is not an option of this command; the options are" in line
    assert "targets" in line.partition("the options are")[2]


def test_a_missing_target_is_named_with_all_ways_to_give_it() -> None:
    assert refused(*LOAD, "idle") == (
        "echo-load idle: error: Missing argument 'TARGET'; give HOST:PORT, or set "
        "ECHO_LOAD_TARGETS or targets in the file of --config"
    )


def test_an_empty_variable_is_no_target() -> None:
    assert "Missing argument 'TARGET'" in refused(*LOAD, "idle", ECHO_LOAD_TARGETS="")


def test_a_test_of_its_own_server_says_so(echo_server: EchoServerProcess) -> None:
    said = "no target was given, so this is an echo-server of its own; HOST:PORT tests yours"
    ended = run([*LOAD, "run", *QUICK])
    assert ended.returncode == 0, ended.stderr.decode()
    assert said in ended.stderr.decode().splitlines()
    ended = run([*LOAD, "run", *QUICK, echo_server.url])
    assert ended.returncode == 0, ended.stderr.decode()
    assert said not in ended.stderr.decode()


def test_the_client_takes_its_target_from_the_environment_or_a_file(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    ended = run(CLIENT, stdin=b"hello", ECHO_CLIENT_TARGET=echo_server.url)
    assert (ended.returncode, ended.stdout) == (0, b"hello")
    config = written(tmp_path / "config.toml", f"target = '{echo_server.url}'\n")
    ended = run([*CLIENT, "--config", config], stdin=b"hello")
    assert (ended.returncode, ended.stdout) == (0, b"hello")


def test_host_and_port_override_a_target_of_lower_precedence(
    echo_server: EchoServerProcess, tmp_path: Path
) -> None:
    port = str(echo_server.port)
    dead = "127.0.0.1:9"
    arguments = [*CLIENT, "--host", "127.0.0.1", "--port", port]
    ended = run(arguments, stdin=b"hello", ECHO_CLIENT_TARGET=dead)
    assert (ended.returncode, ended.stdout) == (0, b"hello")
    config = written(tmp_path / "config.toml", f'target = "{dead}"\n')
    ended = run([*CLIENT, "--config", config], stdin=b"hello", ECHO_CLIENT_PORT=port)
    assert (ended.returncode, ended.stdout) == (0, b"hello")
    # A target on the command line overrides both, and one beside them is refused.
    ended = run([*CLIENT, echo_server.url], stdin=b"hello", ECHO_CLIENT_PORT="9")
    assert (ended.returncode, ended.stdout) == (0, b"hello")
    line = refused(*CLIENT, ECHO_CLIENT_TARGET=dead, ECHO_CLIENT_PORT="9")
    assert "--port cannot be combined with the target tcp://127.0.0.1:9" in line


@pytest.mark.slow
def test_a_swarm_takes_its_target_from_the_environment(echo_server: EchoServerProcess) -> None:
    arguments = ("swarm", "--headless", "-u", "2", "-t", "1s")
    ended = run([*LOAD, *arguments], ECHO_LOAD_TARGETS=echo_server.url)
    assert ended.returncode == 0, ended.stderr.decode()
    echo_server.wait_for_log("connection accepted")
