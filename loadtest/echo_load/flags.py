"""Names of options instead of fields of a plan in error messages."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from echo_core.errors import InvalidValueError

# Fields whose options are not named after them.
_FLAGS = {
    "targets": "TARGET",
    "source_ips": "--source-ip",
    "ip_version": "-4/-6",
    "staged_rate": "--rate",
    "nodelay": "--no-nodelay",
    "thresholds": "--threshold",
}


@contextmanager
def errors_name_flags() -> Iterator[None]:
    """Replace names of plan fields by those of options in errors raised in the block.

    Raises:
        InvalidValueError: an error of the block, with the names of options.
    """
    try:
        yield
    except InvalidValueError as error:
        raise InvalidValueError(with_flags(str(error))) from error


def with_flags(message: str) -> str:
    """Return a message with names of options instead of fields of a plan."""
    replaced = re.sub(r"`ip_version` ([46])", r"-\1", message)
    return re.sub(r"`([a-z_]+)`", _flag, replaced)


def _flag(field: re.Match[str]) -> str:
    name = field.group(1)
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")
