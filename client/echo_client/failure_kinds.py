"""The kinds of failure that clients and load testers count."""

from enum import StrEnum


class FailureKind(StrEnum):
    """A name under which failures are counted, in results, metrics and reports."""

    # Before a connection is open.
    CONNECT_ERROR = "connect_error"
    UNRESOLVED = "unresolved"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    CONNECT_TIMEOUT = "connect_timeout"
    HANDSHAKE = "handshake"
    # This machine has no more of these.
    NO_SOURCE = "no_source"
    NO_PORT = "no_port"
    NO_DESCRIPTOR = "no_descriptor"
    NO_THREAD = "no_thread"
    # An open connection ends.
    BROKEN = "broken"
    RESET = "reset"
    CLOSED = "closed"
    # A reply does not come, or not in time.
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
    # A message of an open loop never left.
    UNSENT = "unsent"
    # Of the client's own input and output.
    STREAM = "stream"
    ERROR = "error"


# Replies that are not what was sent, by the difference.
MISMATCHES = (
    FailureKind.CORRUPT,
    FailureKind.TRUNCATED,
    FailureKind.DUPLICATED,
    FailureKind.REORDERED,
    FailureKind.FOREIGN,
)
# Replies that do not come, or not in time.
LOSSES = frozenset({FailureKind.LOST, FailureKind.NO_REPLY, FailureKind.TIMEOUT})
