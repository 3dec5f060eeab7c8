"""Several workers: who serves what, and what their deaths and restarts cost."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from echo_server.processes.supervisor import BACK_OFF_SECONDS
from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    echoes,
    ended_by_signals,
    kill,
    receive_exactly,
    run,
    stop,
    until,
    until_replaced,
)
from support.short_lived_clients import ShortLivedClients

ADMIN = ("--admin", "127.0.0.1:0")


def is_over(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def connections_by_worker(
    server: EchoServerProcess, stack: ExitStack, count: int
) -> dict[str, list[socket.socket]]:
    """Connections by the slot that serves them: at least `count` for each of two."""
    served: dict[str, list[socket.socket]] = {"0": [], "1": []}
    while min(map(len, served.values())) < count:
        before = server.metric("connections_accepted_total", worker="0")
        connection = stack.enter_context(server.connect())
        assert echoes(connection)
        after = server.metric("connections_accepted_total", worker="0")
        served["0" if after > before else "1"].append(connection)
    return served


def until_restarts(server: EchoServerProcess, count: int) -> None:
    until(lambda: server.metric("worker_restarts_total") == count, f"{count} restarts")


@pytest.mark.untraced
def test_the_supervisor_is_not_patched_and_has_no_hub(start_server: StartServer) -> None:
    """The supervisor does not load gevent; its workers do."""
    server = start_server("--workers", "2", *ADMIN)
    assert server.get("/metrics")[0] == 200

    def loaded(pid: int) -> bool:
        return "/gevent/" in Path(f"/proc/{pid}/maps").read_text()

    assert not loaded(server.pid)
    workers = server.workers()
    assert len(workers) == 2
    assert all(map(loaded, workers))


def test_a_worker_does_not_import_what_its_logs_do_not_use(start_server: StartServer) -> None:
    """rich and pygments, which structlog imports if they are installed, are a fifth of a worker."""
    pytest.importorskip("rich")
    log = start_server("--workers", "2", PYTHONVERBOSE="1").log()
    assert "import 'structlog.dev'" in log
    assert "import 'rich" not in log


def test_one_worker_needs_no_supervisor(start_server: StartServer) -> None:
    server = start_server("--workers", "1")
    assert server.workers() == []
    server.signal(signal.SIGHUP)
    server.wait_for_log("there is no supervisor")
    with server.connect() as connection:
        assert echoes(connection)


def test_a_worker_for_each_core(start_server: StartServer) -> None:
    server = start_server("--workers", "auto", *ADMIN)
    assert server.metric("workers") == len(os.sched_getaffinity(0))


def test_connections_reach_every_worker(start_server: StartServer) -> None:
    server = start_server("--workers", "3", *ADMIN)
    with ExitStack() as stack:
        for _ in range(60):
            assert echoes(stack.enter_context(server.connect()))
        for worker in ("0", "1", "2"):
            assert server.metric("connections_open", worker=worker) > 0


@pytest.mark.parametrize("replies", [1, 2, 4, 8, 16])
def test_a_killed_worker_loses_few_counts(start_server: StartServer, replies: int) -> None:
    """The worker is killed in the middle of a batch, as soon as some replies have come."""
    server = start_server(*ADMIN)
    (worker,) = server.workers()
    poll = select.poll()
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(250)]
        assert all(map(echoes, connections))
        counted = 250 * len(b"still there?")
        server.wait_for_metric("sent_bytes_total", counted)
        stop(worker)
        for connection in connections:
            connection.sendall(bytes(60_000))
            poll.register(connection, select.POLLIN)
        kill(worker, signal.SIGCONT)
        while len(poll.poll(DEADLINE * 1000)) < replies:
            continue
        kill(worker, signal.SIGKILL)
        received = sum(map(received_at_all, connections))
    server.wait_for_metric("worker_restarts_total", 1)
    # What was lost on its way back was counted and not received: less may be missing, not more.
    assert received - (server.metric("sent_bytes_total") - counted) < 2 * 65536


def received_at_all(connection: socket.socket) -> int:
    """Bytes until a connection ends, by a reset or otherwise."""
    received = 0
    with suppress(ConnectionError):
        while data := connection.recv(65536):
            received += len(data)
    return received


@pytest.mark.slow
def test_a_killed_worker_loses_only_its_own_connections(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    first, second = server.workers()
    with ExitStack() as stack:
        served = connections_by_worker(server, stack, 3)
        open_before = server.metric("connections_open", worker="0")
        received = len(b"still there?") * sum(map(len, served.values()))
        server.wait_for_metric("received_bytes_total", received)
        # What the stopped worker does not accept waits in its queue.
        stop(first)
        waiting = [stack.enter_context(server.connect()) for _ in range(30)]
        for connection in waiting:
            connection.sendall(b"I can wait")
        kill(first, signal.SIGKILL)
        for connection in waiting:
            assert receive_exactly(connection, 10) == b"I can wait"
        for connection in served["1"]:
            assert echoes(connection)
        for connection in served["0"]:
            assert connection.recv(1) == b""
        assert second in server.workers()
        assert server.metric("worker_restarts_total", worker="0") == 1
        assert server.metric("worker_restarts_total", worker="1") == 0
        died = server.metric("connections_closed_total", reason="worker_died")
        assert died == open_before
        assert server.metric("connections_open") == len(served["1"]) + 30
        said = len(b"still there?") * len(served["1"]) + 10 * 30
        server.wait_for_metric("received_bytes_total", received + said)
        accepted = server.metric("connections_accepted_total")
        closed = server.metric("connections_closed_total")
        assert accepted - closed == server.metric("connections_open")
    server.wait_for_log("worker died")


@pytest.mark.slow
def test_a_rolling_restart_refuses_and_resets_nothing(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    with ShortLivedClients(server.port, threads=4, per_second=2000) as clients:
        for _ in range(2):
            old = set(server.workers())
            server.signal(signal.SIGHUP)
            until_replaced(server, old)
            clients.wait_for_more()
    assert clients.failures == []
    until(lambda: server.log().count('"event": "workers restarted"') == 2, "two lines in the log")
    until(lambda: server.metric("connections_open") == 0, "all to be gone")
    assert server.metric("connections_accepted_total") == clients.connections
    assert server.metric("connections_closed_total", reason="end_of_stream") == clients.connections
    server.wait_for_metric("received_bytes_total", 7 * clients.connections)
    assert server.metric("worker_restarts_total") == 0


@pytest.mark.slow
def test_a_restart_rereads_the_configuration(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("max-connections-per-ip = 1\n")
    server = start_server("--workers", "2", "--config", str(file), *ADMIN)
    old = set(server.workers())
    file.write_text("max-connections-per-ip = 1000\n")
    server.signal(signal.SIGHUP)
    until_replaced(server, old)
    with ExitStack() as stack:
        for _ in range(10):
            assert echoes(stack.enter_context(server.connect()))


@pytest.mark.slow
def test_a_restart_with_a_bad_configuration_changes_nothing(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    file.write_text("backlog = 100\n")
    server = start_server("--workers", "2", "--config", str(file))
    old = set(server.workers())
    file.write_text("backlog = 'long'\n")
    server.signal(signal.SIGHUP)
    server.wait_for_log("restart given up")
    assert "'long' is not a whole number" in server.log()
    assert set(server.workers()) == old
    file.write_text("backlog = 200\n")
    server.signal(signal.SIGHUP)
    server.wait_for_log("workers restarted")
    with server.connect() as connection:
        assert echoes(connection)


@pytest.mark.slow
def test_connections_outlive_a_restart(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    old = set(server.workers())
    with server.connect() as connection:
        assert echoes(connection)
        server.signal(signal.SIGHUP)
        server.wait_for_log("workers restarted")
        assert echoes(connection)
        assert server.metric("connections_open") == 1
    until_replaced(server, old)


@pytest.mark.slow
def test_a_stop_lets_earlier_workers_finish_draining(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    with server.connect() as connection:
        assert echoes(connection)
        server.signal(signal.SIGHUP)
        server.wait_for_log("workers restarted")
        server.signal(signal.SIGTERM)
        until(lambda: server.log().count('"event": "draining"') >= 5, "all to drain")
        assert echoes(connection)
    assert server.wait() == 0


@pytest.mark.slow
def test_a_death_during_a_restart_leaves_no_extra_worker(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    # The worker of the first slot, and then its replacements: the back-off grows beyond what a
    # start takes.
    kill(server.workers()[0], signal.SIGKILL)
    for restarts in range(1, 4):
        until_restarts(server, restarts)
        if restarts < 3:
            kill(server.workers()[-1], signal.SIGKILL)
    # The supervisor begins the restart, and finds the deaths before any replacement can serve.
    stop(server.pid)
    server.signal(signal.SIGHUP)
    for pid in server.workers():
        kill(pid, signal.SIGKILL)
    server.signal(signal.SIGCONT)
    server.wait_for_log("workers restarted")
    # Longer than the back-off, so that what was due would have come, had it not been called off.
    over = time.monotonic() + 2 * BACK_OFF_SECONDS[3]
    while time.monotonic() < over:
        with server.connect() as connection:
            assert echoes(connection)
    until(lambda: len(server.workers()) == 2, "two workers")


def test_options_may_end_with_two_dashes(start_server: StartServer) -> None:
    server = start_server("--workers", "2", "--")
    with server.connect() as connection:
        assert echoes(connection)


@pytest.mark.slow
def test_several_hangup_signals_at_once(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    old = set(server.workers())
    for _ in range(5):
        server.signal(signal.SIGHUP)
    until_replaced(server, old)
    until(lambda: len(server.workers()) == 2, "two workers")
    with server.connect() as connection:
        assert echoes(connection)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_every_worker(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server("--workers", "2", *ADMIN)
    with ExitStack() as stack:
        served = connections_by_worker(server, stack, 1)
        server.signal(number)
        until(lambda: server.log().count('"event": "draining"') == 3, "the drain")
        for connections in served.values():
            assert all(map(echoes, connections))
        until(server.refuses, "connections to be refused")
    assert server.wait() == 0
    assert "closing connections" not in server.log()


@pytest.mark.slow
def test_the_backlog_is_served_when_the_drain_begins(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    workers = server.workers()
    stop(*workers)
    connections = [server.connect() for _ in range(100)]
    for connection in connections:
        connection.sendall(b"was in time")
    server.signal(signal.SIGTERM)
    for pid in workers:
        kill(pid, signal.SIGCONT)
    for connection in connections:
        assert receive_exactly(connection, 11) == b"was in time"
        connection.close()
    assert server.wait() == 0


@pytest.mark.slow
def test_connections_that_do_not_finish_are_closed(start_server: StartServer) -> None:
    server = start_server("--workers", "2", "--drain-timeout", "100ms")
    with server.connect() as connection:
        assert echoes(connection)
        server.signal(signal.SIGTERM)
        assert connection.recv(1) == b""
    assert server.wait() == 0


@pytest.mark.slow
def test_a_second_signal_ends_all_processes_at_once(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    workers = server.workers()
    with server.connect() as connection:
        assert echoes(connection)
        assert ended_by_signals(server, signal.SIGINT) == 130
    assert all(map(is_over, workers))


@pytest.mark.slow
def test_a_signal_sent_to_every_process_counts_once(start_server: StartServer) -> None:
    """A drain is not cut short by repetitions, which systemd and pkill send."""
    server = start_server("--workers", "2", *ADMIN)
    with ExitStack() as stack:
        served = connections_by_worker(server, stack, 1)
        # All find their signals when they go on, those of the others' messages, too.
        processes = (*server.workers(), server.pid)
        stop(*processes)
        for number in (signal.SIGTERM, signal.SIGINT):
            for pid in processes:
                kill(pid, number)
        for pid in processes:
            kill(pid, signal.SIGCONT)
        until(lambda: server.log().count('"event": "draining"') == 3, "the drain")
        for connections in served.values():
            assert all(map(echoes, connections))
    assert server.wait() == 0
    assert "closing connections" not in server.log()


@pytest.mark.slow
def test_workers_exit_with_their_supervisor(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    workers = server.workers()
    with server.connect() as connection:
        assert echoes(connection)
        server.signal(signal.SIGKILL)
        server.wait_for_log("the supervisor has exited")
        # As in any drain, it may finish.
        assert echoes(connection)
    until(lambda: all(map(is_over, workers)), "the workers to end")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_receives_a_signal_is_replaced_first(
    start_server: StartServer, number: signal.Signals
) -> None:
    server = start_server("--workers", "2", *ADMIN)
    old = server.workers()
    with ExitStack() as stack:
        served = connections_by_worker(server, stack, 1)
        for _ in range(3):
            kill(old[0], number)
        server.wait_for_log("workers restarted")
        for _ in range(40):
            assert echoes(stack.enter_context(server.connect()))
        # It drains, as in any restart.
        for connections in served.values():
            assert all(map(echoes, connections))
        assert set(old) < set(server.workers())
    until_replaced(server, {old[0]})
    assert server.metric("worker_restarts_total") == 0
    assert server.log().count("replacing a worker") == 1


@pytest.mark.slow
def test_workers_that_die_repeatedly(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    for restarts in range(1, 4):
        for pid in server.workers():
            kill(pid, signal.SIGKILL)
        until_restarts(server, 2 * restarts)
        until(lambda: server.get("/readyz")[0] == 200, "one that serves")
    with server.connect() as connection:
        assert echoes(connection)


def test_workers_that_die_at_start(start_server: StartServer, tmp_path: Path) -> None:
    """The supervisor can read its configuration, its workers find another."""
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    server = start_server("--workers", "2", "--config", str(pipe), wait=False)
    pipe.write_text("")
    until(lambda: len(server.workers()) == 2, "two workers")
    pipe.write_text("nonsense = 1\n")
    assert server.wait() == 3
    assert server.process.stdout is not None
    assert server.process.stdout.read() == ""
    log = server.log()
    assert "'nonsense' is not an option of this command" in log
    assert "workers fail to start" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_no_process_or_file_is_left_behind(start_server: StartServer) -> None:
    """Restarts cost the supervisor no descriptors."""
    server = start_server("--workers", "2")

    def restart() -> int:
        count = server.log().count("workers restarted")
        old = set(server.workers())
        server.signal(signal.SIGHUP)
        until(lambda: server.log().count("workers restarted") > count, "the restart")
        until_replaced(server, old)
        return server.open_descriptors()

    first = restart()
    until(lambda: restart() == first, "no more descriptors than before")


@pytest.mark.slow
def test_workers_can_no_longer_be_started(start_server: StartServer, tmp_path: Path) -> None:
    """A configuration that went bad and then the death of every worker: the end, said aloud."""
    file = tmp_path / "server.toml"
    file.write_text("")
    server = start_server("--workers", "2", "--config", str(file))
    file.write_text("nonsense = 1\n")
    for pid in server.workers():
        kill(pid, signal.SIGKILL)
    assert server.wait() == 3
    assert "workers fail to start" in server.log()


def test_bad_input_is_reported_once() -> None:
    result = run([*SERVER, "--workers", "4", "--max-connections", "500M"])
    assert result.returncode == 2
    assert len(result.stderr.decode().splitlines()) == 1
