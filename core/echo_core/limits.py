"""Limits that the operating system and the protocols impose."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

# The largest payload of a datagram in bytes. The 16-bit length covers the IPv4 and UDP headers
# (RFC 791, RFC 768), but only the UDP header with IPv6 (RFC 8200, section 3).
LARGEST_DATAGRAM = {4: 65_507, 6: 65_527}

# Descriptors that a process needs besides its connections: standard streams, pipes, listeners,
# logs, counters, epoll.
SPARE_DESCRIPTORS = 64

_SHORTAGES = {
    errno.EMFILE: "raise the limit on open descriptors (ulimit -n)",
    errno.ENFILE: "the system has no descriptors left (fs.file-max)",
    errno.ENOMEM: "the system has no memory left",
}

# The time for which a TCP connection keeps its port after this end has closed it (TIME_WAIT, RFC
# 9293, section 3.4.2; Linux's TCP_TIMEWAIT_LEN), and the time where ports are reused (tcp(7),
# tcp_tw_reuse).
_TIME_WAIT_SECONDS = 60.0
_TIME_WAIT_REUSED_SECONDS = 1.0

# The dynamic ports of RFC 6335, section 6, for systems that do not report their range.
_DYNAMIC_PORTS = (49152, 65535)


def remedy_of(error: OSError) -> str | None:
    """Return what to do about a resource that has run out; None for other errors."""
    return _SHORTAGES.get(error.errno or 0)


def not_started(error: OSError) -> str:
    """Return why a process could not be started, and the remedy."""
    return f"{error.strerror}; {remedy_of(error) or 'raise the limit on processes (ulimit -u)'}"


def raise_descriptor_limit() -> int:
    """Raise the soft limit on open descriptors to the hard limit, and return the limit in effect.

    Each connection needs a descriptor. The usual soft limit of 1024 exists for programs that use
    select(2), which these do not (getrlimit(2), RLIMIT_NOFILE).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            # macOS reports an unlimited hard limit but does not accept it as soft limit.
            return soft
    return hard


def local_ports() -> tuple[int, int]:
    """Return the first and the last ephemeral port (ip(7), ip_local_port_range)."""
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        first, last = map(int, text.split())
    except (OSError, ValueError):
        return _DYNAMIC_PORTS
    return first, last


def time_wait_seconds(*, loopback: bool) -> float:
    """Return for how many seconds a local port stays in use after this end closed a connection.

    Args:
        loopback: True if both ends of the connection are on this machine.
    """
    try:
        reuse, timestamps = (
            int(Path(f"/proc/sys/net/ipv4/tcp_{name}").read_text())
            for name in ("tw_reuse", "timestamps")
        )
    except (OSError, ValueError):
        return _TIME_WAIT_SECONDS
    is_reused = timestamps and (reuse == 1 or (reuse == 2 and loopback))
    return _TIME_WAIT_REUSED_SECONDS if is_reused else _TIME_WAIT_SECONDS
