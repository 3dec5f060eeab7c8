"""Across the network between containers: load, crashes, bad links, certificates, the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from containers.conftest import StartProject
from support.certificates import make_certificates
from support.docker import ROOT, Project, inspect, kill, result_of
from support.processes import until

TCP = "tcp://echo-server:50007"
UDP = "udp://echo-server:50007"
RECONCILE = ("--reconcile", "http://echo-server:9607")


@pytest.fixture
def project(start_project: StartProject) -> Project:
    return start_project("echo-server")


def test_1000_connections_and_every_byte_accounted_for(project: Project) -> None:
    code, result = project.load("stress", TCP, "-c", "1000", "-d", "3s", *RECONCILE)
    assert (code, result.passed) == (0, True), result.reasons
    assert result.totals.connections_opened == 1000
    assert result.totals.connections_failed == result.totals.connections_lost == 0
    assert result.totals.errors == {}
    assert result.reconciliation is not None


def test_a_killed_worker_loses_only_its_own_connections(project: Project) -> None:
    with project.loading("run", TCP, "-c", "100", "-d", "10s", "--rate", "1000") as client:
        until(lambda: project.metric("connections_open") == 100, "connections")
        _, workers = project.processes("echo-server")
        assert len(workers) == 2
        kill(workers[0])
        until(lambda: project.metric("worker_restarts_total") == 1, "the worker to be replaced")
        code, result = result_of(client)
    assert code == 1
    assert sum(result.totals.errors.values()) > 0
    lost = project.metric("connections_closed_total", reason="worker_died")
    assert 0 < lost < 100
    # Each lost connection was reopened, by the server's count and by the client's.
    assert project.metric("connections_accepted_total") == 100 + lost
    assert result.totals.connections_opened == 100 + lost
    until(lambda: project.metric("connections_open") == 0, "all to be closed")
    assert project.metric("connections_closed_total") == 100 + lost


def test_a_killed_server_is_restarted(project: Project) -> None:
    (container,) = project.containers("echo-server")
    with project.loading("run", TCP, "-c", "100", "-d", "15s", "--rate", "1000") as client:
        until(lambda: project.metric("connections_open") == 100, "connections")
        first, _ = project.processes("echo-server")
        kill(first)
        until(lambda: inspect(container)["RestartCount"] == 1, "the container to be restarted")
        project.wait_until_healthy("echo-server")
        code, result = result_of(client)
    assert code == 1
    assert sum(result.totals.errors.values()) > 0
    # All are back. Some may have been in the old server's backlog, whose counters are gone.
    accepted = project.metric("connections_accepted_total")
    assert 100 <= accepted <= result.totals.connections_opened - 100
    assert result.totals.connections_opened == 100 + result.totals.connections_lost


def test_stopping_drains_within_the_grace_period(project: Project) -> None:
    with project.loading("hold", TCP, "-c", "50", "-d", "50s") as client:
        until(lambda: project.metric("connections_open") == 50, "connections")
        project.compose("stop", "echo-server")
        state = project.state("echo-server")
        code, result = result_of(client)
    # If it was killed at the end of the grace period, it would be 137.
    assert state["ExitCode"] == 0
    log = project.logs("echo-server")
    assert '"event": "draining"' in log
    assert '"event": "stopped", "accepted": 50' in log
    assert code == 1
    assert result.totals.connections_lost == 50


def test_an_injected_delay_is_in_the_report(start_project: StartProject, tmp_path: Path) -> None:
    slow = tmp_path / "slow.yml"
    slow.write_text("services: {echo-server: {environment: {ECHO_SERVER_FAULTS: delay=50ms}}}\n")
    project = start_project("echo-server", files=(slow,))
    code, result = project.load("run", TCP, "-c", "10", "-n", "200", *RECONCILE)
    assert (code, result.totals.errors) == (0, {})
    assert result.latency_us.response.p50 >= 50_000
    assert project.metric("faults_injected_total", kind="delay") == 200


def test_datagrams_lost_on_the_link_are_in_the_report(project: Project) -> None:
    every = ("--match", "statistic", "--mode", "nth", "--every", "10", "--packet", "0")
    with project.dropping("echo-server", "--protocol", "udp", "--dport", "50007", *every):
        code, result = project.load(
            *("run", UDP, "-c", "50", "-n", "2000", "--timeout", "500ms"),
            *("--threshold", "loss<=10%", *RECONCILE),
        )
    assert result.totals.datagrams_sent == 2000
    assert (code, result.totals.errors) == (0, {"lost": 200})
    assert project.metric("datagrams_received_total") == 1800


def test_lost_segments_of_a_stream_are_retransmitted(project: Project) -> None:
    random = ("--match", "statistic", "--mode", "random", "--probability", "0.03")
    with project.dropping("echo-server", "--protocol", "tcp", "--dport", "50007", *random):
        code, result = project.load(
            *("run", TCP, "-c", "20", "-n", "2000", "--connect-timeout", "20s", *RECONCILE)
        )
    assert (code, result.totals.errors) == (0, {}), result.reasons
    assert result.totals.messages == 2000
    assert (result.totals.retransmits or 0) > 0


def test_tls_with_mounted_certificates(start_project: StartProject, tmp_path: Path) -> None:
    make_certificates(tmp_path / "certificates")
    project = start_project(
        "echo-server",
        files=(ROOT / "docker-compose.tls.yml",),
        ECHO_CERTIFICATES=str(tmp_path / "certificates"),
    )
    target = "tls://echo-server:50008"
    code, result = project.load("run", target, "--tls-insecure", "-c", "10", "-n", "500")
    assert (code, result.totals.messages) == (0, 500)
