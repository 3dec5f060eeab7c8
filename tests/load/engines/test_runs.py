"""Messages sent together on a pipelined connection, whose replies come back as a stream."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from hdrh.histogram import HdrHistogram

from support.processes import DEADLINE, LOAD, EchoServerProcess, StartServer, loaded, run

ADMIN = ("--admin", "127.0.0.1:0")


@pytest.mark.parametrize("engine", ["hub", "threads", "greenlets"])
@pytest.mark.parametrize("size", ["64", "1-300"])
def test_every_message_of_a_run_is_counted_and_timed(
    echo_server: EchoServerProcess, engine: str, size: str
) -> None:
    code, result = loaded(
        *("run", echo_server.url, "--engine", engine, "-c", "3", "-n", "20000"),
        *("--pipeline", "100", "--payload-size", size, "--churn", "1501"),
    )
    totals, stage = result.totals, result.stages[0]
    assert (code, totals.errors, totals.messages) == (0, {}, 20_000)
    assert totals.bytes_sent == totals.bytes_received
    assert HdrHistogram.decode(stage.latency_us.response.histogram).get_total_count() == 20_000
    # 6,666 messages a connection, 1,501 of them on each socket.
    assert totals.connections_opened == 15


def test_an_open_loop_sends_the_messages_that_are_due_together(
    echo_server: EchoServerProcess,
) -> None:
    code, result = loaded(
        *("run", echo_server.url, "-c", "5", "--pipeline", "64", "--rate", "1M", "-n", "50000")
    )
    stage = result.stages[0]
    assert (code, result.totals.errors, result.totals.messages) == (0, {}, 50_000)
    for latency in (stage.latency_us.response, stage.latency_us.service):
        assert HdrHistogram.decode(latency.histogram).get_total_count() == 50_000


@pytest.mark.parametrize("engine", ["hub", "threads"])
def test_each_corrupt_message_of_a_run_is_found(start_server: StartServer, engine: str) -> None:
    server = start_server(*ADMIN, "--fault", "corrupt@20%")
    _, result = loaded(
        *("run", server.url, "--engine", engine, "-c", "4", "-n", "40000", "--pipeline", "256")
    )
    injected = server.metric("faults_injected_total", kind="corrupt")
    assert result.totals.errors == {"corrupt": injected}
    assert (result.totals.messages, result.totals.connections_opened) == (40_000, 4)


def test_a_server_that_stops_reading_makes_the_generator_neither_hang_nor_grow() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        test = [
            *(*LOAD, "run", target, "-c", "1", "--pipeline", "100000", "--payload-size", "64KiB"),
            *("-n", "100000", "--timeout", "200ms", "--no-reconnect", "--json"),
        ]
        # 6.4 GB would be in flight, and 1 GB of memory is available.
        ended = run(["bash", "-c", 'ulimit -d 1000000 && exec "$@"', "bash", *test])
    result = json.loads(ended.stdout)
    assert ended.returncode == 1
    # Each message of which some bytes were sent.
    (failed,) = result["totals"]["errors"].items()
    assert failed[0] == "no_reply"
    assert result["totals"]["bytes_sent"] <= failed[1] * 65536 < 32 << 20


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("loop", [(), ("--rate", "100")])
def test_as_many_messages_as_the_pipeline_has_are_in_flight(
    transport: str, loop: tuple[str, ...]
) -> None:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as service:
        service.bind(("127.0.0.1", 0))
        if transport == "tcp":
            service.listen()
        service.settimeout(DEADLINE)

        def answer_four_at_once() -> None:
            if transport == "udp":
                for data, address in [service.recvfrom(100) for _ in range(4)]:
                    service.sendto(data, address)
                return
            connection, _ = service.accept()
            with connection:
                connection.sendall(connection.recv(4 * 64, socket.MSG_WAITALL))
                # Until the load tester closes it.
                connection.recv(1)

        with ThreadPoolExecutor(1) as pool:
            answered = pool.submit(answer_four_at_once)
            code, result = loaded(
                *("run", f"{transport}://127.0.0.1:{service.getsockname()[1]}", "-c", "1"),
                *("-n", "4", "--pipeline", "4", "--timeout", "20s", *loop),
            )
            answered.result(DEADLINE)
    assert (code, result.totals.messages) == (0, 4)
