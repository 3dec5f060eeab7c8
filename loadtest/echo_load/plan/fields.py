"""Fields of plans: conversion of convenient values to exact ones, and errors that name the field.

A plan is a frozen dataclass whose `__init__` states the types that a caller may give. With the
decorator `by_name` it converts each value to the type of its field: `"10s"` to 10.0, one text to a
tuple.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar, cast

from echo_core.errors import InvalidValueError
from echo_core.units import (
    parse_count,
    parse_duration,
    parse_rate,
    parse_size,
    parse_size_range,
)
from echo_load.plan.bounds import LOWEST_RATE, SHORTEST_SECONDS

# Seconds, or a text such as 10s or 1m30s.
Duration = float | str | timedelta
# A whole number, or a text such as 10k.
Count = int | str
# A number per second, or a text such as 10k.
Rate = float | str
# Bytes, or a text such as 64KiB.
Size = int | str
# One size, a range such as 64-16KiB, or the smallest and the largest size.
Sizes = Size | tuple[Size, Size]
# One text, or several.
Texts = str | Sequence[str]

# Returns the exact value of the field with this name, or raises InvalidValueError.
Converter = Callable[[str, object], object]

_Init = TypeVar("_Init", bound=Callable[..., None])
# More than any field allows; the digits of much larger numbers cannot be printed.
_LARGEST = 10**18
_SIZES = "bytes, a text such as 64KiB or 64-16KiB, or two sizes"


def by_name(converters: Mapping[str, Converter]) -> Callable[[_Init], _Init]:
    """Return a decorator for the `__init__` of a dataclass, which replaces its body.

    It takes the fields by name, converts them, sets them, and calls `__post_init__`.

    Args:
        converters: the converter of each field; a field without one takes any value.
    """

    def decorate(init: _Init) -> _Init:
        @wraps(init)
        def set_fields(self: Any, *unnamed: object, **given: object) -> None:
            _set_fields(self, unnamed, given, converters)
            self.__post_init__()

        return cast("_Init", set_fields)

    return decorate


def _set_fields(
    instance: Any,
    unnamed: Sequence[object],
    given: Mapping[str, object],
    converters: Mapping[str, Converter],
) -> None:
    kind = type(instance).__name__
    fields = dataclasses.fields(instance)
    names = [field.name for field in fields]
    if unnamed:
        raise InvalidValueError(f"{kind} takes its fields by name, as in {kind}({names[0]}=...)")
    for name in given:
        if name not in names:
            raise InvalidValueError(_unknown(kind, name, names))
    for field in fields:
        value = given.get(field.name, field.default)
        if value is dataclasses.MISSING:
            raise InvalidValueError(f"{kind} needs `{field.name}`")
        if field.name in given and field.name in converters:
            value = converters[field.name](field.name, value)
        # The dataclass is frozen.
        object.__setattr__(instance, field.name, value)


def _unknown(kind: str, name: str, names: Sequence[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, names, n=1)
    hint = f"did you mean `{close[0]}`?" if close else f"its fields are {', '.join(names)}"
    return f"{kind} has no field `{name}`; {hint}"


def written(instance: Any) -> str:
    """Return a dataclass as text, as Python would write it, without fields that have defaults."""
    parts = [
        f"{field.name}={value!r}"
        for field in dataclasses.fields(instance)
        if (value := getattr(instance, field.name)) != field.default
    ]
    return f"{type(instance).__name__}({', '.join(parts)})"


def wrong(name: str, value: object, wanted: str) -> InvalidValueError:
    """Return the error for a value of a wrong type.

    Args:
        name: name of the field.
        value: the value.
        wanted: what to give instead, as the object of a sentence.
    """
    what = "None" if value is None else f"of type {type(value).__name__}"
    return InvalidValueError(f"`{name}` cannot be {what}; give {wanted}")


def parsed(name: str, text: str, parse: Callable[[str], Any]) -> Any:
    """Parse text; name the field if that fails.

    Raises:
        InvalidValueError: the text is invalid.
    """
    try:
        return parse(text)
    except InvalidValueError as error:
        raise InvalidValueError(f"`{name}`: {error}") from error


def optional(convert: Converter) -> Converter:
    """Return a converter that also accepts None."""
    return lambda name, value: None if value is None else convert(name, value)


def positive(convert: Callable[[str, object], float]) -> Callable[[str, object], float]:
    """Return a converter that accepts only numbers above 0, and finite ones."""

    def converted(name: str, value: object) -> float:
        number = convert(name, value)
        if not 0 < number < math.inf:
            raise InvalidValueError(f"`{name}` {number} is not above 0 and finite")
        return number

    return converted


def positive_seconds(name: str, value: object) -> float:
    """Convert a duration that may not be 0 to seconds."""
    duration = positive(seconds)(name, value)
    refuse_too_short(name, duration)
    return duration


def positive_rate(name: str, value: object) -> float:
    """Convert a rate that may not be 0 to a number per second."""
    per_second = positive(rate)(name, value)
    refuse_too_low(name, per_second)
    return per_second


def refuse_too_short(name: str, duration: float) -> None:
    """Check that a duration in seconds, unless it is 0, is long enough to be measured.

    Raises:
        InvalidValueError: it is not.
    """
    if 0 < duration < SHORTEST_SECONDS:
        raise InvalidValueError(f"`{name}`: {duration:g} seconds are shorter than 1us")


def refuse_too_low(name: str, per_second: float) -> None:
    """Check that a rate, unless it is 0, is high enough for something to be due.

    Raises:
        InvalidValueError: it is not.
    """
    if 0 < per_second < LOWEST_RATE:
        raise InvalidValueError(f"`{name}`: {per_second:g} per second is below 0.000001")


def seconds(name: str, value: object) -> float:
    """Convert a duration to seconds."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return _real(name, value, parse_duration, "seconds, or a text such as 10s or 1m30s")


