"""Compares what comes back on a stream with the messages in flight on it, without any I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from echo_client.failure_kinds import FailureKind
from echo_load.plan.payload import Payload

# Corrupt replies that one check keeps; any other wrong reply ends it.
_MOST_KEPT = 5


@dataclass(slots=True, eq=False)
class Run:
    """Messages that left together on a connection; often just one.

    Attributes:
        sequence: the number of the first one within its connection.
        data: the messages, one after the other.
        ends: where each message ends within the data.
        sent_ns: when they left, on the monotonic clock.
        due_ns: when each one was due, on the monotonic clock; empty in a closed loop, where a
            message is due when it leaves.
        answered: how many of them have been answered.
    """

    sequence: int
    data: bytes
    ends: Sequence[int]
    sent_ns: int
    due_ns: Sequence[int] = ()
    answered: int = 0

    @classmethod
    def of_one(cls, sequence: int, message: bytes, sent_ns: int, due_ns: Sequence[int] = ()) -> Run:
        """Return the run of a single message."""
        return cls(sequence, message, (len(message),), sent_ns, due_ns)

    @property
    def begin(self) -> int:
        """Where the first message that has not been answered begins within the data."""
        return self.ends[self.answered - 1] if self.answered else 0


class Completed(NamedTuple):
    """Messages of one run whose replies arrived together, right or wrong.

    Attributes:
        run: their run.
        first: the index of the first one within the run.
        messages: how many.
    """

    run: Run
    first: int
    messages: int


class Difference(NamedTuple):
    """A reply that differs from the one that was due.

    Attributes:
        kind: the kind of failure that it counts as.
        sequence: the number of the message that it should have answered; if none was in flight,
            that of the last one sent, or -1 if none was.
        due: what should have come; empty if no reply was due.
        got: what came in its place.
        note: what is wrong with it, if its bytes do not tell; without a full stop.
    """

    kind: FailureKind
    sequence: int
    due: bytes
    got: bytes
    note: str = ""


@dataclass(slots=True)
class Checked:
    """The result of checking some bytes that came back.

    Attributes:
        completed: messages whose replies have arrived, right or wrong, the oldest first.
        wrong: the kind of failure of each wrong reply.
        differences: how the wrong replies differ; of many corrupt ones, only the first.
        completed_wrong: how many of those completed had a wrong reply.
        in_step: whether the next byte certainly belongs to the next reply.
    """

    completed: list[Completed] = field(default_factory=list)
    wrong: list[FailureKind] = field(default_factory=list)
    differences: tuple[Difference, ...] = ()
    completed_wrong: int = 0
    in_step: bool = True

    @property
    def messages(self) -> int:
        """How many messages were completed."""
        return sum(one.messages for one in self.completed)

    def add(self, kind: FailureKind, sequence: int, due: bytes, got: bytes) -> None:
        """Count a wrong reply, and keep it if it is among the first; see `Difference`."""
        self.wrong.append(kind)
        if kind != FailureKind.CORRUPT or len(self.differences) < _MOST_KEPT:
            # A tuple, because right replies are not to pay for a list.
            self.differences = (*self.differences, Difference(kind, sequence, due, got))


class InFlight:
    """The messages in flight on a stream, in the order in which their replies are due.

    What comes back is compared with whole runs; a run is only taken apart into messages where
    they differ, to name what is wrong.

    Args:
        runs: the runs in flight, the oldest first.

    Attributes:
        runs: the same.
        count: messages in flight.
        bytes: bytes that are still to come back.
    """

    __slots__ = ("_differing", "_offset", "bytes", "count", "runs")

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self.runs: deque[Run] = deque()
        self.count = self.bytes = 0
        # Bytes of the oldest run that have come back and were right.
        self._offset = 0
        # What came of a reply that differs from its message, until all of it has come.
        self._differing: bytearray | None = None
        for run in runs:
            self.add(run)

    def add(self, run: Run) -> None:
        """Note that a run leaves."""
        self.runs.append(run)
        self.count += len(run.ends)
        self.bytes += len(run.data)

    def remove(self, run: Run) -> None:
        """Forget a datagram: a run of a single message, whose reply may come in any order."""
        self.runs.remove(run)
        self.count -= 1
        self.bytes -= len(run.data)

    @property
    def partial(self) -> bool:
        """Whether the first part of a reply has come."""
        return bool(self._differing) or (bool(self.runs) and self._offset > self.runs[0].begin)

    @property
    def oldest(self) -> int | None:
        """The number of the oldest message in flight; None if there is none."""
        return self.runs[0].sequence + self.runs[0].answered if self.runs else None

    def begun(self, kind: FailureKind) -> Difference | None:
        """Return the reply of which only a part has come, as the kind it counts as; else None."""
        if not self.partial:
            return None
        run = self.runs[0]
        begin, end = run.begin, run.ends[run.answered]
        got = run.data[begin : self._offset] if self._differing is None else bytes(self._differing)
        return Difference(kind, run.sequence + run.answered, run.data[begin:end], got)

    def take_run(self, data: bytes) -> Run | None:
        """Remove the oldest run and return it, if the data are exactly the replies to all of it.

        If they are not, nothing has changed, and `check` tells what they are.
        """
        if self._offset or self._differing is not None or not self.runs:
            return None
        run = self.runs[0]
        if data != run.data:
            return None
        self.runs.popleft()
        self.bytes -= len(data)
        self.count -= len(run.ends)
        return run

    def check(self, payload: Payload, connection: int, last: int, data: bytes) -> Checked:
        """Compare a stream's next bytes with the messages in flight, and remove the answered ones.

        A corrupt reply of the right length is one wrong reply, and the stream stays in step. After
        any other wrong reply it is not, and the next bytes cannot be attributed to a message.

        Args:
            payload: what is sent.
            connection: the number of the connection.
            last: the sequence number of the last message sent; -1 if none was.
            data: what came.
        """
        checked = Checked()
        self.bytes -= len(data)
        if self._differing is not None:
            self._differing += data
            run = self.runs[0]
            if len(self._differing) < run.ends[run.answered] - run.begin:
                return checked
            data, self._differing = bytes(self._differing), None
        position = 0
        while position < len(data) and self.runs and checked.in_step:
            run = self.runs[0]
            size = min(len(run.data) - self._offset, len(data) - position)
            if _are_equal(run.data, self._offset, data, position, size):
                position += size
                self._advance(run, self._offset + size, checked)
            else:
                position = self._skip_equal(run, data, position, size, checked)
                position = self._take_apart(payload, connection, data, position, checked)
        if position < len(data) and checked.in_step:
            surplus = data[position:]
            kind = payload.diagnose_surplus(connection, last, surplus)
            checked.add(kind, last, b"", surplus)
            checked.in_step = False
        return checked

    def _advance(self, run: Run, offset: int, checked: Checked) -> None:
        """Note that the bytes of the oldest run before an offset have come back."""
        answered = run.answered
        if offset == len(run.data):
            count = len(run.ends) - answered
            self.runs.popleft()
            offset = 0
        else:
            count = bisect_right(run.ends, offset) - answered
        self._offset = offset
        if count:
            run.answered = answered + count
            self.count -= count
            checked.completed.append(Completed(run, answered, count))

    def _skip_equal(self, run: Run, data: bytes, position: int, size: int, checked: Checked) -> int:
        """Advance over the messages whose replies are right, and return the position after them.

        The number of messages that are compared at once doubles until they differ; then the first
        that differs is found by bisection.
        """
        begin, ends, index = self._offset, run.ends, run.answered
        # The first message that differs is before this one, or it is this one.
        limit = bisect_right(ends, begin + size)
        offset, count, growing = begin, 1, True
        while count := min(count, limit - index):
            end = ends[index + count - 1]
            if _are_equal(run.data, offset, data, position + offset - begin, end - offset):
                index, offset = index + count, end
            else:
                growing, limit = False, index + count - 1
            count = count * 2 if growing else (limit - index + 1) // 2
        if offset > begin:
            self._advance(run, offset, checked)
        return position + offset - begin

    def _take_apart(
        self, payload: Payload, connection: int, data: bytes, position: int, checked: Checked
    ) -> int:
        """Compare the next message by itself, and return the position of the byte after it."""
        run = self.runs[0]
        # A part that has come already may be of a message before the one that differs.
        begin, end = run.begin, run.ends[run.answered]
        due = run.data[begin:end]
        rest = data[position : position + end - self._offset]
        got = run.data[begin : self._offset] + rest
        if got == due:
            self._advance(run, end, checked)
        elif len(got) < len(due):
            self._differing = bytearray(got)
            self._offset = begin
        else:
            sequence = run.sequence + run.answered
            wrong = payload.diagnose(connection, sequence, got)
            checked.add(wrong, sequence, due, got)
            if wrong == FailureKind.CORRUPT:
                checked.completed_wrong += 1
                self._advance(run, end, checked)
            else:
                checked.in_step = False
        return position + len(rest)


def check_one(
    payload: Payload, connection: int, sequence: int, message: bytes, reply: bytes
) -> Checked:
    """Compare what came back with the only message in flight; see `InFlight.check`."""
    in_flight = InFlight([Run.of_one(sequence, message, 0)])
    return in_flight.check(payload, connection, sequence, reply)


def _are_equal(sent: bytes, offset: int, data: bytes, position: int, size: int) -> bool:
    """Compare `size` bytes of what was sent, from an offset, with as many of what came."""
    if offset + size < len(sent):
        return sent.startswith(memoryview(data)[position : position + size], offset)
    return data.startswith(memoryview(sent)[offset : offset + size], position)
