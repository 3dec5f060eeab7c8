"""Listeners that systemd opened for this process (sd_listen_fds(3))."""

from __future__ import annotations

import os

_FIRST_DESCRIPTOR = 3


def inherited_descriptors() -> range:
    """The listeners that systemd (or systemd-socket-activate) opened for this process.

    The variables that announce them are taken out of the environment: they are not meant for the
    processes that this one starts.
    """
    process = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not count.isdecimal():
        return range(0)
    return range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
