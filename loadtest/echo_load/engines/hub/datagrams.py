"""Datagrams other than the one that was due: lost, late, duplicated, reordered or wrong."""

from __future__ import annotations

from collections import Counter

from echo_client.failure_kinds import FailureKind
from echo_load.engines.checking import InFlight, Run
from echo_load.engines.hub.connection import HubConnection
from echo_load.measure.counts import Counts
from echo_load.plan.payload import Payload

# The most datagrams of a connection that count as lost and may still come late.
_MOST_MISSING = 1024


def take(payload: Payload, connection: HubConnection, data: bytes, counts: Counts) -> Run | None:
    """Classify a datagram, and count what is wrong with it.

    Args:
        payload: what is sent.
        connection: where it came; the message that it answers is removed from those in flight.
        data: the datagram.
        counts: where errors are counted; a datagram that counted as lost and came late is counted
            as reordered or as a timeout instead.

    Returns:
        The message that it answers, rightly or wrongly; None if that is not in flight.
    """
    in_flight = connection.listed()
    found = next((one for one in in_flight.runs if one.data == data), None)
    if found is None:
        found = _not_in_flight(payload, connection, in_flight, data, counts.errors)
        counts.wrong += found is not None
    elif found.sequence < connection.highest:
        counts.errors[FailureKind.REORDERED] += 1
        counts.wrong += 1
    if found is not None:
        in_flight.remove(found)
        connection.highest = max(connection.highest, found.sequence)
    return found


def expire(connection: HubConnection, before_ns: int, errors: Counter[str]) -> int:
    """Count datagrams as lost that left before an instant and were not answered.

    Args:
        connection: whose datagrams.
        before_ns: the instant, on the monotonic clock.
        errors: where they are counted.

    Returns:
        How many were lost.
    """
    in_flight = connection.listed()
    if connection.missing is None:
        connection.missing = {}
    expired = 0
    while in_flight.runs and (oldest := in_flight.runs[0]).sent_ns < before_ns:
        in_flight.remove(oldest)
        connection.missing[oldest.sequence] = None
        expired += 1
    while len(connection.missing) > _MOST_MISSING:
        del connection.missing[next(iter(connection.missing))]
    errors[FailureKind.LOST] += expired
    return expired


def _not_in_flight(
    payload: Payload,
    connection: HubConnection,
    in_flight: InFlight,
    data: bytes,
    errors: Counter[str],
) -> Run | None:
    number = connection.number
    stamp = payload.stamp(data)
    if stamp is not None and stamp.connection == number and data == payload.message(*stamp):
        if connection.missing is not None and stamp.sequence in connection.missing:
            del connection.missing[stamp.sequence]
            errors[FailureKind.LOST] -= 1
            errors[
                FailureKind.REORDERED
                if stamp.sequence < connection.highest
                else FailureKind.TIMEOUT
            ] += 1
        else:
            errors[FailureKind.DUPLICATED] += 1
        return None
    if not in_flight.runs:
        last = connection.sequence - 1
        errors[payload.diagnose_surplus(number, last, data) if data else FailureKind.FOREIGN] += 1
        return None
    runs = in_flight.runs
    struck = next((one for one in runs if stamp == (number, one.sequence)), runs[0])
    wrong = payload.diagnose(number, struck.sequence, data)
    errors[wrong] += 1
    return struck if wrong in {FailureKind.CORRUPT, FailureKind.TRUNCATED} else None
