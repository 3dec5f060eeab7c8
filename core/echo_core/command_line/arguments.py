"""Checks that refuse command-line arguments which would have no effect."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.core import ParameterSource

# In ascending order: each overrides those before it.
_PRECEDENCE = (
    ParameterSource.DEFAULT,
    ParameterSource.DEFAULT_MAP,
    ParameterSource.ENVIRONMENT,
    ParameterSource.COMMANDLINE,
)


class Command(click.Command):
    """A command that refuses an option given twice, unless the option is repeatable.

    click itself would silently keep the last value.
    """

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
