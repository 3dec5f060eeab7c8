"""Datagrams other than the one that was due: lost, late, duplicated, reordered or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from echo_client.failure_kinds import FailureKind
from echo_load.engines.checking import Difference, InFlight, Run
from echo_load.engines.evidence import Evidence
from echo_load.engines.hub.connection import HubConnection
from echo_load.measure.counts import Counts
from echo_load.plan.payload import Payload

# The most datagrams of a connection that count as lost and may still come late.
_MOST_MISSING = 1024
# Datagrams are similar if a smaller share of their bits differs; of random ones, half differ.
_LIKE = 0.25


def take(
    payload: Payload, connection: HubConnection, data: bytes, counts: Counts, evidence: Evidence
) -> Run | None:
    """Classify a datagram, and count what is wrong with it.

    Args:
        payload: what is sent.
        connection: where it came; the message that it answers is removed from those in flight.
        data: the datagram.
        counts: where errors are counted; a datagram that counted as lost and came late is counted
            as reordered or as a timeout instead.
        evidence: where the first errors are kept.

    Returns:
        The message that it answers, rightly or wrongly; None if that is not in flight.
    """
    in_flight = connection.listed()
    found = next((one for one in in_flight.runs if one.data == data), None)
    if found is None:
        found, wrong = _not_in_flight(payload, connection, in_flight, data, counts)
        evidence.add_reply(connection.number, wrong)
        counts.wrong += found is not None
    elif found.sequence < connection.highest:
        counts.errors[FailureKind.REORDERED] += 1
        counts.wrong += 1
        note = f"it came after the reply to message {connection.highest}"
        reordered = Difference(FailureKind.REORDERED, found.sequence, data, data, note)
        evidence.add_reply(connection.number, reordered)
    if found is not None:
        in_flight.remove(found)
        connection.highest = max(connection.highest, found.sequence)
    return found


def note_round_trips(
    connections: Sequence[HubConnection], round_trips_ns: Sequence[int], counts: Counts
) -> None:
    """Add a round trip each to the jitter of connections (RFC 3550, section 6.4.1).

    Args:
        connections: where replies came; those that are not UDP are passed over.
        round_trips_ns: the round trip of each in nanoseconds.
        counts: where the jitter is summed.
    """
    total = jitters = 0
    for connection, round_trip_ns in zip(connections, round_trips_ns, strict=True):
        if connection.datagram:
            before = connection.round_trip_ns
            connection.round_trip_ns = round_trip_ns
            if before:
                # J += (|D| - J) / 16, in whole nanoseconds.
                jitter = connection.jitter_ns
                connection.jitter_ns = jitter = jitter + (
                    (abs(round_trip_ns - before) - jitter) >> 4
                )
                total += jitter
                jitters += 1
    counts.jitter_ns += total
    counts.jitters += jitters


def expire(connection: HubConnection, before_ns: int, counts: Counts) -> int:
    """Count datagrams as lost that left before an instant and were not answered.

    Args:
        connection: whose datagrams.
        before_ns: the instant, on the monotonic clock.
        counts: where they are counted, and the bursts that they form.

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
        _add_to_burst(connection, oldest.sequence, counts.bursts)
        expired += 1
    while len(connection.missing) > _MOST_MISSING:
        del connection.missing[next(iter(connection.missing))]
    counts.errors[FailureKind.LOST] += expired
    return expired


def _add_to_burst(connection: HubConnection, sequence: int, bursts: Counter[int]) -> None:
    """Count a lost datagram with those lost directly before it."""
    if connection.burst and sequence == connection.last_missing + 1:
        bursts[connection.burst] -= 1
        connection.burst += 1
    else:
        connection.burst = 1
    connection.last_missing = sequence
    bursts[connection.burst] += 1


def _take_from_burst(connection: HubConnection, sequence: int, bursts: Counter[int]) -> None:
    """Divide the burst of a datagram that came late after all; it is still among the missing."""
    missing = connection.missing or {}
    last = connection.last_missing
    is_latest = last - connection.burst < sequence <= last
    if is_latest:
        before = sequence - (last - connection.burst + 1)
        after = last - sequence
    else:
        before = _missing_beside(missing, sequence, -1)
        after = _missing_beside(missing, sequence, 1)
    if bursts[before + 1 + after] <= 0:
        # Its beginning is too long ago to be remembered.
        return
    bursts[before + 1 + after] -= 1
    for length in (before, after):
        if length:
            bursts[length] += 1
    if is_latest:
        # Without one after it, the next loss does not follow directly.
        connection.burst = after


def _missing_beside(missing: dict[int, None], sequence: int, step: int) -> int:
    """Return how many datagrams directly before or after a sequence are missing."""
    count = 0
    while sequence + step * (count + 1) in missing:
        count += 1
    return count


def _not_in_flight(
    payload: Payload,
    connection: HubConnection,
    in_flight: InFlight,
    data: bytes,
    counts: Counts,
) -> tuple[Run | None, Difference]:
    """Count a datagram that is not exactly a reply to a message in flight.

    Returns:
        The message in flight that it answers, or None; and what is wrong with it.
    """
    number = connection.number
    stamp = payload.stamp(data)
    if stamp is not None and stamp.connection == number and data == payload.message(*stamp):
        return None, _not_now(connection, stamp.sequence, data, counts)
    if not in_flight.runs:
        last = connection.sequence - 1
        wrong = payload.diagnose_surplus(number, last, data) if data else FailureKind.FOREIGN
        counts.errors[wrong] += 1
        return None, Difference(wrong, last, b"", data)
    runs = in_flight.runs
    struck = next((one for one in runs if stamp == (number, one.sequence)), None)
    struck = struck or _most_like(runs, data)
    wrong = payload.diagnose(number, struck.sequence, data)
    counts.errors[wrong] += 1
    answers = wrong in {FailureKind.CORRUPT, FailureKind.TRUNCATED}
    return struck if answers else None, Difference(wrong, struck.sequence, struck.data, data)


def _most_like(runs: Sequence[Run], data: bytes) -> Run:
    """Return the message that a corrupt datagram without a stamp answers: the most similar one.

    Without a similar one it is the oldest.
    """
    got = int.from_bytes(data)
    least, found = len(data) * 8 * _LIKE, runs[0]
    for run in runs:
        differing = (int.from_bytes(run.data) ^ got).bit_count()
        if differing < least and len(run.data) == len(data):
            least, found = differing, run
    return found


def _not_now(connection: HubConnection, sequence: int, data: bytes, counts: Counts) -> Difference:
    """Count a right reply to a message of the connection that is not in flight any more."""
    if connection.missing is None or sequence not in connection.missing:
        counts.errors[FailureKind.DUPLICATED] += 1
        note = f"the reply to message {sequence} came again"
        return Difference(FailureKind.DUPLICATED, sequence, b"", data, note)
    _take_from_burst(connection, sequence, counts.bursts)
    del connection.missing[sequence]
    counts.errors[FailureKind.LOST] -= 1
    note, kind = "it came after its timeout", FailureKind.TIMEOUT
    if sequence < connection.highest:
        note += f", and after the reply to message {connection.highest}"
        kind = FailureKind.REORDERED
    counts.errors[kind] += 1
    return Difference(kind, sequence, data, data, note)
