"""The classification of datagrams: lost, late, duplicated, reordered or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from echo_client.failure_kinds import FailureKind
from echo_load.engines.checking import Difference, InFlight, Run
from echo_load.engines.evidence import Evidence
from echo_load.engines.hub.connection import HubConnection
from echo_load.measure.counts import Counts
from echo_load.plan.payload import Payload

# Number of lost datagrams of a connection that are remembered, because they may still arrive late.
_MOST_MISSING = 1024
# Datagrams are similar if a smaller share of their bits differs; of random bits, half differ.
_SIMILAR_SHARE = 0.25


def take(
    payload: Payload, connection: HubConnection, data: bytes, counts: Counts, evidence: Evidence
) -> Run | None:
    """Classify a received datagram, and count the failure if it is wrong.

    Args:
        payload: messages of the test.
        connection: its connection. The message that it answers is removed from those in flight.
        data: the datagram.
        counts: counts the failure. A datagram that counted as lost and arrives late is counted as
            reordered or as a timeout instead.
        evidence: keeps the first failures.

    Returns:
        The message in flight that it answers, rightly or wrongly; None if it answers none.
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
    """Update the jitter of connections with one round trip each (RFC 3550, section 6.4.1).

    Args:
        connections: connections that received a reply; those not over UDP are ignored.
        round_trips_ns: round trip of each connection in nanoseconds.
        counts: sums the jitter.
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
    """Count datagrams as lost that were sent before an instant and are still in flight.

    Args:
        connection: their connection.
        before_ns: the instant in nanoseconds of the monotonic clock.
        counts: counts them, and their bursts.

    Returns:
        The number of lost datagrams.
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
    """Add a lost datagram to the burst of those directly before it, or begin a new burst."""
    if connection.burst and sequence == connection.last_missing + 1:
        bursts[connection.burst] -= 1
        connection.burst += 1
    else:
        connection.burst = 1
    connection.last_missing = sequence
    bursts[connection.burst] += 1


def _take_from_burst(connection: HubConnection, sequence: int, bursts: Counter[int]) -> None:
    """Split the burst of a datagram that arrived late; it must still be in `missing`."""
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
        # A part of the burst is too long ago to be in `missing`.
        return
    bursts[before + 1 + after] -= 1
    for length in (before, after):
        if length:
            bursts[length] += 1
    if is_latest:
        # If it was the last datagram of the burst, the next loss begins a new one.
        connection.burst = after


def _missing_beside(missing: dict[int, None], sequence: int, step: int) -> int:
    """Return the number of missing datagrams directly before (step -1) or after (1) a sequence."""
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
    """Count the failure of a datagram that is not the right reply to any message in flight.

    Returns:
        The message in flight that it answers wrongly, or None; and the difference.
    """
    number = connection.number
    stamp = payload.stamp(data)
    if stamp is not None and stamp.connection == number and data == payload.message(*stamp):
        return None, _untimely(connection, stamp.sequence, data, counts)
    if not in_flight.runs:
        last = connection.sequence - 1
        wrong = payload.diagnose_surplus(number, last, data) if data else FailureKind.FOREIGN
        counts.errors[wrong] += 1
        return None, Difference(wrong, last, b"", data)
    runs = in_flight.runs
    damaged = next((one for one in runs if stamp == (number, one.sequence)), None)
    damaged = damaged or _most_similar(runs, data)
    wrong = payload.diagnose(number, damaged.sequence, data)
    counts.errors[wrong] += 1
    answers = wrong in {FailureKind.CORRUPT, FailureKind.TRUNCATED}
    return damaged if answers else None, Difference(wrong, damaged.sequence, damaged.data, data)


def _most_similar(runs: Sequence[Run], data: bytes) -> Run:
    """Return the message that a corrupt datagram without a stamp answers.

    It is the most similar one of the same size, or the oldest one if none is similar.
    """
    got = int.from_bytes(data)
    least, found = len(data) * 8 * _SIMILAR_SHARE, runs[0]
    for run in runs:
        differing = (int.from_bytes(run.data) ^ got).bit_count()
        if differing < least and len(run.data) == len(data):
            least, found = differing, run
    return found


def _untimely(connection: HubConnection, sequence: int, data: bytes, counts: Counts) -> Difference:
    """Count a right reply that arrives again, or after its message has counted as lost."""
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
