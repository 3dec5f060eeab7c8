"""Listeners that systemd opened for this process (sd_listen_fds(3))."""

from __future__ import annotations

import os
import re

from echo_server.errors import ListenError

_FIRST_DESCRIPTOR = 3
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_MAX_NUMBER = 10**9 - 1


def inherited_descriptors() -> range:
    """Return the descriptors that systemd (or systemd-socket-activate) opened for this process.

    The environment variables that announce them are removed, since they are not meant for child
    processes.

    Raises:
        ListenError: a variable is not a number, or an announced descriptor is not open.
    """
    process = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not process or not count:
        return range(0)
    for name, value in (("LISTEN_PID", process), ("LISTEN_FDS", count)):
        if not _NUMBER.fullmatch(value):
            raise ListenError(
                f"cannot use the sockets of systemd: {name}={value} is not a number "
                f"from 0 to {_MAX_NUMBER}"
            )
    if int(process) != os.getpid():
        return range(0)
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    for descriptor in descriptors:
        if not _is_open(descriptor):
            raise ListenError(
                f"cannot use the sockets of systemd: LISTEN_FDS={count}, but descriptor "
                f"{descriptor} is not open"
            )
    return descriptors


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
