"""Option names instead of plan field names in error messages."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from echo_core.errors import InvalidValueError

# Fields whose options have other names.
_FLAGS = {"source_ips": "--source-ip", "ip_version": "-4/-6", "staged_rate": "--rate"}


@contextmanager
def errors_name_flags() -> Iterator[None]:
    """Make errors raised in the block name command-line options instead of plan `fields`.

    Raises:
        InvalidValueError: as raised in the block, with option names.
    """
    try:
        yield
    except InvalidValueError as error:
        said = re.sub(r"`ip_version` ([46])", r"-\1", str(error))
        raise InvalidValueError(re.sub(r"`([a-z_]+)`", _flag, said)) from error


def _flag(field: re.Match[str]) -> str:
    name = field.group(1)
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")