def rate(name: str, value: object) -> float:
    """Convert a rate to a number per second."""
    return _real(name, value, parse_rate, "a number per second, or a text such as 10k")


def share(parse: Callable[[str], float]) -> Converter:
    """Return a converter for shares.

    Args:
        parse: converts a percentage such as 5% to a share.
    """
    return lambda name, value: _real(name, value, parse, "a number, or a text such as 5%")


def _real(name: str, value: object, parse: Callable[[str], float], wanted: str) -> float:
    if isinstance(value, str):
        return float(parsed(name, value, parse))
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong(name, value, wanted)
    try:
        return float(value)
    except OverflowError:
        return math.inf


def whole(name: str, value: object) -> int:
    """Convert a whole number."""
    if isinstance(value, str):
        return int(parsed(name, value, parse_count))
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong(name, value, "a whole number, or a text such as 10k")
    number: Any = value
    if not -_LARGEST < number < _LARGEST:
        # Also if it is not a number.
        raise InvalidValueError(f"`{name}` is not a whole number below {_LARGEST:.0e}")
    if number % 1:
        raise InvalidValueError(f"`{name}` {float(number)} is not a whole number")
    return int(number)


def size_range(name: str, value: object) -> tuple[int, int]:
    """Convert one size, a range or a pair of sizes to the smallest and the largest one in bytes."""
    if isinstance(value, str):
        smallest, largest = parsed(name, value, parse_size_range)
        return int(smallest), int(largest)
    if isinstance(value, tuple | list):
        if len(value) != 2:
            raise InvalidValueError(
                f"`{name}` has {len(value)} sizes; give one, or the smallest and the largest"
            )
        return size(name, value[0], _SIZES), size(name, value[1], _SIZES)
    only = size(name, value, _SIZES)
    return only, only


def size(name: str, value: object, wanted: str = "bytes, or a text such as 64KiB") -> int:
    """Convert a size to bytes.

    Args:
        name: name of the field.
        value: the size.
        wanted: what an error says to give instead.
    """
    if isinstance(value, str):
        return int(parsed(name, value, parse_size))
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise wrong(name, value, wanted)
    return whole(name, value)


def text(name: str, value: object) -> str:
    """Check that a value is text."""
    if not isinstance(value, str):
        raise wrong(name, value, "text")
    return value


def texts(name: str, value: object) -> tuple[str, ...]:
    """Convert one text, or a sequence of texts, to a tuple."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray | memoryview):
        raise wrong(name, value, "a text or a list of texts")
    for one in value:
        if not isinstance(one, str):
            raise InvalidValueError(
                f"`{name}` has an item of type {type(one).__name__}; give texts only"
            )
    return tuple(value)


def checked_texts(parse: Callable[[str], object]) -> Converter:
    """Return a converter for texts, each of which a function has to accept.

    Args:
        parse: raises InvalidValueError if a text is invalid.
    """

    def convert(name: str, value: object) -> tuple[str, ...]:
        found = texts(name, value)
        for one in found:
            parsed(name, one, parse)
        return found

    return convert


def listed_texts(name: str, value: object) -> tuple[str, ...]:
    """Convert texts, each of which may be several, separated by commas."""
    return tuple(part.strip() for one in texts(name, value) for part in one.split(","))


def path(name: str, value: object) -> str:
    """Convert the path of a file to text."""
    if not isinstance(value, str | os.PathLike):
        raise wrong(name, value, "the path of a file")
    found = os.fsdecode(value)
    if not found:
        raise InvalidValueError(f"`{name}` is empty; give the path of a file")
    if "\0" in found:
        raise InvalidValueError(f"`{name}` {found!r} has a null character, which no path has")
    try:
        os.fsencode(found)
    except UnicodeEncodeError as error:
        raise InvalidValueError(
            f"`{name}` {found!r} has a character that no path of this system has"
        ) from error
    return found


def flag(name: str, value: object) -> bool:
    """Check that a value is True or False."""
    if not isinstance(value, bool):
        raise wrong(name, value, "True or False")
    return value


def choice(*allowed: str | int) -> Converter:
    """Return a converter that accepts certain values only."""
    *others, last = map(str, allowed)
    wanted = f"{', '.join(others)} or {last}"

    def convert(name: str, value: object) -> object:
        if not isinstance(value, type(allowed[0])) or isinstance(value, bool):
            raise wrong(name, value, wanted)
        if value not in allowed:
            # A number might have too many digits to be printed.
            given = f" {value!r}" if isinstance(value, str) else ""
            raise InvalidValueError(f"`{name}`{given} is not {wanted}")
        return value

    return convert


def instance_of(kind: type) -> Converter:
    """Return a converter that accepts instances of a class only."""

    def convert(name: str, value: object) -> object:
        if not isinstance(value, kind):
            article = "an" if kind.__name__[0] in "AEIO" else "a"
            raise wrong(name, value, f"{article} {kind.__name__}")
        return value

    return convert
