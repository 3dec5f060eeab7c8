"""Groups of options in the help of a command, such as "TLS" or "Output"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

GENERAL = "General"

# With fewer options, one list is easier to read than groups.
_FEWEST_GROUPED = 9
# Width of the column of options; the meaning of a wider option begins on the next line.
_WIDEST = 26


@dataclass(frozen=True)
class Row:
    """An option or argument in a help text.

    Attributes:
        names: its spellings, and what value it takes.
        meaning: what it does.
        variable: the environment variable that sets it; empty if there is none.
    """

    names: str
    meaning: str
    variable: str = ""


_groups: WeakKeyDictionary[click.Parameter, str] = WeakKeyDictionary()


def heading(name: str) -> Decorator:
    """Return a decorator that puts the options below it into a group, up to the next heading.

    Args:
        name: the name of the group. Its options stand together in the help, wherever they are
            declared.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        # Decorators are applied from the bottom: only what is below has been declared.
        _put(name, _declared(function))
        return function

    return decorate


def group(name: str, *options: Decorator) -> Decorator:
    """Return one decorator for the options of a group, which the help lists in this order.

    Args:
        name: the name of the group.
        *options: decorators that declare options. Options that have a group keep it.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        before = len(_declared(function))
        for option in reversed(options):
            function = option(function)
        _put(name, _declared(function)[before:])
        return function

    return decorate


def group_of(parameter: click.Parameter) -> str | None:
    """Return the name of the group of a parameter; None if it has none."""
    return _groups.get(parameter)


def groups(command: click.Command, context: click.Context) -> dict[str, list[click.Parameter]]:
    """Return the parameters that the help of a command lists, by the names of their groups.

    Groups are in the order of their first parameters, "General" last. A command with few options
    has one group, "Options". Arguments without a group are not listed.
    """
    listed = [
        parameter
        for parameter in command.get_params(context)
        if (isinstance(parameter, click.Option) or group_of(parameter))
        and parameter.get_help_record(context) is not None
    ]
    is_short = sum(isinstance(one, click.Option) for one in listed) < _FEWEST_GROUPED
    found: dict[str, list[click.Parameter]] = {}
    for parameter in listed:
        in_list = is_short and isinstance(parameter, click.Option)
        name = "Options" if in_list else group_of(parameter) or GENERAL
        found.setdefault(name, []).append(parameter)
    if GENERAL in found:
        found[GENERAL] = found.pop(GENERAL)
    return found


def write_rows(rows: Mapping[str, Sequence[Row]], formatter: click.HelpFormatter) -> None:
    """Write the options of groups to a help text, with one column for all of them.

    Args:
        rows: the options of each group.
        formatter: takes the text.
    """
    widths = [len(row.names) for group in rows.values() for row in group]
    column = min(_WIDEST, max(widths, default=0))
    for name, group in rows.items():
        with formatter.section(name):
            # click makes the column as wide as the widest option of each list.
            formatter.write_dl(
                [(row.names.ljust(column), row.meaning) for row in group], col_max=column
            )


def _declared(function: Callable[..., Any]) -> list[click.Parameter]:
    """Return the parameters that decorators have declared so far, the last one first."""
    declared: list[click.Parameter] = getattr(function, "__click_params__", [])
    return declared


def _put(name: str, parameters: list[click.Parameter]) -> None:
    for parameter in parameters:
        _groups.setdefault(parameter, name)
