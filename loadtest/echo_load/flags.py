"""Names of plans' fields as options of the command line, in errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from echo_core.errors import InvalidValueError

# Of fields whose options have other names.
_FLAGS = {"source_ips": "--source-ip", "ip_version": "-4/-6", "staged_rate": "--rate"}


@contextmanager
def errors_name_flags() -> Iterator[None]:
    """Let errors that name `fields` of a plan name the options of the command line instead.

    Raises:
        InvalidValueError: as in the block, with other names.
    """
    try:
        yield
    except InvalidValueError as error:
        said = re.sub(r"`ip_version` ([46])", r"-\1", str(error))
        raise InvalidValueError(re.sub(r"`([a-z_]+)`", _flag, said)) from error


def _flag(field: re.Match[str]) -> str:
    name = field.group(1)
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")
