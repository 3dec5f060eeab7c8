"""A master with its web page, and its workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.processes import (
    EchoServerProcess,
    StartServer,
    until,
)
from support.swarms import Swarm, figure


@pytest.fixture
def swarm(start_server: StartServer, tmp_path: Path) -> Iterator[Swarm]:
    server = start_server("--workers", "2", "--max-connections", "5000")
    made = Swarm(
        *(server.url, tmp_path / "master.log", "--wait", "100ms-300ms", "--enable-rebalancing"),
        *("--threshold", "p99<1h", "--threshold", "p50<1us"),
    )
    try:
        until(made.serves_page, "the web page")
        yield made
    finally:
        made.close()


def message_row(stats: Any) -> Any:
    found = [row for row in stats["stats"] if row["name"] == "message"]
    return found[0] if found else {"num_requests": 0}


@pytest.mark.slow
def test_a_swarm_survives_losing_and_gaining_a_worker(swarm: Swarm) -> None:
    first, _ = swarm.worker(), swarm.worker()
    until(
        lambda: "2 workers" in swarm.log() or swarm.log().count("reported as ready") == 2,
        "workers",
    )
    swarm.post("/swarm", user_count=1000, spawn_rate=1000, host=swarm.host)
    until(lambda: swarm.stats()["user_count"] == 1000, "all users to run")
    until(lambda: message_row(swarm.stats())["num_requests"] > 2000, "messages")
    stats = swarm.stats()
    assert stats["state"] == "running"
    assert {row["num_failures"] for row in stats["stats"]} == {0}
    metrics = swarm.metrics()
    assert metrics["echo_swarm_users",] == 1000
    assert metrics["echo_swarm_workers",] == 2
    # Kinds are shown before the first failure.
    for name, kind in (("connect", "refused"), ("message", "no_reply"), ("message", "corrupt")):
        assert metrics[("echo_swarm_failures_total", *sorted(("TCP", name, kind)))] == 0
    count = metrics["echo_swarm_response_time_seconds_count", "TCP", "message"]
    assert count > 0
    assert metrics["echo_swarm_response_time_seconds_bucket", "+Inf", "TCP", "message"] == count

    def rows() -> dict[str, Any]:
        extended, _ = swarm.stats()["extended_stats"]
        return {row["request"]: row for row in extended["data"]}

    until(lambda: figure(rows()["connect"]["count"]) == 1000, "all connections")
    # The state of thresholds is shown during the test.
    assert metrics["echo_swarm_threshold_kept", "p99<1h"] == 1
    assert metrics["echo_swarm_threshold_kept", "p50<1us"] == 0
    assert ("echo_swarm_generator_bound",) in metrics
    _, verdict = stats["extended_stats"]
    said = {row["what"]: row["verdict"] for row in verdict["data"]}
    assert said["threshold p99<1h"] == "kept"
    assert said["threshold p50<1us"] == "crossed"
    message = rows()["message"]
    assert 0 < figure(message["p50"]) <= figure(message["p99"]) <= figure(message["max"])

    first.kill()
    first.wait()
    until(lambda: "failed to send heartbeat" in swarm.log(), "the master to miss its worker")
    until(lambda: swarm.metrics()["echo_swarm_workers",] == 1, "one worker to be left")
    before = message_row(swarm.stats())["num_requests"]
    until(lambda: message_row(swarm.stats())["num_requests"] > before, "the run to go on")

    swarm.worker()
    until(lambda: swarm.metrics()["echo_swarm_workers",] == 2, "another worker to join")
    until(
        lambda: (
            sorted(
                one["user_count"] for one in swarm.stats()["workers"] if one["state"] == "running"
            )
            == [500, 500]
        ),
        "it to get its share",
    )
    swarm.post("/stop")
    # Locust waits a minute for the missing worker before it reports that it has stopped.
    until(lambda: swarm.stats()["user_count"] == 0, "the end")


@pytest.mark.slow
def test_a_reset_clears_microseconds_too(swarm: Swarm) -> None:
    swarm.worker()
    until(lambda: "reported as ready" in swarm.log(), "a worker")
    swarm.post("/swarm", user_count=3, spawn_rate=100, host=swarm.host)
    until(lambda: message_row(swarm.stats())["num_requests"] > 20, "messages")
    swarm.post("/stop")
    until(lambda: swarm.stats()["state"] == "stopped", "the end")
    assert swarm.stats()["extended_stats"][0]["data"]
    swarm.post("/stats/reset")
    assert swarm.stats()["extended_stats"][0]["data"] == []


def test_the_form_is_checked_before_a_test(echo_server: EchoServerProcess, swarm: Swarm) -> None:
    fields = {"user_count": 1, "spawn_rate": 1, "host": echo_server.url}
    for field, value, complaint in (
        ("payload_size", "x", "--payload-size: 'x' is not a size"),
        ("host", "nonsense:x", "--host: 'nonsense:x': 'x' is not a port"),
        ("threshold", "p99", "--threshold: 'p99' is not a threshold"),
    ):
        answer = json.loads(swarm.post("/swarm", **{**fields, field: value}))
        assert answer["success"] is False
        assert complaint in answer["message"]
    assert swarm.stats()["state"] == "ready"
