"""Each kind of fault that the server injects is detected."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, pairwise

import pytest
from hdrh.histogram import HdrHistogram

from echo_load.results.result import Latency, Result
from echo_server.faults import Fault, FaultPlan
from support.misbehaving import Behaviour, Service, doubled, ends_after, silent_after
from support.processes import DEADLINE, EchoServerProcess, StartServer, loaded

ADMIN = ("--admin", "127.0.0.1:0")
UDP = ("--listen", "udp://127.0.0.1:0")
ENGINES = ("hub", "threads")
ENDING = (("truncate", "truncated"), ("close", "closed"), ("reset", "reset"))


def injected(server: EchoServerProcess, kind: str) -> float:
    """The number of times that a fault was injected; it must have been, and no other."""
    of_kind = server.metric("faults_injected_total", kind=kind)
    assert of_kind == server.metric("faults_injected_total") > 0
    return of_kind


def at_least(latency: Latency, seconds: float) -> int:
    """The number of latencies that are at least that long, to the histogram's three digits."""
    histogram = HdrHistogram.decode(latency.histogram)
    lowest = 0.99 * seconds * 1e9
    found: int = sum(
        one.count_added_in_this_iter_step
        for one in histogram.get_recorded_iterator()
        if one.value_iterated_to >= lowest
    )
    return found


def seed_for(fault: str, connections: Sequence[int], *, never: Iterable[int]) -> int:
    """A seed with which a fault is injected, but never at these reads of a connection.

    Args:
        fault: the option.
        connections: how many reads each has.
        never: the reads, from 0.
    """

    def suits(seed: int) -> bool:
        plan = FaultPlan([Fault.parse(fault)], seed)
        strikes = [
            (number, read)
            for number, reads in enumerate(connections)
            for read in range(reads)
            if plan.choose(number, read) is not None
        ]
        in_a_row = any(a[0] == b[0] and b[1] - a[1] == 1 for a, b in pairwise(strikes))
        return len(strikes) >= 3 and not in_a_row and not {read for _, read in strikes} & spared

    spared = set(never)
    return next(seed for seed in count() if suits(seed))


def whole(result: Result, messages: int) -> None:
    """Check that nothing but latency is wrong."""
    totals = result.totals
    assert (totals.messages, totals.errors) == (messages, {})
    assert totals.bytes_sent == totals.bytes_received == 64 * messages
    assert result.passed


@pytest.mark.slow
@pytest.mark.parametrize("engine", [*ENGINES, "greenlets"])
def test_corrupt(start_server: StartServer, engine: str) -> None:
    server = start_server("--fault", "corrupt@10%", *ADMIN)
    code, result = loaded("run", server.url, "--engine", engine, "-c", "5", "-n", "500")
    totals = result.totals
    assert totals.errors == {"corrupt": injected(server, "corrupt")}
    assert (code, totals.messages, totals.connections_lost) == (1, 500, 0)
    assert totals.bytes_sent == totals.bytes_received == 64 * 500


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "error", "engine"),
    [
        *((*names, engine) for names in ENDING for engine in ENGINES),
        ("reset", "reset", "greenlets"),
    ],
)
def test_what_ends_a_connection(
    start_server: StartServer, engine: str, kind: str, error: str
) -> None:
    server = start_server("--fault", f"{kind}@10%", *ADMIN)
    code, result = loaded("run", server.url, "--engine", engine, "-c", "20", "-n", "200")
    strikes, totals = injected(server, kind), result.totals
    assert totals.errors == {error: strikes}
    assert (code, totals.connections_lost, totals.messages) == (1, strikes, 200 - strikes)
    # A connection that is lost at its last message is not reopened.
    assert 20 < totals.connections_opened <= 20 + strikes
    assert totals.connections_opened == server.metric("connections_accepted_total")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_delayed_beyond_the_timeout(start_server: StartServer, engine: str) -> None:
    server = start_server("--fault", "delay=1h@10%", *ADMIN)
    code, result = loaded(
        *("run", server.url, "--engine", engine, "-c", "30", "-n", "60", "--timeout", "2s")
    )
    strikes, totals = injected(server, "delay"), result.totals
    assert totals.errors == {"no_reply": strikes}
    assert (code, totals.connections_lost, totals.messages) == (1, strikes, 60 - strikes)


