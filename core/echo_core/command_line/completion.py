"""Completion of command lines by the shell."""

from __future__ import annotations

from typing import Literal, get_args

import click
from click.shell_completion import (
    BashComplete,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

Shell = Literal["bash", "fish", "zsh"]

SHELLS: tuple[Shell, ...] = get_args(Shell)
_COMPLETIONS: dict[Shell, type[ShellComplete]] = {
    "bash": BashComplete,
    "fish": FishComplete,
    "zsh": ZshComplete,
}


class _Bash(BashComplete):
    """Completion for bash, where `--option=value` is three words."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one to complete, and that word."""
        words, incomplete = super().get_completion_args()
        if words and words[-1] == "=":
            words.pop()
        return words, incomplete


def register() -> None:
    """Let bash complete `--option=value`, too."""
    add_completion_class(_Bash)


def script(program: str, shell: Shell) -> str:
    """Return the script with which a shell completes the arguments of a program."""
    # The variable with which the script asks the program for completions, as click names it.
    variable = f"_{program.replace('-', '_')}_COMPLETE".upper()
    return _COMPLETIONS[shell](click.Command(program), {}, program, variable).source()
