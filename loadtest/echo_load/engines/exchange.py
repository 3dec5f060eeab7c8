"""The hub engine's hot path: receive, check, send, on many connections at a time.

No greenlet and no watcher a connection. One receive and one send a message on raw sockets, every
byte compared, and the time appended to an array. What is not simply the reply that was due is
sorted out apart from that.
"""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod
from array import array

from gevent import monkey
from gevent.hub import get_hub

from echo_client.connection import CHUNK
from echo_client.errors import connected_failure
from echo_core.epoll_set import READABLE, WRITABLE, EpollSet, Ready
from echo_load.engines import Counts, Share, datagrams
from echo_load.engines.checking import UnderWay, check
from echo_load.engines.dispatcher import Dispatcher
from echo_load.engines.hub_connection import HubConnection
from echo_load.engines.recorder import FOLD_AT, Recorder

# Replies that are held at once should fit the caches: so many, and so many bytes.
_HELD = 64
_HELD_BYTES = 256 * 1024


class Exchange(ABC):
    """Connections in one epoll set whose replies are checked and whose messages are sent.

    Subclasses say what a connection does when it has been answered, or is lost.

    Args:
        share: what is to be done.
        recorder: where times are noted.
    """

    def __init__(self, share: Share, recorder: Recorder) -> None:
        self._share = share
        self._recorder = recorder
        self._counts = Counts()
        self._connections: dict[int, HubConnection] = {}
        self._datagrams = share.plan.speaks("udp")
        # Exactly a reply, where it is one at a time: what is too much comes with the next receive,
        # and of a datagram one byte of it.
        room = share.payload.largest + self._datagrams
        self._room = CHUNK if share.plan.pipeline > 1 else min(room, CHUNK)
        self._step = max(1, min(_HELD, _HELD_BYTES // self._room))
        # Monkey-patching takes epoll out of the select module.
        epoll: select.epoll = monkey.get_original("select", "epoll")()
        self._set = EpollSet(get_hub().loop, epoll, self._on_ready)
        schedule = share.schedule()
        # The open loop; None in a closed one.
        self._dispatcher = (
            Dispatcher(schedule, self._set, recorder, self._send) if schedule else None
        )

    @abstractmethod
    def _on_ready(self, ready: Ready) -> None:
        """Call `_serve`, and let no exception out."""

    @abstractmethod
    def _answered(self, connection: HubConnection) -> None:
        """Nothing is under way on a connection, or less than may be: go on, or end it."""

    @abstractmethod
    def _lose(self, connection: HubConnection, kind: str | None) -> None:
        """Give a connection up, for an error that may have been counted already."""

    @abstractmethod
    def _serve_stranger(self, descriptor: int, events: int) -> None:
        """Serve a descriptor that is no open connection's."""

    def _serve(self, ready: Ready) -> None:
        """Serve the connections that are ready, some at a time."""
        # When it was seen that these replies are in.
        now = time.monotonic_ns()
        for begin in range(0, len(ready), self._step):
            self._serve_some(ready[begin : begin + self._step], now)
            if self._dispatcher is not None:
                self._dispatcher.dispatch()
        if len(self._recorder.times.replies) >= FOLD_AT:
            self._recorder.fold()

    def _serve_some(self, ready: Ready, now: int) -> None:
        """Receive from all, check all, then send on all: each step finds its code in the caches.

        Done for one connection after the other, the same took a tenth longer.
        """
        connections, room = self._connections, self._room
        batch: list[HubConnection] = []
        replies: list[bytes] = []
        for descriptor, events in ready:
            connection = connections.get(descriptor)
            if connection is None or events != READABLE:
                self._serve_other(descriptor, connection, events)
                continue
            try:
                replies.append(connection.recv(room))
                batch.append(connection)
            except BlockingIOError:
                continue
            except OSError as error:
                self._lose(connection, _kind(error))
        self._counts.bytes_received += sum(map(len, replies))
        if replies != [connection.expected for connection in batch]:
            batch = self._sort_out(batch, replies, now)
        self._go_on(batch, now)

    def _sort_out(
        self, batch: list[HubConnection], replies: list[bytes], now: int
    ) -> list[HubConnection]:
        """Take the replies that are not simply right; gives the connections whose replies are."""
        right = []
        for connection, reply in zip(batch, replies, strict=True):
            if reply == connection.expected:
                right.append(connection)
            else:
                self._take(connection, reply, now)
        return right

    def _go_on(self, batch: list[HubConnection], now: int) -> None:
        """Note the times of right replies, and send the next messages."""
        times = self._recorder.times
        times.service.extend([now - connection.sent_ns for connection in batch])
        if self._dispatcher is not None:
            times.response.extend([now - connection.due_ns for connection in batch])
        times.replies.extend(array("q", (now,)) * len(batch))
        self._counts.messages += len(batch)
        if self._datagrams:
            self._note_datagrams(batch)
        if self._dispatcher is not None or now >= self._share.end_ns.value:
            for connection in batch:
                connection.expected = None
                self._answered(connection)
            return
        tails, make = self._share.payload.tails, self._share.payload.message
        sending: list[HubConnection] = []
        for connection in batch:
            sequence = connection.sequence
            if sequence < connection.stop_at:
                connection.sequence = sequence + 1
                if tails is not None:
                    connection.expected = connection.head + tails[sequence]
                else:
                    connection.expected = make(connection.number, sequence)
                sending.append(connection)
            else:
                connection.expected = None
                self._answered(connection)
        self._send_all(sending)

    def _send_all(self, sending: list[HubConnection]) -> None:
        """Send the messages that were made."""
        clock = time.monotonic_ns
        taken: list[int] = []
        note_taken = taken.append
        for connection in sending:
            connection.sent_ns = clock()
            try:
                note_taken(connection.send(connection.expected or b""))
            except BlockingIOError:
                note_taken(0)
            except OSError as error:
                note_taken(0)
                self._lose(connection, _kind(error))
        self._counts.bytes_sent += sum(taken)
        if taken.count(self._share.payload.largest) != len(taken):
            # Messages of less than the largest size, or some that did not fit.
            self._keep_rests(sending, taken)
        if self._datagrams:
            self._counts.datagrams_sent += sum(
                connection.datagram and sent > 0
                for connection, sent in zip(sending, taken, strict=True)
            )

    def _keep_rests(self, sending: list[HubConnection], taken: list[int]) -> None:
        for connection, sent in zip(sending, taken, strict=True):
            message = connection.expected or b""
            if sent < len(message) and connection.fileno() >= 0:
                self._keep(connection, message[sent:])

    def _note_datagrams(self, batch: list[HubConnection]) -> None:
        for connection in batch:
            if connection.datagram:
                connection.highest = connection.sequence - 1
                self._counts.datagrams_received += 1

    def _send(self, connection: HubConnection, due_ns: int, now: int) -> None:
        sequence = connection.sequence
        tails = self._share.payload.tails
        if tails is not None:
            message = connection.head + tails[sequence]
        else:
            message = self._share.payload.message(connection.number, sequence)
        connection.sequence = sequence + 1
        if connection.fresh or self._share.plan.pipeline > 1 or connection.waits:
            connection.listed().append(UnderWay(sequence, message, due_ns, now))
        else:
            connection.under_way = None
            connection.expected = message
            connection.due_ns = due_ns
            connection.sent_ns = now
        try:
            taken = connection.send(message) if connection.unsent is None else 0
        except BlockingIOError:
            taken = 0
        except OSError as error:
            self._lose(connection, _kind(error))
            return
        self._counts.bytes_sent += taken
        if taken < len(message):
            self._keep(connection, message[taken:])
        elif connection.datagram:
            self._counts.datagrams_sent += 1

    def _keep(self, connection: HubConnection, rest: bytes) -> None:
        """Keep what the socket did not take, and send it when it takes more.

        A datagram that it does not take is lost, as if it were on the way.
        """
        if connection.datagram:
            return
        if connection.unsent is None:
            self._set.change(connection.fileno(), READABLE | WRITABLE)
            connection.unsent = bytearray()
            # A reply that comes now may come too early, and is not simply compared.
            connection.listed()
        connection.unsent += rest

    def _serve_other(self, descriptor: int, connection: HubConnection | None, events: int) -> None:
        """Serve what is not simply a reply."""
        if connection is not None:
            self._move(connection, events)
        elif self._dispatcher is not None and descriptor == self._dispatcher.descriptor:
            self._dispatcher.timer_is_ready()
        else:
            self._serve_stranger(descriptor, events)

    def _move(self, connection: HubConnection, events: int) -> None:
        """Send what did not fit before, and find out what is wrong with a connection."""
        try:
            if events & WRITABLE and connection.unsent is not None:
                taken = connection.send(connection.unsent)
                self._counts.bytes_sent += taken
                del connection.unsent[:taken]
                if not connection.unsent:
                    connection.unsent = None
                    self._set.change(connection.fileno(), READABLE)
            if events & ~WRITABLE:
                data = connection.recv(CHUNK)
                self._counts.bytes_received += len(data)
                self._take(connection, data, time.monotonic_ns())
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(connection, _kind(error))

    def _take(self, connection: HubConnection, data: bytes, now: int) -> None:
        """Take what came: several replies, a part of one, a wrong one, or the end."""
        if connection.datagram:
            self._take_datagram(connection, data, now)
        elif not data:
            self._lose(connection, "truncated" if connection.partial else "closed")
        elif connection.overdue:
            self._lose(connection, "timeout")
        else:
            self._take_stream(connection, data, now)

    def _take_stream(self, connection: HubConnection, data: bytes, now: int) -> None:
        self._note_first_byte(connection, now)
        under_way = connection.listed()
        if connection.partial is not None:
            connection.partial += data
            if under_way and len(connection.partial) < len(under_way[0].message):
                return
            data = bytes(connection.partial)
            connection.partial = None
        checked = check(
            self._share.payload, connection.number, connection.sequence - 1, under_way, data
        )
        self._counts.errors.update(checked.wrong)
        self._counts.wrong += checked.completed_wrong
        self._note(checked.completed, now)
        if not checked.in_step:
            self._lose(connection, None)
            return
        if connection.unsent is not None and len(connection.unsent) > sum(
            len(one.message) for one in under_way
        ):
            # A reply to what has not left. One that is believed lets the rest grow for ever.
            self._lose(connection, "foreign")
            return
        if checked.rest:
            connection.partial = bytearray(checked.rest)
        for _ in checked.completed:
            if connection.fileno() < 0:
                return
            self._answered(connection)

    def _note(self, completed: list[UnderWay], now: int) -> None:
        times = self._recorder.times
        for one in completed:
            times.service.append(now - one.sent_ns)
            if self._dispatcher is not None:
                times.response.append(now - one.due_ns)
            times.replies.append(now)
        self._counts.messages += len(completed)

    def _take_datagram(self, connection: HubConnection, data: bytes, now: int) -> None:
        self._counts.datagrams_received += 1
        self._note_first_byte(connection, now)
        found = datagrams.take(self._share.payload, connection, data, self._counts)
        if found is not None:
            self._note([found], now)
            self._answered(connection)

    def _note_first_byte(self, connection: HubConnection, now: int) -> None:
        under_way = connection.listed()
        if connection.fresh and under_way:
            connection.fresh = False
            self._recorder.times.first_byte.append(now - under_way[0].sent_ns)


def _kind(error: OSError) -> str:
    """What an error of an open connection counts as."""
    return connected_failure(error.errno).kind
