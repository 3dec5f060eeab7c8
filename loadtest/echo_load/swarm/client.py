"""The client of a locust user: a connection that checks replies and reports requests."""

from __future__ import annotations

import logging
import random
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import Any

import gevent
from locust.exception import RescheduleTask

from echo_client.addresses import Address, resolve
from echo_client.connection import EchoConnection
from echo_client.errors import ClientError, ClosedError, ReplyTimeoutError
from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_client.tls import TlsOptions
from echo_core.endpoint import Endpoint
from echo_core.units import format_duration
from echo_load.engines.checking import Difference, check_one
from echo_load.engines.evidence import Evidence, reason_of
from echo_load.engines.share import back_off_seconds
from echo_load.plan.payload import StampedPayload
from echo_load.swarm.evidence import evidence_in
from echo_load.swarm.polling import AT_ONCE, PolledStream, poller
from echo_load.swarm.pretended_clients import clients_before
from echo_load.swarm.settings import Settings

# A random number of the test run, so that no two processes send the same messages.
_RUN = random.SystemRandom().getrandbits(32)
_numbers = count(1)
_PLAIN_STREAMS = frozenset({"tcp", "unix"})
# Service, request and kind of each failure that was logged.
_logged: set[tuple[Endpoint, str, str]] = set()

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def _context(tls: TlsOptions) -> ssl.SSLContext:
    """Return the TLS context that all users share; creating one takes milliseconds."""
    return tls.context()


@lru_cache(maxsize=1)
def _payload(least: int, most: int) -> StampedPayload:
    """Return the payload that all users share; each would hold padding for the largest message."""
    return StampedPayload(least, most, _RUN)


@lru_cache(maxsize=1)
def resolved(endpoint: Endpoint) -> tuple[Address, ...]:
    """Return the addresses of a service, resolved once per process.

    Raises:
        UnresolvedError: its host is unknown.
    """
    return tuple(resolve(endpoint))


def _log_first(endpoint: Endpoint, name: str, kind: str, error: ClientError) -> None:
    """Log the cause of the first failure of each kind; locust's tables show only the kind."""
    if (endpoint, name, kind) not in _logged:
        _logged.add((endpoint, name, kind))
        logger.warning("the first %s of %s: %s", kind, name, error)


