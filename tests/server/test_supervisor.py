"""Several workers: who serves what, and what their deaths and restarts cost."""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from echo_server.supervisor import BACK_OFF_SECONDS
from support.processes import (
    DEADLINE,
    SERVER,
    EchoServerProcess,
    StartServer,
    echoes,
    ended_by_signals,
    receive_exactly,
    run,
    until,
)

ADMIN = ("--admin", "127.0.0.1:0")
# Connections, or senders of datagrams: all of them at one of two listeners would be a wonder.
MANY = 40
DESCRIPTORS = 64


def kill(pid: int, number: signal.Signals) -> None:
    os.kill(pid, number)


def is_over(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def connections_by_worker(
    server: EchoServerProcess, stack: ExitStack, count: int
) -> dict[str, list[socket.socket]]:
    """Connections by the slot that serves them: at least so many for each of two."""
    served: dict[str, list[socket.socket]] = {"0": [], "1": []}
    while min(map(len, served.values())) < count:
        before = server.metric("connections_accepted_total", worker="0")
        connection = stack.enter_context(server.connect())
        assert echoes(connection)
        after = server.metric("connections_accepted_total", worker="0")
        served["0" if after > before else "1"].append(connection)
    return served


def start_with_config(
    start_server: StartServer, file: Path, *options: str, **settings: Any
) -> EchoServerProcess:
    """Start two workers that read a file when they start."""
    file.write_text("")
    return start_server("--workers", "2", "--config", str(file), *options, **settings)


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def assert_all_are_served(server: EchoServerProcess) -> None:
    """Open so many connections that each listener gets some."""
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(MANY)]
        assert all(map(echoes, connections))


def assert_all_datagrams_are_served(port: int) -> None:
    with ExitStack() as stack:
        for number in range(MANY):
            sender = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            sender.settimeout(DEADLINE)
            sender.sendto(b"%d" % number, ("127.0.0.1", port))
            assert sender.recv(100) == b"%d" % number


def until_down(server: EchoServerProcess, count: int) -> None:
    """Wait until so many of several workers are down and others serve in their place."""
    state = f"workers {'is' if count == 1 else 'are'} down\n"

    def are_down() -> bool:
        status, page = server.get("/readyz")
        return status == 200 and page.startswith(f"ready, but {count} of ") and state in page

    until(are_down, f"{count} workers to be down")


def limit_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))


def until_replaced(server: EchoServerProcess, old: set[int]) -> None:
    until(lambda: not old & set(server.workers()), "new workers and the end of the old")


def until_restarts(server: EchoServerProcess, count: int) -> None:
    until(lambda: server.metric("worker_restarts_total") == count, f"{count} restarts")


class Visitors:
    """Threads that connect, echo, see the end of the stream and connect anew; all is counted."""

    def __init__(self, port: int, threads: int, per_second: int) -> None:
        self.visits = 0
        self.failures: list[str] = []
        self._port = port
        self._interval = threads / per_second
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(number,)) for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def wait_for_more(self) -> None:
        enough = self.visits + 100
        until(lambda: self.visits > enough, "more visits")

    def _visit(self, number: int) -> None:
        turn = 0
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += self._interval
            turn += 1
            # Many source addresses: closed connections keep their ports for a while.
            source = f"127.0.{1 + number}.{1 + turn % 250}"
            try:
                with socket.create_connection(
                    ("127.0.0.1", self._port), DEADLINE, (source, 0)
                ) as connection:
                    connection.sendall(b"a visit")
                    connection.shutdown(socket.SHUT_WR)
                    assert receive_exactly(connection, 7) == b"a visit"
                    assert connection.recv(1) == b""
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))
            else:
                self.visits += 1


def test_the_supervisor_is_not_patched_and_has_no_hub(start_server: StartServer) -> None:
    """Nothing of gevent is loaded in it, which is loaded in its workers."""
    server = start_server("--workers", "2", *ADMIN)
    assert server.get("/metrics")[0] == 200

    def loaded(pid: int) -> bool:
        return "/gevent/" in Path(f"/proc/{pid}/maps").read_text()

    assert not loaded(server.pid)
    workers = server.workers()
    assert len(workers) == 2
    assert all(map(loaded, workers))


