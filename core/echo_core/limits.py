"""Limits that the system sets to a process, and protocols to a message."""

from __future__ import annotations

import resource
from pathlib import Path

# Bytes that fit into a datagram behind the headers of IPv4 and UDP (RFC 791, RFC 768), and behind
# that of UDP alone: IPv6 counts its own header apart (RFC 8200, section 3).
LARGEST_DATAGRAM = {4: 65_507, 6: 65_527}

# A TCP connection keeps its port for so long after this end has closed it (TIME_WAIT, RFC 9293,
# section 3.4.2; Linux's TCP_TIMEWAIT_LEN), or until it is reused (tcp(7), tcp_tw_reuse).
_TIME_WAIT_SECONDS = 60.0
_TIME_WAIT_REUSED_SECONDS = 1.0

# RFC 6335, section 6: the dynamic ports, where the system does not say.
_DYNAMIC_PORTS = (49152, 65535)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one, and return it.

    Each connection is a descriptor, and the usual soft limit of 1024 exists for programs that use
    select(2), which none here does (getrlimit(2), RLIMIT_NOFILE).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):
            # macOS reports an unlimited hard limit and refuses it.
            return soft
    return hard


def local_ports() -> tuple[int, int]:
    """The first and the last port that connections are opened from (ip(7))."""
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        first, last = map(int, text.split())
    except (OSError, ValueError):
        return _DYNAMIC_PORTS
    return first, last


def time_wait_seconds(*, loopback: bool) -> float:
    """Return how long a local port stays taken after a TCP connection was closed from this end.

    Args:
        loopback: both ends are on this machine.
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