@pytest.mark.parametrize(
    ("kind", "behaviour"),
    [
        ("no_reply", silent_after(20)),
        ("closed", ends_after(20, 10, by_reset=False)),
        ("reset", ends_after(20, 10, by_reset=True)),
    ],
)
@pytest.mark.parametrize("engine", [*ENGINES, "greenlets"])
def test_each_message_in_flight_has_failed_when_a_connection_ends(
    engine: str, kind: str, behaviour: Behaviour
) -> None:
    with Service(behaviour) as service:
        code, result = loaded(
            *("run", service.target, "--engine", engine, "-c", "1", "-n", "60", "--pipeline", "10"),
            *("--timeout", "500ms", "--no-reconnect", "--threshold", "errors<20%"),
        )
    totals = result.totals
    assert (totals.messages, totals.errors, totals.connections_lost) == (20, {kind: 10}, 1)
    assert totals.bytes_sent == 64 * (totals.messages + 10)
    assert totals.attempts == 30
    assert (code, result.thresholds[0].value) == (99, 10 / 30)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_delayed(start_server: StartServer, engine: str) -> None:
    server = start_server("--fault", "delay=2s@10%", *ADMIN)
    _, result = loaded("run", server.url, "--engine", engine, "-c", "20", "-n", "60")
    whole(result, 60)
    assert at_least(result.latency_us.response, 2) == injected(server, "delay")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_stalled(start_server: StartServer, engine: str) -> None:
    """The reply passes, and the message after it waits: the last must not be stalled.

    It waits for the rest of the stall when it is sent, which is shorter on a busy machine.
    """
    fault = "stall=3s@10%"
    seed = seed_for(fault, [5] * 20, never=[4])
    server = start_server("--fault", fault, "--fault-seed", str(seed), *ADMIN)
    _, result = loaded("run", server.url, "--engine", engine, "-c", "20", "-n", "100")
    whole(result, 100)
    assert at_least(result.latency_us.response, 1.5) == injected(server, "stall")


@pytest.mark.slow
def test_dropped_datagrams(start_server: StartServer) -> None:
    server = start_server(*UDP, "--fault", "drop@10%", *ADMIN)
    code, result = loaded("run", server.url, "-c", "50", "-n", "200", "--timeout", "2s")
    strikes, totals = injected(server, "drop"), result.totals
    assert totals.errors == {"lost": strikes}
    assert (code, totals.messages, totals.connections_lost) == (1, 200 - strikes, 0)
    assert (totals.datagrams_sent, totals.datagrams_received) == (200, 200 - strikes)
    assert totals.loss_burst is not None
    assert bool(strikes) <= totals.loss_burst <= min(strikes, 4)
    assert totals.jitter_us is not None
    assert totals.jitter_us > 0


@pytest.mark.slow
def test_datagrams_lost_in_a_row_and_their_threshold(start_server: StartServer) -> None:
    server = start_server(*UDP, "--fault", "drop@100%", *ADMIN)
    arguments = ("-c", "2", "-n", "12", "--pipeline", "6", "--timeout", "300ms")
    limits = ("--threshold", "loss_burst<6", "--threshold", "jitter<1s")
    _, result = loaded("run", server.url, *arguments, *limits)
    assert result.totals.errors == {"lost": 12}
    # On each of two connections.
    assert (result.totals.loss_burst, result.totals.jitter_us) == (6, None)
    assert [(one.value, one.passed) for one in result.thresholds] == [(6, False), (None, False)]


@pytest.mark.slow
def test_an_open_loop_goes_on_when_every_connection_has_lost_a_datagram(
    start_server: StartServer,
) -> None:
    """No reply comes then to trigger the sending of due messages."""
    server = start_server(*UDP, "--fault", "drop@50%", *ADMIN)
    _, result = loaded(
        *("run", server.url, "-c", "2", "--rate", "1000", "-n", "12", "--timeout", "1s")
    )
    strikes, totals = injected(server, "drop"), result.totals
    assert totals.datagrams_sent == 12
    assert (totals.errors, totals.messages) == ({"lost": strikes}, 12 - strikes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "fault", "engine"),
    [("udp", "drop@20%", "hub"), *(("tcp", "reset@20%", engine) for engine in ENGINES)],
)
def test_what_was_struck_is_no_round_trip(
    start_server: StartServer, scheme: str, fault: str, engine: str
) -> None:
    server = start_server("--listen", f"{scheme}://127.0.0.1:0", "--fault", fault)
    _, result = loaded(
        *("run", server.url, "--engine", engine, "-c", "1", "-n", "20", "--timeout", "100ms")
    )
    assert result.spread.least == result.spread.most == result.totals.messages < 20


