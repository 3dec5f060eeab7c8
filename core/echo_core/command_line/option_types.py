"""Types of options and arguments, with the error messages for invalid values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from echo_core.endpoint import Endpoint, parse_host, parse_target
from echo_core.errors import InvalidValueError
from echo_core.units import (
    LONGEST_SECONDS,
    parse_count,
    parse_duration,
    parse_percentage,
    parse_rate,
    parse_size,
)


class Parsed(click.ParamType[Any]):
    """An option type that is defined by a parsing function.

    Args:
        name: the type's name in help texts, in one word.
        parse: converts text to a value, or raises `InvalidValueError`.
        only_text: refuse a number in a TOML file, where 0o660 would be the number 432.

    Attributes:
        parse: the parsing function, for text that does not come through click.
    """

    def __init__(self, name: str, parse: Callable[[str], Any], *, only_text: bool = False) -> None:
        self.name = name
        self.parse = parse
        self._only_text = only_text

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse text or a number from a TOML file; return any other value unchanged."""
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            return value
        if self._only_text and not isinstance(value, str):
            self.fail(f"{value} is a number; write it in quotes", param, ctx)
        try:
            text = str(value)
        except ValueError:
            self.fail("the number has too many digits", param, ctx)
        try:
            return self.parse(text)
        except InvalidValueError as error:
            self.fail(str(error), param, ctx)


class File(click.Path):
    """An option type for a file, whose name must not be empty.

    To click, and to pathlib, an empty name is the current directory.

    Args:
        path_type: type of the value; None for text.
    """

    def __init__(self, path_type: type[Any] | None = None) -> None:
        super().__init__(dir_okay=False, path_type=path_type)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of the file."""
        if value == "":
            self.fail("the name of the file is empty; give a path, or omit it", param, ctx)
        return super().convert(value, param, ctx)


def whole_number(name: str, minimum: int, maximum: int) -> Parsed:
    """Return an option type for whole numbers from `minimum` to `maximum`, `10k` included."""

    def parse(text: str) -> int:
        try:
            number = parse_count(text)
        except InvalidValueError:
            number = None
        if number is None or not minimum <= number <= maximum:
            raise InvalidValueError(f"{text!r} is not a whole number from {minimum} to {maximum}")
        return number

    return Parsed(name, parse)


def _duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds > LONGEST_SECONDS:
        raise InvalidValueError(f"{text!r} is longer than a week (168h)")
    return seconds


def _positive_duration(text: str) -> float:
    seconds = _duration(text)
    if not seconds:
        raise InvalidValueError(f"{text!r} is not a duration above 0; write it as in 10s or 250ms")
    return seconds


def _rate(text: str) -> float:
    rate = parse_rate(text)
    if not rate:
        raise InvalidValueError(f"{text!r} is not a rate above 0; write it as in 100 or 10k")
    return rate


def _rate_of_bytes(text: str) -> int:
    size = parse_size(text.strip().removesuffix("/s"))
    if not size:
        raise InvalidValueError(f"{text!r} is not a rate above 0; write it as in 64KiB")
    return size


DURATION = Parsed("duration", _duration)
POSITIVE_DURATION = Parsed("duration", _positive_duration)
HOST = Parsed("host", parse_host)
PORT = whole_number("port", 0, 65535)
TARGET_PORT = whole_number("port", 1, 65535)
ENDPOINT = Parsed("endpoint", Endpoint.parse)
PERCENTAGE = Parsed("percentage", parse_percentage)
RATE = Parsed("rate", _rate)
RATE_OF_BYTES = Parsed("bytes/s", _rate_of_bytes)
TARGET = Parsed("target", parse_target)
