"""Variables and keys that set options, and variables that only look like them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from echo_client.cli import echo_client
from echo_core.command_line import environment
from echo_core.command_line.settings import UnreadableConfigError
from echo_load.cli import echo_load
from echo_server.cli import echo_server
from support.processes import CLIENT, LOAD, SERVER, StartServer, echoes, run

COMMANDS = {"ECHO_SERVER": echo_server, "ECHO_CLIENT": echo_client, "ECHO_LOAD": echo_load}


def all_commands() -> Iterator[tuple[str, click.Command]]:
    for prefix, command in COMMANDS.items():
        yield prefix, command
        if isinstance(command, click.Group):
            yield from ((prefix, one) for one in command.commands.values())


OPTIONS = [
    (prefix, command, option)
    for prefix, command in all_commands()
    for option in command.params
    if isinstance(option, click.Option)
]
IN_FILES = [one for one in OPTIONS if not (one[2].is_eager or one[2].hidden)]


def name_of(part: str | click.Command | click.Option) -> str:
    return str(part if isinstance(part, str) else part.name)


def long_names(option: click.Option) -> list[str]:
    return [name.removeprefix("--") for name in option.opts if name.startswith("--")]


@pytest.mark.parametrize(("prefix", "command", "option"), OPTIONS, ids=name_of)
def test_every_option_has_a_variable_of_its_name(
    prefix: str, command: click.Command, option: click.Option, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment.name_variables(COMMANDS[prefix], prefix)
    (name,) = long_names(option)
    variable = f"{prefix}_{name.replace('-', '_').upper()}"
    monkeypatch.setenv(variable, "a value")
    environment.drop_service_links(prefix)
    environment.refuse_unknown_variables(COMMANDS[prefix], prefix)
    context = click.Context(command, auto_envvar_prefix=prefix)
    assert option.resolve_envvar_value(context) == "a value"


@pytest.mark.parametrize(("prefix", "command", "option"), IN_FILES, ids=name_of)
def test_every_option_has_a_configuration_key_of_its_name(
    prefix: str, command: click.Command, option: click.Option, tmp_path: Path
) -> None:
    (name,) = long_names(option)
    file = tmp_path / "config.toml"
    value = "true" if option.is_flag else "'no such value'"
    file.write_text(f"{name} = {value}\n")
    try:
        command.make_context(prefix, ["--config", str(file)])
    except click.ClickException:
        # What it is set to is another matter.
        pass
    except UnreadableConfigError as error:
        pytest.fail(str(error))


@pytest.mark.parametrize("variable", ["ECHO_SERVER_FAULT", "ECHO_SERVER_FAULTS"])
def test_a_variable_named_after_the_parameter_still_works(variable: str) -> None:
    result = run([*SERVER], stdin=b"", **{variable: "luck"})
    assert result.returncode == 2
    assert result.stderr.decode().startswith(f"echo-server: error: {variable}: 'luck'")


def service_links(name: str) -> dict[str, str]:
    """The variables that Kubernetes sets for a service (kubelet/envvars)."""
    return {
        f"{name}_SERVICE_HOST": "10.0.0.1",
        f"{name}_SERVICE_PORT": "50007",
        f"{name}_SERVICE_PORT_ECHO_1": "50007",
        f"{name}_PORT": "tcp://10.0.0.1:50007",
        f"{name}_PORT_50007_TCP": "tcp://10.0.0.1:50007",
        f"{name}_PORT_50007_TCP_PROTO": "tcp",
        f"{name}_PORT_50007_TCP_PORT": "50007",
        f"{name}_PORT_50007_TCP_ADDR": "10.0.0.1",
        f"{name}_PORT_7_UDP": "udp://[fd00::1]:7",
        f"{name}_PORT_7_UDP_ADDR": "fd00::1",
    }


LINKS = {
    name: value
    for prefix in COMMANDS
    for service in (prefix, f"{prefix}_ADMIN", f"{prefix}_PORT", f"{prefix}_SERVICE")
    for name, value in service_links(service).items()
}


@pytest.mark.slow
def test_service_links_are_not_settings(start_server: StartServer) -> None:
    """Neither here nor in the processes that are started: workers, generators, a server."""
    server = start_server("--port", "0", "--workers", "2", **LINKS)
    with server.connect() as connection:
        assert echoes(connection)
    sent = run([*CLIENT, f"127.0.0.1:{server.port}"], stdin=b"hello", **LINKS)
    assert (sent.returncode, sent.stdout) == (0, b"hello")
    test = run([*LOAD, "run", "-c", "2", "-n", "10", "--processes", "2"], stdin=b"", **LINKS)
    assert test.returncode == 0, test.stderr


@pytest.mark.parametrize(
    "beside",
    [{}, {"ECHO_SERVER_ADMIN_SERVICE_HOST": "10.0.0.2"}, {"ECHO_SERVER_HOST": "10.0.0.1"}],
)
def test_a_variable_that_is_not_a_service_link_is_checked(beside: dict[str, str]) -> None:
    result = run([*SERVER], stdin=b"", ECHO_SERVER_PORT="tcp://10.0.0.1:50007", **beside)
    assert result.returncode == 2
    assert b"ECHO_SERVER_PORT: 'tcp://10.0.0.1:50007' is not a whole number" in result.stderr


def test_an_option_next_to_service_links_takes_effect() -> None:
    links = {**service_links("ECHO_SERVER"), "ECHO_SERVER_PORT": "70000"}
    result = run([*SERVER], stdin=b"", **links)
    assert b"ECHO_SERVER_PORT: '70000' is not a whole number" in result.stderr