def test_one_worker_needs_no_supervisor(start_server: StartServer) -> None:
    server = start_server("--workers", "1")
    assert server.workers() == []
    server.signal(signal.SIGHUP)
    server.wait_for_log("one worker has no supervisor")
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
def test_a_killed_worker_takes_little_uncounted_with_it(
    start_server: StartServer, replies: int
) -> None:
    """It is killed in the middle of a batch, as soon as some replies have come."""
    server = start_server(*ADMIN)
    (worker,) = server.workers()
    poll = select.poll()
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(250)]
        assert all(map(echoes, connections))
        counted = 250 * len(b"still there?")
        server.wait_for_metric("sent_bytes_total", counted)
        kill(worker, signal.SIGSTOP)
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


def test_a_killed_worker_costs_its_own_connections_only(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    first, second = sorted(server.workers())
    with ExitStack() as stack:
        served = connections_by_worker(server, stack, 3)
        open_before = server.metric("connections_open", worker="0")
        received = server.metric("received_bytes_total")
        # What the stopped worker does not accept waits in its queue.
        kill(first, signal.SIGSTOP)
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
        assert server.metric("received_bytes_total") == received + said
        accepted = server.metric("connections_accepted_total")
        closed = server.metric("connections_closed_total")
        assert accepted - closed == server.metric("connections_open")
    assert "worker died" in server.log()


def test_a_rolling_restart_refuses_and_resets_nothing(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    with Visitors(server.port, threads=4, per_second=2000) as visitors:
        for _ in range(2):
            old = set(server.workers())
            server.signal(signal.SIGHUP)
            until_replaced(server, old)
            visitors.wait_for_more()
    assert visitors.failures == []
    assert server.log().count('"event": "workers restarted"') == 2
    until(lambda: server.metric("connections_open") == 0, "all to be gone")
    assert server.metric("connections_accepted_total") == visitors.visits
    assert server.metric("connections_closed_total", reason="end_of_stream") == visitors.visits
    assert server.metric("received_bytes_total") == 7 * visitors.visits
    assert server.metric("worker_restarts_total") == 0


def test_a_restart_reads_the_configuration_anew(start_server: StartServer, tmp_path: Path) -> None:
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


def test_a_restart_into_a_bad_configuration_changes_nothing(
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


def test_a_stop_lets_earlier_workers_go_on_draining(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    with server.connect() as connection:
        assert echoes(connection)
        server.signal(signal.SIGHUP)
        server.wait_for_log("workers restarted")
        server.signal(signal.SIGTERM)
        until(lambda: server.log().count('"event": "draining"') >= 5, "all to drain")
        assert echoes(connection)
    assert server.wait() == 0


def test_a_death_during_a_restart_leaves_no_worker_too_many(start_server: StartServer) -> None:
    server = start_server("--workers", "2", *ADMIN)
    # The worker of the first slot, and then its replacements: the back-off grows beyond what a
    # start takes.
    kill(min(server.workers()), signal.SIGKILL)
    for restarts in range(1, 4):
        until_restarts(server, restarts)
        if restarts < 3:
            kill(max(server.workers()), signal.SIGKILL)
    old = set(server.workers())
    server.signal(signal.SIGHUP)
    until(lambda: len(server.workers()) > 2, "a replacement")
    for pid in old:
        kill(pid, signal.SIGKILL)
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


def test_several_hangups_at_once(start_server: StartServer) -> None:
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_every_worker(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server("--workers", "2", *ADMIN)
    with ExitStack() as stack:
        served = connections_by_worker(server, stack, 1)
        server.signal(number)
        until(lambda: server.log().count('"event": "draining"') == 3, "the drain")
        for connections in served.values():
            assert all(map(echoes, connections))
        with pytest.raises(ConnectionRefusedError):
            until(lambda: server.connect().close(), "connections to be refused")
    assert server.wait() == 0
    assert "closing connections" not in server.log()


def test_what_waits_when_the_drain_begins_is_served(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    workers = server.workers()
    for pid in workers:
        kill(pid, signal.SIGSTOP)
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


def test_connections_that_do_not_finish_are_closed(start_server: StartServer) -> None:
    server = start_server("--workers", "2", "--drain-timeout", "100ms")
    with server.connect() as connection:
        assert echoes(connection)
        server.signal(signal.SIGTERM)
        assert connection.recv(1) == b""
    assert server.wait() == 0


def test_a_second_signal_ends_all_at_once(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    workers = server.workers()
    with server.connect() as connection:
        assert echoes(connection)
        assert ended_by_signals(server, signal.SIGINT) == 130
    assert all(map(is_over, workers))


def test_a_signal_to_every_process_is_one_signal(start_server: StartServer) -> None:
    """As systemd does, and pkill; what began is a drain, and not cut short by repetitions."""
    server = start_server("--workers", "2", *ADMIN)
    with ExitStack() as stack:
        served = connections_by_worker(server, stack, 1)
        workers = server.workers()
        for _ in range(3):
            for pid in (server.pid, *workers):
                kill(pid, signal.SIGTERM)
        until(lambda: server.log().count('"event": "draining"') == 3, "the drain")
        for connections in served.values():
            assert all(map(echoes, connections))
    assert server.wait() == 0
    assert "closing connections" not in server.log()


def test_workers_end_with_their_supervisor(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    workers = server.workers()
    with server.connect() as connection:
        assert echoes(connection)
        server.signal(signal.SIGKILL)
        server.wait_for_log("the supervisor is gone")
        # As in any drain, it may finish.
        assert echoes(connection)
    until(lambda: all(map(is_over, workers)), "the workers to end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_end_is_replaced_first(
    start_server: StartServer, number: signal.Signals
) -> None:
    server = start_server("--workers", "2", *ADMIN)
    old = server.workers()
    with ExitStack() as stack:
        served = connections_by_worker(server, stack, 1)
        for _ in range(3):
            kill(old[0], number)
        server.wait_for_log("workers restarted")
        for _ in range(MANY):
            assert echoes(stack.enter_context(server.connect()))
        # It drains, as in any restart.
        for connections in served.values():
            assert all(map(echoes, connections))
        assert set(old) < set(server.workers())
    until_replaced(server, {old[0]})
    assert server.metric("worker_restarts_total") == 0
    assert server.log().count("replacing a worker") == 1


def test_a_worker_that_cannot_be_replaced_goes_on(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    server = start_with_config(start_server, file)
    old = set(server.workers())
    file.write_text("nonsense = 1\n")
    kill(min(old), signal.SIGTERM)
    server.wait_for_log("restart given up")
    assert set(server.workers()) == old
    assert_all_are_served(server)


def test_orders_wait_for_a_worker_that_starts(start_server: StartServer, tmp_path: Path) -> None:
    """A signal that comes before a worker can handle it is not its death."""
    pipe = tmp_path / "config.toml"
    os.mkfifo(pipe)
    server = start_server("--workers", "2", "--config", str(pipe), wait=False)
    pipe.write_text("")
    until(lambda: len(server.workers()) == 2, "two workers")
    starting = server.workers()
    for pid in starting:
        kill(pid, signal.SIGTERM)
        kill(pid, signal.SIGHUP)

    def replaced() -> bool:
        with suppress(OSError):
            # Let those go on that wait for the file.
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return not set(starting) & set(server.workers())

    until(replaced, "the replacements that they ask for")
    server.wait_for_start()
    assert "worker died" not in server.log()
    assert_all_are_served(server)


def test_a_dead_slot_is_served_by_another(start_server: StartServer, tmp_path: Path) -> None:
    """While its worker cannot start: TCP, UDP, and what waits in its queue."""
    file = tmp_path / "server.toml"
    server = start_with_config(
        start_server, file, "--listen", "tcp://127.0.0.1:0", "--listen", "udp://127.0.0.1:0", *ADMIN
    )
    datagrams = int(server.read_line().rpartition(":")[2])
    first, second = sorted(server.workers())
    before = descriptors(second)
    with ExitStack() as stack:
        file.write_text("nonsense = 1\n")
        kill(first, signal.SIGSTOP)
        waiting = [stack.enter_context(server.connect()) for _ in range(MANY)]
        kill(first, signal.SIGKILL)
        assert all(map(echoes, waiting))
        assert server.get("/readyz") == (200, "ready, but 1 of 2 workers is down\n")
        assert server.metric("worker_up", worker="0") == 0
        assert server.metric("worker_up", worker="1") == 1
        assert_all_are_served(server)
        assert_all_datagrams_are_served(datagrams)
        assert descriptors(second) == before + 2 + len(waiting)
        file.write_text("")
        server.signal(signal.SIGHUP)
        until(lambda: server.get("/readyz") == (200, "ready\n"), "both workers")
        # Not those of the slot that has a worker again.
        assert all(map(echoes, waiting))
    server.wait_for_log("workers restarted")
    assert server.metric("worker_up") == 2
    assert_all_are_served(server)
    assert_all_datagrams_are_served(datagrams)


def test_a_substitute_lets_go_of_what_is_not_its_own(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "server.toml"
    server = start_with_config(
        start_server, file, "--listen", "tcp://127.0.0.1:0", "--listen", "udp://127.0.0.1:0", *ADMIN
    )
    datagrams = int(server.read_line().rpartition(":")[2])
    first, second = sorted(server.workers())
    before = descriptors(second)
    file.write_text("nonsense = 1\n")
    kill(first, signal.SIGKILL)
    until(lambda: descriptors(second) == before + 2, "a substitute")
    file.write_text("")
    # Its turn comes by itself.
    until(lambda: descriptors(second) == before, "the substitute to be relieved")
    assert second in server.workers()
    assert server.get("/readyz") == (200, "ready\n")
    kill(second, signal.SIGSTOP)
    served = 0
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(MANY)]
        for connection in connections:
            connection.sendall(b"?")
        served = len(select.select(connections, [], [], DEADLINE)[0])
        kill(second, signal.SIGCONT)
        assert all(receive_exactly(connection, 1) == b"?" for connection in connections)
    assert served > 0
    assert_all_datagrams_are_served(datagrams)


def test_a_substitute_that_dies_or_is_replaced(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    server = start_with_config(start_server, file, "--workers", "3", *ADMIN)
    workers = sorted(server.workers())
    file.write_text("nonsense = 1\n")
    for down, pid in enumerate(workers[:2], 1):
        kill(pid, signal.SIGKILL)
        until_down(server, down)
        assert_all_are_served(server)
    file.write_text("")
    with Visitors(server.port, threads=4, per_second=500) as visitors:
        server.signal(signal.SIGHUP)
        until(lambda: server.get("/readyz") == (200, "ready\n"), "all workers")
        until_replaced(server, set(workers))
        visitors.wait_for_more()
    assert visitors.failures == []
    assert server.metric("worker_up") == 3


def test_a_substitute_without_descriptors(start_server: StartServer, tmp_path: Path) -> None:
    """It says so, is not ready, and takes over as soon as it can."""
    file = tmp_path / "server.toml"
    server = start_with_config(start_server, file, *ADMIN, preexec=limit_descriptors)
    first, second = sorted(server.workers())
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(server.connect())
        until(lambda: descriptors(second) == DESCRIPTORS, "no descriptor to be left")
        file.write_text("nonsense = 1\n")
        kill(first, signal.SIGKILL)
        until(lambda: server.get("/readyz") == (503, "1 of 2 workers is down\n"), "the bad news")
    until(lambda: server.get("/readyz")[0] == 200, "a substitute")
    assert_all_are_served(server)


def test_nobody_is_ready_without_a_worker(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    server = start_with_config(start_server, file, "--workers", "1", *ADMIN)
    file.write_text("nonsense = 1\n")
    kill(server.workers()[0], signal.SIGKILL)
    until(lambda: server.get("/readyz") == (503, "1 of 1 workers is down\n"), "the bad news")
    file.write_text("")
    until(lambda: server.get("/readyz") == (200, "ready\n"), "the worker")
    assert_all_are_served(server)


def test_workers_that_die_again_and_again(start_server: StartServer) -> None:
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
    assert "'nonsense' is not an option here" in log
    assert "workers die at start" in log
    assert "Traceback" not in log


def test_nothing_is_left_behind(start_server: StartServer) -> None:
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


def test_no_worker_can_start_any_more(start_server: StartServer, tmp_path: Path) -> None:
    """A configuration that went bad and then the death of every worker: the end, said aloud."""
    file = tmp_path / "server.toml"
    file.write_text("")
    server = start_server("--workers", "2", "--config", str(file))
    file.write_text("nonsense = 1\n")
    for pid in server.workers():
        kill(pid, signal.SIGKILL)
    assert server.wait() == 3
    assert "workers die at start" in server.log()


def test_bad_input_is_said_once() -> None:
    result = run([*SERVER, "--workers", "4", "--max-connections", "500M"])
    assert result.returncode == 2
    assert len(result.stderr.decode().splitlines()) == 1
