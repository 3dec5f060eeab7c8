"""The connection that is never idle, which shows whether idleness was the reason for a drop."""

from __future__ import annotations

import time
from collections.abc import Callable

from echo_client.errors import ClientError, MismatchError
from echo_load.limits.idle_connections import CheckedConnection
from echo_load.plan.thresholds import written_time


class NotIdlenessError(Exception):
    """The target or the path failed for a reason other than idleness."""


class Control:
    """A connection on which messages are exchanged all the time.

    What drops it, or keeps new connections from being answered, is not idleness.

    Args:
        connect: opens a connection on which the first message has been answered.
        interval: seconds between two messages.
        timeout: seconds to wait for a reply.

    Raises:
        ClientError: the target cannot be reached, or does not echo.
    """

    def __init__(
        self, connect: Callable[[], CheckedConnection], interval: float, timeout: float
    ) -> None:
        self._connect = connect
        self._interval = interval
        self._timeout = timeout
        # Instants of the last drop, and up to which the target is known to have worked.
        self._dropped_at = self._proven_at = 0.0
        self._begin = time.monotonic()
        self._connection = connect()

    @property
    def proves_drops(self) -> bool:
        """True if the target has answered a message that was sent after the last drop."""
        return max(self._proven_at, self._connection.proven_at) >= self._dropped_at

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._connection.fileno()

    def note_drop(self, now: float) -> None:
        """Note that an idle connection was dropped, which is to be proven."""
        self._dropped_at = now

    def receive(self) -> None:
        """Take what has arrived.

        Raises:
            MismatchError: a reply was wrong.
            NotIdlenessError: the connection was lost.
        """
        try:
            ended = self._connection.receive()
        except MismatchError:
            raise
        except ClientError as error:
            raise self._lost(str(error)) from error
        if ended:
            raise self._lost("the server closed it")

    def act(self, now: float) -> None:
        """Send a message if one is due; check that the last one was answered.

        Raises:
            NotIdlenessError: the connection was lost, or a message was not answered.
        """
        connection = self._connection
        sent_at = connection.sent_at
        if sent_at is not None and now - sent_at > self._timeout:
            if not connection.is_datagram:
                raise self._lost("a message got no reply")
            self.check_target()
            self._proven_at = now
            sent_at = None
        rested = now - connection.answered_at >= self._interval
        if sent_at is None and (rested or not self.proves_drops):
            try:
                connection.send()
            except ClientError as error:
                raise self._lost(str(error)) from error

    def check_target(self) -> None:
        """Check that the target answers on a new connection.

        Raises:
            NotIdlenessError: it does not, so that idleness does not explain the silence.
        """
        try:
            self._connect().close()
        except ClientError as error:
            raise NotIdlenessError(f"a new connection failed, too: {error}") from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _lost(self, why: str) -> NotIdlenessError:
        elapsed = written_time(time.monotonic() - self._begin)
        return NotIdlenessError(
            f"a connection with a message every {written_time(self._interval)} was lost, too, "
            f"after {elapsed}: {why}; so idleness was not the reason"
        )