class EchoFailure(ClientError, RescheduleTask):  # noqa: N818  # locust's tables show this name
    """A failure whose text is its kind, so that locust's table has one row per kind.

    A task need not catch it: locust continues with the next task and logs nothing.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.found = FailureKind(kind)

    def __repr__(self) -> str:
        """Return the kind alone, because locust shows this text."""
        return str(self)


class EchoClient:
    """One connection to an echo service, for the tasks of a locust user.

    Each method reports a request to locust, with its time in milliseconds as a float: `connect`,
    `message` (by `echo`), `close`, `send` and `receive`. A failure closes the connection, which is
    reopened on its next use, after a pause that grows with each failure.

    Args:
        environment: locust's environment.
        endpoint: the service.
        settings: sizes, timeouts, and options of TLS and of PROXY headers.
    """

    def __init__(self, environment: Any, endpoint: Endpoint, settings: Settings) -> None:
        self._fire = environment.events.request.fire
        self._evidence = evidence_in(environment)
        self._endpoint = endpoint
        self._settings = settings
        self._method = endpoint.scheme.upper()
        self._payload = _payload(*settings.payload_size)
        self._number = next(_numbers)
        self._head = self._payload.head(self._number)
        self._sequence = 0
        # Failures since the last reply.
        self._failures = 0
        self._connection: EchoConnection | None = None
        # The fast path, which is for plain streams only.
        self._stream: PolledStream | None = None
        self._tls = _context(settings.tls) if endpoint.scheme == "tls" else None
        headers = settings.proxy_headers
        # A user keeps its address when it connects again.
        client = clients_before(environment, headers, 1) + 1
        self._header = headers.header(client) if headers is not None else None
        # Bytes received beyond those that `receive` has returned.
        self._surplus = b""

    @property
    def is_open(self) -> bool:
        """True if there is a connection."""
        return self._connection is not None

    def connect(self) -> None:
        """Open the connection.

        Raises:
            EchoFailure: it cannot be opened.
        """
        if self._failures:
            gevent.sleep(back_off_seconds(self._failures - 1))
        with self._reported("connect") as took_ns:
            self._connection = EchoConnection.connect(
                resolved(self._endpoint),
                timeout=self._settings.timeout,
                connect_timeout=self._settings.connect_timeout,
                tls=self._tls,
                server_name=self._settings.tls.server_name,
                header=self._header,
            )
            # Without the time that this greenlet waited for others that connect at the same time.
            took_ns.append(self._connection.connect_ns + self._connection.handshake_ns)
            if self._endpoint.scheme in _PLAIN_STREAMS:
                stream = PolledStream(self._connection.fileno(), self._settings.timeout)
                poller().watch(stream)
                self._stream = stream

    def echo(self, message: bytes | None = None) -> bytes:
        """Send a message, receive its reply, and compare the two.

        Args:
            message: message to send; None for a stamped message.

        Returns:
            The reply.

        Raises:
            EchoFailure: the reply was wrong or late, or the connection was lost.
        """
        if self._connection is None:
            self.connect()
        if message is not None:
            with self._reported("message", len(message)):
                reply = self._round_trip(message)
                if reply != message:
                    kind = (
                        FailureKind.CORRUPT if len(reply) == len(message) else FailureKind.FOREIGN
                    )
                    self._keep(Difference(kind, -1, message, reply))
                    raise EchoFailure(kind)
            self._failures = 0
            return reply
        sequence = self._sequence
        tails = self._payload.tails
        if tails is not None:
            message = self._head + tails[sequence]
        else:
            message = self._payload.message(self._number, sequence)
        self._sequence = sequence + 1
        begin = time.perf_counter_ns()
        try:
            reply = self._round_trip(message)
        except ClientError as error:
            self._keep_part(sequence, message, error)
            self._failed("message", begin, error)
        if reply != message:
            self._failed(
                "message", begin, EchoFailure(self._failure_kind(sequence, message, reply))
            )
        self._fire(
            request_type=self._method,
            name="message",
            response_time=(time.perf_counter_ns() - begin) / 1e6,
            response_length=len(reply),
            exception=None,
        )
        self._failures = 0
        return reply

    def send(self, data: bytes) -> None:
        """Send bytes without waiting for a reply.

        Raises:
            EchoFailure: the bytes could not be sent.
        """
        with self._reported("send", len(data)):
            self._opened().send(data)

    def receive(self, size: int) -> bytes:
        """Receive `size` bytes; keep any that follow for the next call.

        Raises:
            EchoFailure: fewer arrived in time.
        """
        connection = self._opened()
        received, self._surplus = self._surplus, b""
        with self._reported("receive", size):
            while len(received) < size:
                piece = connection.receive()
                if not piece:
                    raise ClosedError("the stream ended", received)
                received += piece
        self._surplus = received[size:]
        return received[:size]

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            with self._reported("close"):
                self._disconnect()

    def _opened(self) -> EchoConnection:
        if self._connection is None:
            self.connect()
        assert self._connection is not None
        return self._connection

    @contextmanager
    def _reported(self, name: str, length: int = 0) -> Iterator[list[int]]:
        """Report the block to locust as a request.

        Yields:
            A list to which the block can append the time of the request in nanoseconds; by default
            it is the duration of the block.
        """
        begin = time.perf_counter_ns()
        took_ns: list[int] = []
        try:
            yield took_ns
        except ClientError as error:
            self._failed(name, begin, error)
        self._fire(
            request_type=self._method,
            name=name,
            response_time=(took_ns[0] if took_ns else time.perf_counter_ns() - begin) / 1e6,
            response_length=length,
            exception=None,
        )

    def _failed(self, name: str, begin: int, error: ClientError) -> None:
        """Report a failure to locust, and close the connection.

        Args:
            name: name of the request.
            begin: when it began, in nanoseconds of `time.perf_counter_ns`.
            error: its failure.

        Raises:
            EchoFailure: always.
        """
        self._failures += 1
        kind = _kind(error)
        failure = EchoFailure(kind)
        if kind not in MISMATCHES:
            number = self._sequence - 1 if name == "message" else None
            self._collector.add_failure(self._number, kind, number, self._reason(error))
        _log_first(self._endpoint, name, kind, error)
        self._fire(
            request_type=self._method,
            name=name,
            response_time=(time.perf_counter_ns() - begin) / 1e6,
            response_length=0,
            exception=failure,
        )
        self._disconnect()
        raise failure from error

    def _round_trip(self, message: bytes) -> bytes:
        """Send a message and receive at least as many bytes.

        Raises:
            EchoFailure: unexpected bytes had arrived before; or none arrived within twice the
                timeout, or over UDP within the timeout.
            ClientError: the reply was late, or the connection was lost.
        """
        if self._surplus:
            self._keep(Difference(FailureKind.FOREIGN, -1, b"", self._surplus))
            raise EchoFailure(FailureKind.FOREIGN)
        try:
            if self._stream is not None and len(message) <= AT_ONCE:
                return self._stream.round_trip(message)
            return self._opened().round_trip(message)
        except ReplyTimeoutError as error:
            if error.received:
                raise
            raise self._error_of_timeout(error) from error

    def _error_of_timeout(self, late: ReplyTimeoutError) -> ClientError:
        """Return the error for a reply of which nothing arrived within the timeout.

        Except over UDP, wait as long again: a reply that arrives then is late, not missing.
        """
        connection = self._opened()
        if self._endpoint.scheme == "udp":
            return EchoFailure(FailureKind.LOST)
        if self._stream is not None:
            poller().forget(self._stream)
            self._stream = None
        try:
            return late if connection.receive() else ClosedError("the stream ended")
        except ReplyTimeoutError:
            return EchoFailure(FailureKind.NO_REPLY)
        except ClientError as error:
            return error

    def _disconnect(self) -> None:
        """Close the connection, if there is one."""
        self._surplus = b""
        if self._stream is not None:
            poller().forget(self._stream)
            self._stream = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failure_kind(self, sequence: int, message: bytes, reply: bytes) -> str:
        checked = check_one(self._payload, self._number, sequence, message, reply)
        if checked.wrong:
            self._keep(checked.differences[0])
            return checked.wrong[0]
        self._keep(Difference(FailureKind.TRUNCATED, sequence, message, reply))
        return FailureKind.TRUNCATED

    def _reason(self, error: ClientError) -> str:
        if not isinstance(error, EchoFailure):
            return reason_of(error)
        # The other failures without a text of their own are wrong replies.
        waits = 1 if error.found == FailureKind.LOST else 2
        return f"no reply came within {format_duration(waits * self._settings.timeout)}"

    def _keep_part(self, sequence: int, message: bytes, error: ClientError) -> None:
        """Keep the part of a reply that came before an error, if any did."""
        if error.received:
            self._keep(Difference(_kind(error), sequence, message, error.received))

    def _keep(self, found: Difference) -> None:
        self._collector.add_reply(self._number, found)

    @property
    def _collector(self) -> Evidence:
        return self._evidence.collector(str(self._endpoint), self._payload)


def _kind(error: ClientError) -> FailureKind:
    """Return the kind of failure that an error is counted as."""
    if isinstance(error, EchoFailure):
        return error.found
    return (
        FailureKind.TRUNCATED if isinstance(error, ClosedError) and error.received else error.kind
    )
