"""What the system lets one process have."""

from __future__ import annotations

import resource


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
