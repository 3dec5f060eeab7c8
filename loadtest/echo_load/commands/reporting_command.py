"""Commands that report their own failure in the files of `--junit` and `--markdown`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from echo_core.command_line import program, settings
from echo_core.command_line.arguments import Command
from echo_core.errors import EchoswarmError

_FILES_OPEN = "echo_load.commands.reporting_command.files_open"
# Parameters that name the subjects of a command, and those that name files which it reads.
_SUBJECTS = ("target", "targets", "results")
_INPUTS = ("payload_file", "tls_ca", "tls_cert", "tls_key")


class ReportingCommand(Command):
    """A command that writes an error found before its test to `--junit` and `--markdown`.

    A CI system publishes the files also after a failure; those of an earlier test would be taken
    for the ones of this test. Errors in the command line itself leave all files as they are.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (EchoswarmError, click.UsageError) as error:
            if not ctx.meta.get(_FILES_OPEN):
                _write_error(ctx.params, f"echo-load {ctx.info_name}", _message(error))
            raise


def note_open_files() -> None:
    """Leave it to the current command to report errors from now on: its files are open."""
    click.get_current_context().meta[_FILES_OPEN] = True


def _message(error: Exception) -> str:
    return error.format_message() if isinstance(error, click.UsageError) else str(error)


def _write_error(given: Mapping[str, Any], command: str, message: str) -> None:
    """Write an error to the files, unless one cannot be written or is read by the command."""
    try:
        with program.needs_extra("load"):
            from echo_load.errors import OutputError
            from echo_load.report.files import ReportFiles
    except program.MissingExtraError:
        # Then this is the error to report, and there is nothing to write it with.
        return
    subjects = [
        str(one)
        for name in _SUBJECTS
        if (value := given.get(name))
        for one in (value if isinstance(value, tuple) else (value,))
    ]
    results = given.get("results") or ()
    read = [*results, *(given.get(name) for name in _INPUTS), settings.config_file()]
    inputs: list[Path | str] = [one for one in read if one is not None]
    try:
        files = ReportFiles(junit=given.get("junit"), markdown=given.get("markdown"), inputs=inputs)
    except OutputError:
        return
    files.write_error(" ".join((command, *subjects)), message)
