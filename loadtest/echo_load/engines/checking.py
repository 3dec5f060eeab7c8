"""Compares what comes back on a stream with the messages in flight on it, without any I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from echo_client.failure_kinds import FailureKind
from echo_load.plan.payload import Payload


class UnderWay(NamedTuple):
    """A message in flight.

    Attributes:
        sequence: its number within its connection.
        message: what was sent.
        due_ns: when it was due, on the monotonic clock.
        sent_ns: when it left.
    """

    sequence: int
    message: bytes
    due_ns: int
    sent_ns: int


@dataclass(slots=True)
class Checked:
    """The result of checking some bytes that came back.

    Attributes:
        completed: messages whose replies have arrived, right or wrong.
        wrong: the kind of failure of each wrong reply.
        completed_wrong: how many of `completed` had a wrong reply.
        rest: the first part of the next reply.
        in_step: whether the next byte certainly belongs to the next reply.
    """

    completed: list[UnderWay]
    wrong: list[FailureKind]
    rest: bytes
    in_step: bool
    completed_wrong: int = 0


def check(
    payload: Payload, connection: int, last: int, under_way: deque[UnderWay], data: bytes
) -> Checked:
    """Compare a stream's next bytes with the messages in flight, and remove the answered ones.

    A corrupt reply of the right length is one wrong reply, and the stream stays in step. After any
    other wrong reply it is not, and the next bytes cannot be attributed to a message.

    Args:
        payload: what is sent.
        connection: the number of the connection.
        last: the sequence number of the last message sent.
        under_way: its messages in flight, the oldest first; modified.
        data: what came, appended to the rest of the last check.
    """
    checked = Checked([], [], b"", in_step=True)
    position = 0
    while under_way and position < len(data):
        due = under_way[0]
        got = data[position : position + len(due.message)]
        if len(got) < len(due.message):
            break
        position += len(got)
        if got != due.message:
            wrong = payload.diagnose(connection, due.sequence, got)
            checked.wrong.append(wrong)
            if wrong != FailureKind.CORRUPT:
                checked.in_step = False
                return checked
            checked.completed_wrong += 1
        checked.completed.append(under_way.popleft())
    checked.rest = data[position:]
    if checked.rest and not under_way:
        checked.wrong.append(payload.diagnose_surplus(connection, last, checked.rest))
        checked.rest = b""
        checked.in_step = False
    return checked
