"""Outages from the outcomes of probes."""

from __future__ import annotations

from echo_load.limits.outages import NEW_CONNECTIONS, OutageLog


def test_a_silence_lasts_from_the_first_unanswered_probe_to_the_first_reply() -> None:
    log = OutageLog(5)
    log.answered(0, 1.0, 1.01)
    # Probes of 1.1 and 1.2 time out after 1 s; the target answers again at 2.3.
    log.failed(1, 1.1, "timeout")
    log.failed(NEW_CONNECTIONS, 1.2, "connect_timeout")
    assert log.is_down
    log.answered(2, 1.5, 2.3)
    (outage,) = log.outages
    assert (outage.begin, outage.end, outage.kind, outage.connections) == (1.1, 2.3, "silent", 1)
    assert not outage.partial
    # A failure that only becomes known now belongs to the same outage.
    log.failed(3, 1.4, "timeout")
    assert (len(log.outages), log.outages[0].end) == (1, 2.3)


def test_a_reply_that_came_before_the_failures_are_known_ends_the_outage() -> None:
    log = OutageLog(5)
    log.answered(0, 1.5, 2.3)
    log.failed(1, 1.4, "timeout")
    log.failed(2, 1.45, "timeout")
    (outage,) = log.outages
    assert (outage.begin, outage.end) == (1.4, 2.3)


def test_a_failure_after_a_recovery_is_another_outage() -> None:
    log = OutageLog(5)
    for begin in (1.0, 2.0):
        log.failed(0, begin, "closed")
        log.failed(0, begin + 0.1, "refused")
        log.answered(0, begin + 0.2, begin + 0.21)
    assert [(one.begin, one.end) for one in log.outages] == [(1.0, 1.21), (2.0, 2.21)]
    assert {one.kind for one in log.outages} == {"refused"}


def test_an_outage_of_some_connections_is_one_and_partial() -> None:
    """Connection 1 is silent from 1.0 to 3.1; connection 0 is answered all the time."""
    log = OutageLog(5)
    log.answered(1, 0.9, 0.91)
    for tenth in range(10, 32):
        log.answered(0, tenth / 10, tenth / 10 + 0.01)
        if tenth in (20, 30):
            log.failed(1, tenth / 10 - 1, "timeout")
    assert log.is_down
    log.answered(1, 3.0, 3.1)
    (outage,) = log.outages
    assert (outage.begin, outage.end, outage.partial, outage.connections) == (1.0, 3.1, True, 1)


def test_broken_connections_name_an_outage_only_if_nothing_else_failed() -> None:
    log = OutageLog(5)
    for slot in range(5):
        log.failed(slot, 1.0, "reset")
    kinds = [log.outages[0].kind]
    log.failed(NEW_CONNECTIONS, 1.1, "refused")
    assert [*kinds, log.outages[0].kind] == ["reset", "refused"]


def test_every_way_of_a_wrong_reply_is_wrong() -> None:
    log = OutageLog(5)
    log.failed(0, 1.0, "corrupt")
    log.failed(0, 1.1, "truncated")
    assert log.outages[0].kind == "wrong"