@pytest.mark.parametrize("engine", [*ENGINES, "greenlets"])
@pytest.mark.parametrize("pacing", [(), ("--pipeline", "2"), ("-r", "100")])
def test_a_right_reply_counts_although_more_bytes_follow(
    engine: str, pacing: tuple[str, ...]
) -> None:
    with Service(doubled) as service:
        code, result = loaded(
            *("run", service.target, "--engine", engine, "-c", "1", "-n", "1", *pacing)
        )
    totals = result.totals
    assert (code, totals.errors, totals.connections_lost) == (1, {"duplicated": 1}, 1)
    assert (totals.messages, totals.attempts, totals.bytes_received) == (1, 2, 128)
    assert result.latency_us.response.count == result.latency_us.first_byte.count == 1
    assert "no message came back" not in result.reasons


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["1", "5"])
def test_duplicated_datagrams(start_server: StartServer, pipeline: str) -> None:
    """The last must not be duplicated, or the test may end before its duplicate comes."""
    fault = "duplicate@10%"
    seed = seed_for(fault, [200], never=[199])
    server = start_server(*UDP, "--fault", fault, "--fault-seed", str(seed), *ADMIN)
    code, result = loaded("run", server.url, "-c", "1", "-n", "200", "--pipeline", pipeline)
    strikes, totals = injected(server, "duplicate"), result.totals
    assert totals.errors == {"duplicated": strikes}
    assert (code, totals.messages) == (1, 200)
    assert (totals.datagrams_sent, totals.datagrams_received) == (200, 200 + strikes)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "error"), [("corrupt", "corrupt"), ("truncate", "truncated")])
def test_wrong_datagrams(start_server: StartServer, kind: str, error: str) -> None:
    server = start_server(*UDP, "--fault", f"{kind}@10%", *ADMIN)
    code, result = loaded("run", server.url, "-c", "5", "-n", "200")
    totals = result.totals
    assert totals.errors == {error: injected(server, kind)}
    assert (code, totals.messages, totals.connections_lost) == (1, 200, 0)
    assert totals.datagrams_sent == totals.datagrams_received == 200


@pytest.mark.slow
def test_reordered_datagrams(start_server: StartServer) -> None:
    """A datagram is overtaken: the next must come, and not be held back itself."""
    fault = "reorder@10%"
    seed = seed_for(fault, [60], never=[59])
    server = start_server(*UDP, "--fault", fault, "--fault-seed", str(seed), *ADMIN)
    # With several in flight, nothing has to time out.
    code, result = loaded("run", server.url, "-c", "1", "-n", "60", "--pipeline", "8")
    totals = result.totals
    assert totals.errors == {"reordered": injected(server, "reorder")}
    assert totals.datagrams_sent == totals.datagrams_received == 60
    assert code == 1


@contextmanager
def overtaken_datagrams(*numbers: int) -> Iterator[str]:
    """Echo datagrams, but those with these numbers only after the next one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind(("127.0.0.1", 0))
        echo.settimeout(DEADLINE)
        over = threading.Event()

        def serve() -> None:
            held = b""
            for number in count():
                data, peer = echo.recvfrom(65536)
                if over.is_set():
                    return
                if number in numbers:
                    held = data
                    continue
                echo.sendto(data, peer)
                if held:
                    echo.sendto(held, peer)
                    held = b""

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield "udp://{}:{}".format(*echo.getsockname())
        finally:
            over.set()
            echo.sendto(b"", echo.getsockname())
            thread.join(DEADLINE)


@pytest.mark.slow
def test_a_datagram_that_comes_when_it_counts_as_lost() -> None:
    """With one in flight, the next leaves when this one counts as lost, and is answered first."""
    with overtaken_datagrams(10, 30) as url:
        code, result = loaded("run", url, "-c", "1", "-n", "60", "--timeout", "2s")
    totals = result.totals
    assert totals.errors == {"reordered": 2}
    assert totals.datagrams_sent == totals.datagrams_received == 60
    assert code == 1


@pytest.mark.slow
def test_delayed_datagrams(start_server: StartServer) -> None:
    server = start_server(*UDP, "--fault", "delay=2s@10%", *ADMIN)
    _, result = loaded("run", server.url, "-c", "20", "-n", "60", "--timeout", "10s")
    whole(result, 60)
    assert at_least(result.latency_us.response, 2) == injected(server, "delay")
