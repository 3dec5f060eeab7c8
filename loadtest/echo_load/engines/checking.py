"""Compares what comes back on a stream with what is under way on it. No input or output here."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from echo_client.failure_kinds import FailureKind
from echo_load.plan.payload import Payload


class UnderWay(NamedTuple):
    """A message whose reply is not in yet.

    Attributes:
        sequence: its number in its connection.
        message: what was sent.
        due_ns: when it was to leave, on the monotonic clock.
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
        completed: messages whose replies are in, right or wrong.
        wrong: what is wrong, a name for each wrong reply.
        completed_wrong: how many of the completed these are.
        rest: the first part of the next reply.
        in_step: whether the next byte can be told to belong to the next message.
    """

    completed: list[UnderWay]
    wrong: list[FailureKind]
    rest: bytes
    in_step: bool
    completed_wrong: int = 0


def check(
    payload: Payload, connection: int, last: int, under_way: deque[UnderWay], data: bytes
) -> Checked:
    """Compare a stream's next bytes with the messages under way, and take those out that are in.

    A reply of the right length with wrong bytes is one wrong reply, and the stream is still in
    step. After any other wrong one it is not, and there is no telling what the next bytes are.

    Args:
        payload: what is sent.
        connection: the number of the connection.
        last: the number of the message that was sent last.
        under_way: its messages, the oldest first; changed.
        data: what came, behind what was left over before.
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
