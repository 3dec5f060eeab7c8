"""The kinds of failure that the client and the load tester distinguish."""

from enum import StrEnum


class FailureKind(StrEnum):
    """The name under which a failure is counted in results, metrics and reports."""

    # Before a connection is open.
    CONNECT_ERROR = "connect_error"
    UNRESOLVED = "unresolved"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    CONNECT_TIMEOUT = "connect_timeout"
    HANDSHAKE = "handshake"
    # This machine has run out of a resource.
    NO_SOURCE = "no_source"
    NO_PORT = "no_port"
    NO_DESCRIPTOR = "no_descriptor"
    NO_THREAD = "no_thread"
    # An open connection ends.
    BROKEN = "broken"
    RESET = "reset"
    CLOSED = "closed"
    # A reply does not arrive, or not in time.
    TIMEOUT = "timeout"
    NO_REPLY = "no_reply"
    LOST = "lost"
    # A reply is wrong.
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    FOREIGN = "foreign"
    MISMATCH = "mismatch"
    # A scheduled message of an open loop was never sent.
    UNSENT = "unsent"
    # The client's own input or output fails.
    STREAM = "stream"
    ERROR = "error"


# The ways in which a reply differs from its message.
MISMATCHES = (
    FailureKind.CORRUPT,
    FailureKind.TRUNCATED,
    FailureKind.DUPLICATED,
    FailureKind.REORDERED,
    FailureKind.FOREIGN,
)
# Replies that do not arrive, or not in time.
LOSSES = frozenset({FailureKind.LOST, FailureKind.NO_REPLY, FailureKind.TIMEOUT})
