"""What the system lets one process have, and what the protocols let a message have."""

from __future__ import annotations

import resource
from pathlib import Path

# Bytes that fit into a datagram behind the headers of IPv4 and UDP (RFC 791, RFC 768), and behind
# that of UDP alone: IPv6 counts its own header apart (RFC 8200, section 3).
LARGEST_DATAGRAM = {4: 65_507, 6: 65_527}

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
