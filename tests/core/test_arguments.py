"""Options that would have no effect are refused; what another one overrides is not."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest

from echo_core.command_line import program, settings
from echo_core.command_line.arguments import Command, refuse_unused


@click.command(cls=Command, context_settings=settings.command_settings("ECHO_TRY"))
@click.option("--count", default=1)
@click.option("--list", "listed")
@click.option("--name", multiple=True)
@click.option("--loud", is_flag=True)
@settings.config_option
@click.pass_context
def attempt(
    context: click.Context, /, count: int, listed: str | None, name: tuple[str, ...], loud: bool
) -> None:
    """Count, or take a list."""
    if listed is not None:
        refuse_unused(context, ("count",), "and --list exclude each other", because="listed")
    if not loud:
        refuse_unused(context, ("name",), "is shouted; add --loud")
    click.echo(f"{count} {listed} {len(name)} {loud}")


def outcome(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The output of the command, or the line that refused it."""
    monkeypatch.setattr(sys, "argv", ["try", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.run(attempt, "try")
    said = capsys.readouterr()
    if ended.value.code:
        assert ended.value.code == 2
        assert not said.out
        return said.err.strip()
    assert not said.err
    return said.out.strip()


COUNT_AND_LIST = "try: error: --count and --list exclude each other"


@pytest.mark.parametrize(
    ("arguments", "environment", "file", "said"),
    [
        ([], {}, "", "1 None 0 False"),
        (["--count", "2"], {}, "", "2 None 0 False"),
        (["--list", "a"], {}, "", "1 a 0 False"),
        (["--count", "2", "--list", "a"], {}, "", COUNT_AND_LIST),
        # The default, typed, is typed all the same.
        (["--count", "1", "--list", "a"], {}, "", COUNT_AND_LIST),
        # Of lower precedence: it gives way.
        (["--list", "a"], {"ECHO_TRY_COUNT": "2"}, "", "2 a 0 False"),
        (["--list", "a"], {}, "count = 2", "2 a 0 False"),
        ([], {"ECHO_TRY_LIST": "a"}, "count = 2", "2 a 0 False"),
        # Of the same, or of a higher one.
        ([], {"ECHO_TRY_LIST": "a", "ECHO_TRY_COUNT": "2"}, "", COUNT_AND_LIST),
        ([], {}, "count = 2\nlist = 'a'", COUNT_AND_LIST),
        (["--count", "2"], {"ECHO_TRY_LIST": "a"}, "", COUNT_AND_LIST),
        # Without another parameter that takes its effect: what is typed only.
        (["--name", "x"], {}, "", "try: error: --name is shouted; add --loud"),
        (["--name", "x", "--loud"], {}, "", "1 None 1 True"),
        ([], {"ECHO_TRY_NAME": "x"}, "", "1 None 1 False"),
        # Once, unless it is repeatable.
        (
            ["--count", "2", "--count=3"],
            {},
            "",
            "try: error: --count is given twice and takes one value; give it once",
        ),
        (["--name", "x", "--name", "y", "--loud", "--loud"], {}, "", "1 None 2 True"),
    ],
)
def test_options_without_effect_are_refused(
    arguments: list[str],
    environment: dict[str, str],
    file: str,
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = tmp_path / "settings.toml"
    settings.write_text(file)
    config = ["--config", str(settings)] if file else []
    assert outcome([*config, *arguments], capsys, monkeypatch) == said


def test_help_takes_precedence_over_errors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Count, or take a list." in outcome(
        ["--count", "1", "--count", "2", "--help"], capsys, monkeypatch
    )
