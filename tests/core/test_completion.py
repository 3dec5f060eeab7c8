"""Completion in real shells, with the scripts that `echo-load completion` prints."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from support.processes import DEADLINE, LOAD, run
from support.shells import with_programs


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell that finds the programs."""
    return with_programs(tmp_path / "bin", PS1="$ ", TERM="dumb")


def needs(program: str) -> str:
    """Return the path of a program, or skip the test."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def example(shell: str) -> str:
    """Return the line for a shell's start file, from the help."""
    lines = run([*LOAD, "completion", "--help"]).stdout.decode().splitlines()
    (line,) = [one.strip() for one in lines if f"echo-load completion {shell}" in one]
    return line


@contextmanager
def interactive(
    command: list[str], settings: dict[str, str], folder: Path, *first: str
) -> Iterator[pexpect.spawn[str]]:
    """A shell on a terminal, in which lines were typed."""
    shell = pexpect.spawn(
        command[0],
        command[1:],
        env=settings,
        cwd=str(folder),
        encoding="utf-8",
        timeout=DEADLINE,
        dimensions=(50, 150),
    )
    try:
        for number, line in enumerate(first):
            shell.sendline(f"{line}; echo done-$(({number} + 1000))")
            shell.expect(f"done-{number + 1000}")
        yield shell
    finally:
        shell.close(force=True)


def completed(line: str, settings: dict[str, str], **later: str) -> list[str]:
    """Return what bash would complete the last word of a line to.

    Args:
        line: the line.
        settings: the environment of the shell.
        **later: variables that are set once the shell has started.
    """
    words = line.split(" ")
    program = words[0].replace("-", "_")
    script = (
        f"{example('bash')}\n{''.join(f'export {one}={value};' for one, value in later.items())}\n"
        f"COMP_WORDS=({' '.join(map(shlex.quote, words))})\nCOMP_CWORD={len(words) - 1}\n"
        f"_{program}_completion {words[0]}\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    ended = run([needs("bash"), "--norc", "-c", script], stdin=b"", **settings)
    return ended.stdout.decode().split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("echo-load r", ["report", "run"]),
        ("echo-load lab ", ["list", "run"]),
        ("echo-load run --eng", ["--engine"]),
        ("echo-load run 127.0.0.1 : 50007 --eng", ["--engine"]),
        ("echo-load run --engine ", ["hub", "greenlets", "threads"]),
        ("echo-load run --engine t", ["threads"]),
        # bash breaks words at "=".
        ("echo-load run --engine = t", ["threads"]),
        ("echo-load run --engine =", ["hub", "greenlets", "threads"]),
        ("echo-load run --engine hub --eng", []),
        ("echo-load run --threshold p99<5ms --thresh", ["--threshold"]),
        # What is wrong before the word does not matter.
        ("echo-load run --config /nonexistent.toml --htm", ["--html"]),
        ("echo-load completion ", ["bash", "fish", "zsh"]),
        ("echo-load swarm a:1 --tls-client", ["--tls-client-cert", "--tls-client-key"]),
        ("echo-load swarm a:1 EchoB", ["EchoBlockUser"]),
        ("echo-client --datagrams ", ["lines", "input"]),
        ("echo-client --tls-c", ["--tls-ca", "--tls-cert"]),
        ("echo-server --log-format ", ["auto", "console", "json"]),
        ("echo-server --worker", ["--workers"]),
    ],
)
def test_bash_completes(line: str, expected: list[str], installed: dict[str, str]) -> None:
    assert completed(line, installed) == expected


def test_an_invalid_environment_does_not_prevent_completion(installed: dict[str, str]) -> None:
    later = {"ECHO_LOAD_NONSENSE": "1", "ECHO_LOAD_CONNECTIONS": "many"}
    assert completed("echo-load run --eng", installed, **later) == ["--engine"]


@pytest.mark.parametrize(
    "command",
    [
        *("echo-load run --html", "echo-load run -o", "echo-load run --payload-file"),
        *("echo-load idle --config", "echo-load compare", "echo-load swarm --tls-ca"),
        *("echo-server --tls-cert", "echo-client --tls-ca"),
    ],
)
def test_bash_completes_names_of_files(
    command: str, installed: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "peculiar name.pem").touch()
    bash = [needs("bash"), "--norc", "--noprofile"]
    with interactive(bash, installed, tmp_path, example("bash")) as shell:
        shell.send(f"{command} pecul\t")
        shell.expect_exact("peculiar\\ name.pem ")


def test_bash_completes_at_a_terminal(installed: dict[str, str], tmp_path: Path) -> None:
    bash = [needs("bash"), "--norc", "--noprofile"]
    with interactive(bash, installed, tmp_path, example("bash")) as shell:
        shell.send("echo-load cap\t")
        shell.expect_exact("echo-load capacity ")
        shell.send("--connections-l\t")
        shell.expect_exact("--connections-limit ")
        shell.send("--arrivals=po\t")
        shell.expect_exact("--arrivals=poisson ")


def test_zsh_completes_at_a_terminal(installed: dict[str, str], tmp_path: Path) -> None:
    zsh = [needs("zsh"), "-f", "-i"]
    (tmp_path / "peculiar.json").touch()
    first = ("autoload -Uz compinit", "compinit -u -D", example("zsh"))
    with interactive(zsh, installed, tmp_path, *first) as shell:
        shell.send("echo-load cap\t")
        shell.expect_exact("capacity")
        shell.send("--connections-l\t")
        shell.expect_exact("imit")
        shell.send("-o pecul\t")
        shell.expect_exact("iar.json")


def test_fish_completes(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "peculiar.json").touch()
    script = f"cd {tmp_path}; {example('fish')}; complete -C '%s'"
    settings = {**installed, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    for line, expected in (
        ("echo-load cap", {"capacity"}),
        ("echo-load run --eng", {"--engine"}),
        ("echo-client --datagrams ", {"lines", "input"}),
        ("echo-load run -o pecul", {"peculiar.json"}),
    ):
        ended = run([needs("fish"), "--no-config", "-c", script % line], stdin=b"", **settings)
        found = {one.partition("\t")[0] for one in ended.stdout.decode().splitlines()}
        assert found == expected, ended.stderr.decode()


def test_another_shell_is_refused() -> None:
    ended = run([*LOAD, "completion", "tcsh"])
    assert ended.returncode == 2
    assert ended.stderr.decode().startswith("echo-load completion: error: SHELL: 'tcsh' is not one")
    ended = run([*LOAD, "completion"])
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
