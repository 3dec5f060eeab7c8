"""A test lasts as long as planned, and its rates are based on that time."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from socket import MSG_MORE, socket
from threading import Event

import msgspec
import pytest

from echo_load.results.result import Result, Totals
from support.misbehaving import Behaviour, Service, silent, silent_after
from support.processes import DEADLINE, LOAD, StartServer, environment, loaded, until

ENGINES = ("hub", "threads", "greenlets")


def ends_after_one(connection: socket, _over: Event) -> None:
    """Echo a message, then close while no other message is due."""
    # Its segment is the one that also ends the stream.
    connection.send(connection.recv(64), MSG_MORE)


def all_end_after_one() -> Behaviour:
    """Echo one message on one of the connections, then close all."""
    answered = Event()

    def behave(connection: socket, over: Event) -> None:
        connection.settimeout(0.02)
        while not (answered.is_set() or over.is_set()):
            with suppress(TimeoutError):
                connection.sendall(connection.recv(64))
                answered.set()

    return behave


def has_the_rate_of(totals: Totals, seconds: float) -> bool:
    """Return whether a test took that long or a little longer, and its rate is based on it."""
    rate = totals.messages / totals.seconds
    return seconds <= totals.seconds < seconds + 1 and totals.messages_per_second == rate


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pacing", [["--rate", "1"], ["--rate", "--stages", "1/1500ms"]])
def test_an_open_loop_does_not_end_with_its_last_message(
    start_server: StartServer, engine: str, pacing: Sequence[str]
) -> None:
    duration = [] if "--stages" in pacing else ["-d", "1500ms"]
    code, result = loaded(
        *("run", start_server().url, "-c", "2", "--engine", engine, *pacing, *duration)
    )
    assert (code, result.totals.messages) == (0, 2)
    assert result.totals.seconds == pytest.approx(1.5)
    assert [second.connections for second in result.series] == [2, 2]


@pytest.mark.slow
def test_the_number_of_messages_ends_a_test_early(start_server: StartServer) -> None:
    begin = time.monotonic()
    code, result = loaded("run", start_server().url, "--rate", "100", "-n", "5", "-d", "50s")
    assert (code, result.totals.messages) == (0, 5)
    assert result.totals.seconds < 1
    assert time.monotonic() - begin < 40


@pytest.mark.parametrize("engine", ENGINES)
def test_connections_lost_while_nothing_is_due_are_counted(engine: str) -> None:
    with Service(all_end_after_one()) as service:
        code, result = loaded(
            *("run", service.target, "--engine", engine, "-c", "3", "--rate", "0.2", "-d", "5s"),
            "--no-reconnect",
        )
    totals = result.totals
    assert (code, totals.connections_lost, totals.errors) == (1, 3, {"closed": 3})
    assert (totals.messages, totals.messages_per_second) == (1, 0.2)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_test_without_any_connection_left_ends_at_once(engine: str) -> None:
    """The figures are those of the whole planned time."""
    begin = time.monotonic()
    with Service(all_end_after_one()) as service:
        _, result = loaded(
            *("run", service.target, "--engine", engine, "-c", "2", "--rate", "0.2", "-d", "100s"),
            "--no-reconnect",
        )
    totals = result.totals
    assert time.monotonic() - begin < DEADLINE
    assert (totals.messages, totals.messages_per_second) == (1, 0.01)
    assert totals.errors == {"closed": 2, "unsent": 19}
    assert len(result.series) == 100


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["threads", "greenlets"])
def test_a_message_whose_connection_is_gone_leaves_on_another(engine: str) -> None:
    with Service(ends_after_one) as service:
        _, result = loaded(
            *("run", service.target, "--engine", engine, "-c", "2", "--rate", "3", "-n", "6")
        )
    assert result.totals.messages == 6
    assert set(result.totals.errors) == {"closed"}


@pytest.mark.slow
def test_connections_dropped_while_held_are_counted(start_server: StartServer) -> None:
    server = start_server("--idle-timeout", "200ms")
    code, result = loaded("hold", server.url, "-c", "5", "-d", "3s", "--cycle", "1h")
    totals = result.totals
    assert (code, totals.connections_lost, totals.errors) == (1, 5, {"closed": 5})
    assert totals.seconds == pytest.approx(3)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pacing", [[], ["--rate", "1k"]])
def test_the_rate_includes_the_time_of_silence(engine: str, pacing: Sequence[str]) -> None:
    with Service(silent_after(50)) as service:
        code, result = loaded(
            *("run", service.target, "--engine", engine, "-c", "2", "-d", "2s", *pacing),
            *("--timeout", "1500ms", "--no-reconnect", "--threshold", "messages_per_second>60"),
        )
    assert result.totals.messages == 100
    assert has_the_rate_of(result.totals, 2)
    assert [second.messages for second in result.series][:2] == [100, 0]
    assert (code, result.thresholds[0].passed) == (1, False)


@pytest.mark.slow
def test_a_silent_stage_lasts_until_its_end() -> None:
    with Service(silent_after(50)) as service:
        _, result = loaded(
            *("run", service.target, "--stages", "2/2s,2/1s", "--timeout", "1500ms"),
            "--no-reconnect",
        )
    assert [stage.messages for stage in result.stages] == [100, 0]
    assert [stage.seconds for stage in result.stages] == [pytest.approx(2), pytest.approx(1)]
    assert result.totals.messages_per_second == pytest.approx(100 / 3)
    assert len(result.series) == 3


@pytest.mark.slow
def test_stages_without_connections_last_as_planned(start_server: StartServer) -> None:
    code, result = loaded("run", start_server().url, "--stages", "2/200ms,0/800ms")
    assert code == 0
    assert result.totals.seconds == pytest.approx(1, abs=0.1)
    assert result.stages[1].seconds == pytest.approx(0.8, abs=0.01)


@pytest.mark.slow
def test_the_rate_of_an_interrupted_test_is_based_on_its_time() -> None:
    heard = Event()

    def behave(connection: socket, over: Event) -> None:
        connection.sendall(connection.recv(64))
        heard.set()
        silent(connection, over)

    with Service(behave) as service:
        client = subprocess.Popen(
            [*LOAD, "run", service.target, "-c", "1", "-d", "1h", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment(),
        )
        assert heard.wait(DEADLINE)
        begin = time.monotonic()
        until(lambda: time.monotonic() - begin > 1.2, "a second to pass")
        client.send_signal(signal.SIGINT)
        output, _ = client.communicate(timeout=DEADLINE)
    result = msgspec.json.decode(output, type=Result)
    assert result.totals.messages == 1
    assert result.totals.messages_per_second < 1
    assert len(result.series) >= 2
