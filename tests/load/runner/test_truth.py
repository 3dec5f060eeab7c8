"""The figures of `echo-load run` for services with known delays.

No other test asserts a time; these figures cannot be tested in any other way. A round trip wakes
four sleeping programs, and a busy machine may wake a program late. Therefore

- a figure is compared with the delays that the service had, not with those that were requested;
- no figure may be less than that, because a round trip takes at least as long as the service;
- a figure may be more by 2 % or 200 us, whichever is more, and by the sum of how much too long the
  service slept and of two round trips between idle programs, each at the same percentile and
  measured at the same time;
- another program may still delay the one and not the other. In that case it is measured again: an
  error of ours would be there each time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.certificates import make_certificates
from support.idle_round_trips import IdleRoundTrips
from support.known_delays import KnownDelays, ServiceLog
from support.processes import LOAD, StartServer, run

pytestmark = pytest.mark.alone

ATTEMPTS = 10
SUMS = 10_000
PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
STALL, PERIOD = 0.2, 1.0


def loaded(target: str, *arguments: object, code: int = 0) -> Any:
    """Return the result of a run."""
    ended = run([*LOAD, "run", target, *map(str, arguments), "--json"])
    assert ended.returncode == code, (ended.stderr.decode(), ended.stdout.decode())
    return json.loads(ended.stdout)


def at(percentile: float, nanoseconds: Sequence[int]) -> float:
    """Return a percentile in microseconds, computed as in a result."""
    rank = max(1, int(percentile / 100 * len(nanoseconds) + 0.5))
    return sorted(nanoseconds)[rank - 1] / 1e3


@dataclass(frozen=True)
class Machine:
    """The delays with which the machine woke programs, in nanoseconds.

    Attributes:
        wakes: how late the service woke up from each sleep.
        round_trips: round trips between two idle programs, from the instant at which each was due.
    """

    wakes: Sequence[int]
    round_trips: Sequence[int]

    def excess(self, percentile: float) -> float:
        """Return by how many microseconds the machine may lengthen a round trip.

        Sums are drawn at random: if one in five wake-ups is late, one round trip in two has a late
        one.
        """
        draw = random.Random(0).choices
        sums = map(sum, zip(*(draw(part, k=SUMS) for part in self._parts), strict=True))
        return at(percentile, list(sums))

    @property
    def _parts(self) -> tuple[Sequence[int], ...]:
        return self.wakes, self.round_trips, self.round_trips


def beyond(
    figures: Any,
    expectations: Sequence[int],
    machine: Machine,
    names: Sequence[str],
    *,
    queued: float = 0.0,
) -> list[str]:
    """Return the percentiles that are higher than allowed; check that none is too low.

    Args:
        figures: measured percentiles in microseconds.
        expectations: delays of the service in nanoseconds.
        machine: how late programs were woken during the measurement.
        names: names of the percentiles.
        queued: microseconds that the service took to work off its queue.
    """
    assert figures["count"] == len(expectations)
    found = []
    for name in names:
        percentile = PERCENTILES[name]
        expected = at(percentile, expectations)
        allowed = max(0.02 * expected, 200) + machine.excess(percentile) + queued
        assert figures[name] >= expected, name
        if figures[name] > expected + allowed:
            found.append(f"{name} {figures[name]:.0f} us, {expected:.0f} + {allowed:.0f} expected")
    return found


def once_true(measure: Callable[[], list[str]]) -> None:
    """Measure until every figure is within its limits, a few times at most."""
    found = [measure()]
    while found[-1] and len(found) < ATTEMPTS:
        found.append(measure())
    assert not found[-1], found


@pytest.mark.parametrize("engine", ["hub", "threads"])
@pytest.mark.parametrize(
    "pacing",
    [
        pytest.param(["-c", 4], id="closed"),
        # At constant intervals, every reply would arrive when the next message is due: the service
        # would spin for the one while the generator has to wake up for the other.
        pytest.param(["-c", 10, "--rate", 100, "--arrivals", "poisson"], id="open"),
    ],
)
def test_a_service_time_of_10_ms_is_measured(engine: str, pacing: list[object]) -> None:
    def measure() -> list[str]:
        with KnownDelays(delay=0.010) as service, IdleRoundTrips() as idle:
            result = loaded(service.target, "--engine", engine, *pacing, "-d", "1s")
            log = service.finish()
            machine = Machine(log.wakes, idle.nanoseconds())
        assert min(log.delays) >= 10_000_000
        return [
            f"{figures} {found}"
            for figures in ("response", "service")
            for found in beyond(
                result["latency_us"][figures], log.delays, machine, ["p50", "p90", "p99"]
            )
        ]

    once_true(measure)


@dataclass(frozen=True)
class Known:
    """The expected effects of stalls: messages due in a stall are answered at its end.

    Attributes:
        responses: response times in nanoseconds.
        queued: microseconds from the end of a stall until its last message was answered, because
            the service has to answer hundreds at once.
        kept_from_leaving: number of messages that were due when no connection was free.
    """

    responses: list[int]
    queued: float
    kept_from_leaving: int


def known(log: ServiceLog, rate: int, connections: int) -> Known:
    arrivals = sorted(log.arrivals)
    gap = 1e9 / rate
    # The instant at which the first was due, as no message arrives before it is due.
    origin = min(arrival - number * gap for number, arrival in enumerate(arrivals))
    dues = [int(origin + number * gap) for number in range(len(arrivals))]
    responses, queued = [], [0]
    for due, arrival in zip(dues, arrivals, strict=True):
        responses.append(sum(end - due for _, end in log.stalls if due < end <= arrival))
        queued += [arrival - end for begin, end in log.stalls if begin < due < end <= arrival]
    in_stalls = [sum(begin < due < end for due in dues) for begin, end in log.stalls]
    waiting = sum(max(0, due - connections) for due in in_stalls)
    return Known(responses, max(queued) / 1e3, waiting)


@pytest.mark.parametrize(
    ("engine", "connections", "rate"),
    [("hub", 1, 100), ("hub", 10, 100), ("hub", 100, 1000), ("threads", 10, 100)],
)
def test_all_messages_due_in_a_stall_are_late(engine: str, connections: int, rate: int) -> None:
    """Response times are free of coordinated omission: one message in five is due in a stall.

    Service times are not, because they leave out the time in which no connection was free.
    """

    def measure() -> list[str]:
        with KnownDelays(stall=STALL, period=PERIOD) as service, IdleRoundTrips() as idle:
            result = loaded(
                service.target, "--engine", engine, "-c", connections, "--rate", rate, "-d", "2s"
            )
            log = service.finish()
            machine = Machine(log.wakes, idle.nanoseconds())
        if len(log.stalls) < 2:
            return ["stalls"]
        response = result["latency_us"]["response"]
        by_hand = known(log, rate, connections)
        found = beyond(
            response, by_hand.responses, machine, list(PERCENTILES), queued=by_hand.queued
        )
        # Calculated by hand: the delays of messages due in a stall are distributed evenly.
        evenly = {"p90": STALL - 0.1 * PERIOD, "p99": STALL - 0.01 * PERIOD, "max": STALL}
        found += [name for name, time in evenly.items() if abs(response[name] - time * 1e6) > 2e4]
        # The generator did not delay the messages that had no free connection.
        lateness = result["generator"]["lateness_us"]
        if lateness["count"] > result["totals"]["messages"] - 0.9 * by_hand.kept_from_leaving:
            found.append("lateness")
        if connections == 1 and result["latency_us"]["service"]["p95"] > response["p95"] / 2:
            found.append("service p95")
        return found

    once_true(measure)


@pytest.mark.parametrize("engine", ["hub", "threads"])
@pytest.mark.parametrize("pacing", [[], ["--rate", 200]], ids=["closed", "open"])
def test_connecting_and_the_first_byte_are_distinguished_from_round_trips(
    engine: str, pacing: list[object]
) -> None:
    def measure() -> list[str]:
        with KnownDelays(first_delay=0.030) as service:
            result = loaded(service.target, "--engine", engine, "-c", 10, *pacing, "-d", "0.4s")
        latency = result["latency_us"]
        assert latency["connect"]["count"] == latency["first_byte"]["count"] == 10
        assert latency["first_byte"]["p50"] >= 30_000
        assert latency["response"]["max"] >= 30_000
        assert latency["handshake"]["count"] == 0
        limit = latency["first_byte"]["p50"] / 2
        return [name for name in ("connect", "response") if latency[name]["p50"] >= limit]

    once_true(measure)


def test_handshakes_are_distinguished_from_connecting(
    start_server: StartServer, tmp_path: Path
) -> None:
    certificates = make_certificates(tmp_path)
    server = start_server("--listen", "tls://127.0.0.1:0", *certificates.options)
    arguments = ("--tls-ca", certificates.authority, "-c", 8, "-n", 400, "--churn", 10)
    result = loaded(f"tls://127.0.0.1:{server.port}", *arguments)
    latency = result["latency_us"]
    counts = {name: figures["count"] for name, figures in latency.items()}
    assert result["totals"]["connections_opened"] == 40
    assert counts["handshake"] == counts["connect"] == counts["first_byte"] == 40
    assert counts["response"] == 400
    assert latency["handshake"]["p50"] > 0


@pytest.mark.parametrize(("engine", "messages"), [("hub", 0), ("hub", 1), ("threads", 1)])
def test_a_starved_connection_is_visible_in_the_spread(engine: str, messages: int) -> None:
    with KnownDelays(starve_after=messages) as service:
        arguments = ("--engine", engine, "-c", 5, "-d", "1s", "--timeout", "2s")
        result = loaded(service.target, *arguments, code=1)
    spread = result["spread"]
    assert spread["connections"] == 5
    assert spread["least"] == messages
    assert spread["starved"] == (messages == 0)
    assert spread["median"] > 10
    assert spread["fairness"] < 0.9
    assert result["totals"]["errors"] == {"no_reply": 1}
