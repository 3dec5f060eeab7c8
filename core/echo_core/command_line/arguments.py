"""Commands with grouped options and examples, which refuse arguments that would have no effect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource

from echo_core.command_line import environment
from echo_core.command_line.option_groups import Row, groups, write_rows
from echo_core.command_line.target_argument import TargetArgument

# In ascending order: each overrides those before it.
_PRECEDENCE = (
    ParameterSource.DEFAULT,
    ParameterSource.DEFAULT_MAP,
    ParameterSource.ENVIRONMENT,
    ParameterSource.COMMANDLINE,
)


@dataclass(frozen=True)
class Example:
    """A command line that the help of a command shows.

    Attributes:
        purpose: what it does.
        line: the command line, in one line of a terminal with 80 columns.
    """

    purpose: str
    line: str


class Command(click.Command):
    """A command whose help groups the options, and which refuses an option given twice.

    click itself would silently keep the last value of an option that is not repeatable.

    Args:
        *arguments: as for `click.Command`.
        examples: command lines to show at the end of the help.
        **attributes: as for `click.Command`.
    """

    def __init__(
        self, *arguments: Any, examples: Sequence[Example] = (), **attributes: Any
    ) -> None:
        super().__init__(*arguments, **attributes)
        self.examples = tuple(examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options to the help, in their groups."""
        write_rows(self.help_rows(ctx), formatter)

    def help_rows(self, ctx: click.Context) -> dict[str, list[Row]]:
        """Return the options and described arguments, by the groups in which the help has them."""
        return {
            name: [self._row(ctx, parameter) for parameter in parameters]
            for name, parameters in groups(self, ctx).items()
        }

    def _row(self, ctx: click.Context, parameter: click.Parameter) -> Row:
        names, meaning = parameter.get_help_record(ctx) or ("", "")
        is_settable = parameter in self.params and parameter.name != "version"
        if is_settable and isinstance(parameter, click.Option | TargetArgument):
            variable = environment.variable(ctx.auto_envvar_prefix or "", parameter)
            return Row(names, meaning, variable)
        return Row(names, meaning)

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples to the help, each command line in one piece."""
        if not self.examples:
            return
        with formatter.section("Examples"):
            for number, example in enumerate(self.examples):
                if number:
                    formatter.write_paragraph()
                formatter.write_text(f"{example.purpose}:")
                formatter.write(f"{'':>{formatter.current_indent + 2}}{example.line}\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse a command line.

        Raises:
            click.UsageError: the arguments are not valid, or give an option twice.
        """
        given = list(args)
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:
            self._refuse_repeated(ctx, given)
        return rest

    def _refuse_repeated(self, ctx: click.Context, args: list[str]) -> None:
        _, _, parameters = self.make_parser(ctx).parse_args(args=args)
        for parameter in parameters:
            if (
                isinstance(parameter, click.Option)
                and not (parameter.multiple or parameter.is_flag)
                and parameters.count(parameter) > 1
            ):
                is_list = "," in parameter.make_metavar(ctx)
                advice = "one list, separated by commas" if is_list else "it once"
                raise click.UsageError(
                    f"{long_flag(parameter)} is given twice and takes one value; give {advice}",
                    ctx,
                )


def long_flag(parameter: click.Parameter) -> str:
    """Return the longest spelling of an option, with its dashes."""
    return max(parameter.opts, key=len)


def refuse_unused(
    context: click.Context, names: Iterable[str], reason: str, *, because: str | None = None
) -> None:
    """Refuse options that would have no effect.

    Args:
        context: the context of the command.
        names: the parameter names of the options.
        reason: why each has no effect, and what to do instead; printed after the option's name.
        because: the parameter that makes them ineffective. An option from a source of lower
            precedence than this parameter's (the environment or the configuration file) is
            overridden silently. None if there is no such parameter: then an option is refused
            only when it was given on the command line.

    Raises:
        click.UsageError: one of the options was given.
    """
    lowest = ParameterSource.COMMANDLINE
    if because is not None:
        lowest = context.get_parameter_source(because) or lowest
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if (
            parameter.name in names
            and source in _PRECEDENCE[1:]
            and _PRECEDENCE.index(source) >= _PRECEDENCE.index(lowest)
        ):
            raise click.UsageError(f"{long_flag(parameter)} {reason}", context)


def outranks(context: click.Context, names: Iterable[str], other: str) -> bool:
    """Return whether one of these parameters has a source of higher precedence than another one.

    Args:
        context: the context of the command.
        names: names of the parameters.
        other: name of the other parameter.
    """
    sources = [context.get_parameter_source(name) for name in names]
    than = context.get_parameter_source(other)
    ranks = [_PRECEDENCE.index(source) for source in sources if source in _PRECEDENCE]
    return than in _PRECEDENCE and max(ranks, default=0) > _PRECEDENCE.index(than)
