"""The comparison of received bytes with the messages in flight on a stream; it does no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from echo_client.failure_kinds import MISMATCHES, FailureKind
from echo_load.plan.payload import Payload

# Number of corrupt replies that a check keeps. A wrong reply of another kind ends the check.
_MOST_KEPT = 5


@dataclass(slots=True, eq=False)
class Run:
    """Consecutive messages that were sent together on a connection; often just one.

    Attributes:
        sequence: sequence number of the first message.
        data: the messages as one byte string.
        ends: offset in the data at which each message ends.
        sent_ns: instant at which they were sent, in nanoseconds of the monotonic clock.
        due_ns: instant at which each message was due, in nanoseconds of the monotonic clock; used
            in an open loop only.
        answered: number of messages that have been answered.
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
        """The offset in the data of the first message that has not been answered."""
        return self.ends[self.answered - 1] if self.answered else 0


class Completed(NamedTuple):
    """Consecutive messages of a run whose replies were completed together, right or wrong.

    Attributes:
        run: the run.
        first: index of the first message in the run.
        messages: number of messages.
    """

    run: Run
    first: int
    messages: int


class Difference(NamedTuple):
    """A reply that differs from the expected one.

    Attributes:
        kind: kind of failure that it counts as.
        sequence: sequence number of the message whose reply was expected; if none was in flight,
            that of the last message sent, or -1 if none was.
        due: the expected bytes; empty if no reply was expected.
        got: the received bytes.
        note: explanation, if the bytes do not show what is wrong; without a full stop.
    """

    kind: FailureKind
    sequence: int
    due: bytes
    got: bytes
    note: str = ""


@dataclass(slots=True)
class Checked:
    """The result of checking received bytes.

    Attributes:
        completed: messages whose replies are complete, right or wrong, the oldest first.
        wrong: kind of failure of each wrong reply.
        differences: differences of the wrong replies; of many corrupt ones, only the first.
        completed_wrong: number of completed messages with a wrong reply.
        in_step: False if the next bytes cannot be attributed to a message.
    """

    completed: list[Completed] = field(default_factory=list)
    wrong: list[FailureKind] = field(default_factory=list)
    differences: tuple[Difference, ...] = ()
    completed_wrong: int = 0
    in_step: bool = True

    @property
    def messages(self) -> int:
        """The number of completed messages."""
        return sum(one.messages for one in self.completed)

    def add(self, kind: FailureKind, sequence: int, due: bytes, got: bytes) -> None:
        """Add a wrong reply, and keep its difference if it is among the first; see `Difference`."""
        self.wrong.append(kind)
        if kind != FailureKind.CORRUPT or len(self.differences) < _MOST_KEPT:
            # A tuple, because a new list for each check would slow down right replies.
            self.differences = (*self.differences, Difference(kind, sequence, due, got))


class InFlight:
    """The messages in flight on a connection, in the order in which they were sent.

    Received bytes are compared with whole runs. Only where they differ are they compared message by
    message, to classify the wrong reply.

    Args:
        runs: the runs in flight, the oldest first.

    Attributes:
        runs: the runs in flight, the oldest first.
        count: number of messages in flight.
        bytes: number of bytes that are still to be received.
    """

    __slots__ = ("_differing", "_offset", "bytes", "count", "runs")

    def __init__(self, runs: Iterable[Run] = ()) -> None:
        self.runs: deque[Run] = deque()
        self.count = self.bytes = 0
        # Offset in the oldest run of the next byte to compare.
        self._offset = 0
        # The received part of a reply that differs, until it is complete; otherwise None.
        self._differing: bytearray | None = None
        for run in runs:
            self.add(run)

    def add(self, run: Run) -> None:
        """Add a run that is being sent."""
        self.runs.append(run)
        self.count += len(run.ends)
        self.bytes += len(run.data)

    def remove(self, run: Run) -> None:
        """Remove a datagram: a run of a single message, whose reply may arrive in any order."""
        self.runs.remove(run)
        self.count -= 1
        self.bytes -= len(run.data)

    @property
    def partial(self) -> bool:
        """True if a part of a reply was received, but not all of it."""
        return bool(self._differing) or (bool(self.runs) and self._offset > self.runs[0].begin)

    @property
    def oldest(self) -> int | None:
        """The sequence number of the oldest message in flight; None if there is none."""
        return self.runs[0].sequence + self.runs[0].answered if self.runs else None

    def failed(self, kind: FailureKind) -> int:
        """Return the number of failures of a kind with which the connection ends.

        No reply will come to any of the messages in flight. If there are none, the end itself is
        the failure. Of a reply that is wrong there is one.

        Args:
            kind: kind of the failure.
        """
        return 1 if kind in MISMATCHES else max(1, self.count)

    def begun(self, kind: FailureKind) -> Difference | None:
        """Return the reply of which only a part was received; None if there is none.

        Args:
            kind: kind of failure that it counts as.
        """
        if not self.partial:
            return None
        run = self.runs[0]
        begin, end = run.begin, run.ends[run.answered]
        got = run.data[begin : self._offset] if self._differing is None else bytes(self._differing)
        return Difference(kind, run.sequence + run.answered, run.data[begin:end], got)

    def take_run(self, data: bytes) -> Run | None:
        """Remove and return the oldest run, if the data is exactly the replies to all of it.

        Otherwise return None and change nothing; `check` then classifies the data.
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
        """Compare a stream's next bytes with the messages in flight, and remove answered messages.

        A corrupt reply of the right length is one wrong reply, and the stream stays in step. After
        any other wrong reply the next bytes cannot be attributed to a message.

        Args:
            payload: the messages of the test.
            connection: number of the connection.
            last: sequence number of the last message sent; -1 if none was.
            data: the received bytes.
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
        """Advance to an offset in the oldest run, and add the messages that this completes."""
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
        """Advance past right replies up to the first wrong one; return its position in the data.

        The number of messages that are compared at once doubles until they differ; then the first
        one that differs is found by bisection.
        """
        begin, ends, index = self._offset, run.ends, run.answered
        # The index of the first message that differs is at most this.
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
        """Compare the next message alone; return the position in the data after its reply."""
        run = self.runs[0]
        # The reply may have begun in data that was received earlier.
        begin, end = run.begin, run.ends[run.answered]
        due = run.data[begin:end]
        rest = data[position : position + end - self._offset]
        got = run.data[begin : self._offset] + rest
        if len(got) < len(due):
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
    """Compare received bytes with the only message in flight; see `InFlight.check`."""
    in_flight = InFlight([Run.of_one(sequence, message, 0)])
    return in_flight.check(payload, connection, sequence, reply)


def _are_equal(sent: bytes, offset: int, data: bytes, position: int, size: int) -> bool:
    """Return whether `size` sent bytes from an offset equal the received ones at a position."""
    if offset + size < len(sent):
        return sent.startswith(memoryview(data)[position : position + size], offset)
    return data.startswith(memoryview(sent)[offset : offset + size], position)
