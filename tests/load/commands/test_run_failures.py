"""`echo-load run` against services that fail, fall silent or answer wrongly."""

from __future__ import annotations

import signal
import subprocess
from socket import AF_INET, SOCK_DGRAM, socket

import msgspec
import psutil
import pytest

from echo_load.results.result import Result
from support.misbehaving import (
    Floods,
    ForeignReplies,
    Service,
    answers_http,
    closes,
    closes_at_once,
    doubled,
    greets,
    halves,
    in_pieces,
    late,
    resets,
    silent,
    swapped,
    wrong,
)
from support.processes import (
    DEADLINE,
    LOAD,
    StartServer,
    environment,
    loaded,
    until,
)

ENGINES = ("hub", "threads", "greenlets")
ADMIN = ("--admin", "127.0.0.1:0")
DEBUG = ("--log-level", "debug")


def test_repeats_that_were_not_run_are_reported(unused_port: int) -> None:
    code, result = loaded("run", f"127.0.0.1:{unused_port}", "-c", "2", "--repeat", "3")
    assert code == 1
    assert result.reasons[-1] == "2 of 3 repeats not run"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_every_failure_is_counted_under_its_kind(unused_port: int, engine: str) -> None:
    behaviours = (
        *(silent, late(3.0), in_pieces, wrong, doubled, halves, resets),
        closes,
    )
    services = [Service(behaviour) for behaviour in behaviours]
    targets = [f"127.0.0.1:{unused_port}", *(service.target for service in services)]
    count = len(targets)
    for service in services:
        service.__enter__()
    try:
        code, result = loaded(
            *("run", *targets, "--engine", engine, "-c", str(count), "-n", str(2 * count)),
            *("--no-reconnect", "--timeout", "2s"),
        )
    finally:
        for service in services:
            service.__exit__(None, None, None)
    totals = result.totals
    assert totals.errors == {
        "refused": 1,
        "no_reply": 1,
        "timeout": 1,
        "corrupt": 2,
        "duplicated": 1,
        "truncated": 1,
        "reset": 1,
        "closed": 1,
    }
    assert (totals.connections_opened, totals.connections_failed) == (count - 1, 1)
    assert (code, totals.connections_lost) == (1, 6)
    # The reply that came in pieces was right.
    assert result.spread.most == 2
    assert {name for name in totals.errors if name in " ".join(result.reasons)} == set(
        totals.errors
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_replies_to_other_messages_are_reordered_or_foreign(engine: str) -> None:
    with Service(swapped(64)) as service:
        _, result = loaded(
            *("run", service.target, "--engine", engine, "-c", "1", "-n", "2"),
            *("--pipeline", "2", "--no-reconnect"),
        )
    assert result.totals.errors == {"reordered": 1}
    with Service(ForeignReplies()) as service:
        code, result = loaded("run", service.target, "--engine", engine, "-c", "2", "-n", "2")
    assert (code, result.totals.errors) == (1, {"foreign": 1})


@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_services_that_do_not_echo_are_detected(engine: str) -> None:
    with Service(answers_http) as web, Service(greets) as mail, Service(closes_at_once) as door:
        code, result = loaded(
            *("run", web.target, mail.target, door.target, "--engine", engine),
            *("-c", "6", "-n", "12", "--timeout", "1s"),
        )
    totals = result.totals
    assert code == 1
    assert totals.connections_lost >= 6
    assert totals.errors["corrupt"] >= 2
    assert totals.errors.get("closed", 0) + totals.errors.get("reset", 0) >= 2
    assert set(totals.errors) <= {"corrupt", "foreign", "truncated", "timeout", "closed", "reset"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_connections_are_reopened_when_a_target_is_restarted(
    start_server: StartServer, engine: str
) -> None:
    server = start_server(*DEBUG)
    client = subprocess.Popen(
        [*LOAD, "run", server.url, "--engine", engine, "-c", "5", "-d", "60s", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    until(lambda: server.log().count("connection accepted") == 5, "all to be connected")
    server.signal(signal.SIGKILL)
    server.wait()
    back = start_server(*DEBUG, *ADMIN, "--port", str(server.port))
    until(lambda: back.log().count("connection accepted") == 5, "all to be connected anew")
    until(lambda: back.metric("received_bytes_total") > 10_000, "them to be used")
    client.send_signal(signal.SIGINT)
    output, _ = client.communicate(timeout=DEADLINE)
    result = msgspec.json.decode(output, type=Result)
    totals = result.totals
    assert (client.returncode, result.verdict) == (130, "interrupted")
    # A connection may be reopened in the backlog of the listener that is about to close.
    lost = totals.connections_lost
    assert 5 <= lost <= 10
    assert totals.connections_opened == lost + 5
    assert totals.errors.pop("reset", 0) + totals.errors.pop("closed", 0) == lost
    assert set(totals.errors) <= {"refused"}
    assert totals.messages > 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_memory_does_not_grow_with_unexpected_data(engine: str) -> None:
    floods = Floods()
    with Service(floods) as service:
        client = subprocess.Popen(
            [
                *(*LOAD, "run", service.target, "--engine", engine, "-c", "3", "-d", "60s"),
                *("--payload-size", "64KiB", "--timeout", "1s", "--json"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )

        def resident() -> int:
            """Return the resident memory of all generators after a further 150 MiB."""
            goal = floods.bytes_sent + (150 << 20)
            until(lambda: floods.bytes_sent > goal, "the flood to rise")
            children = psutil.Process(client.pid).children()
            return sum(child.memory_info().rss for child in children)

        before = resident()
        after = resident()
        client.send_signal(signal.SIGINT)
        output, _ = client.communicate(timeout=DEADLINE)
    assert after - before < 16 << 20
    assert msgspec.json.decode(output, type=Result).totals.errors["corrupt"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_a_test_of_a_number_of_messages_ends_if_the_target_is_gone(
    start_server: StartServer, engine: str
) -> None:
    server = start_server("--log-level", "debug")
    client = subprocess.Popen(
        [*LOAD, "run", server.url, "--engine", engine, "-c", "2", "-n", "1M", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    until(lambda: server.log().count("connection accepted") == 2, "both to be connected")
    server.process.kill()
    output, _ = client.communicate(timeout=DEADLINE)
    assert client.returncode == 1
    result = msgspec.json.decode(output, type=Result)
    assert result.totals.errors["refused"] >= 2
    assert result.verdict != "interrupted"


@pytest.mark.slow
def test_lost_datagrams_do_not_multiply_connections() -> None:
    with socket(AF_INET, SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        code, result = loaded(
            *("run", f"udp://127.0.0.1:{sink.getsockname()[1]}", "-c", "2", "--pipeline", "4"),
            *("--churn", "4", "--timeout", "50ms", "-n", "80"),
        )
    assert code == 1
    assert result.totals.errors == {"lost": 80}
    assert result.totals.connections_opened == 20
    assert result.spread.least == 0


@pytest.mark.slow
def test_a_stage_after_an_outage_has_no_more_connections_than_planned(
    start_server: StartServer,
) -> None:
    server = start_server("--log-level", "debug", "--admin", "127.0.0.1:0")
    port, admin = server.port, server.admin
    client = subprocess.Popen(
        [*LOAD, "run", server.url, "--stages", "3/100ms,0/50ms", "--loop", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    until(lambda: server.log().count("connection accepted") > 6, "several rounds")
    server.process.kill()
    server.wait()
    again = start_server(
        *("--port", str(port), "--log-level", "debug"),
        *("--admin", admin.removeprefix("http://")),
    )
    until(lambda: again.log().count("connection accepted") > 12, "several rounds more")
    client.send_signal(signal.SIGINT)
    output, _ = client.communicate(timeout=DEADLINE)
    result = msgspec.json.decode(output, type=Result)
    assert result.verdict == "interrupted"
    # The server may not know yet of those that have ended.
    assert max(second.connections for second in result.series) <= 3
