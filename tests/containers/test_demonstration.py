"""All services together, as a user brings them up; the tests depend on the ones before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from containers.conftest import StartProject
from support.docker import ROOT, Project, docker, fetch, inspect
from support.processes import until

MONITORING = ROOT / "loadtest" / "monitoring"
DASHBOARD = MONITORING / "grafana" / "dashboards" / "echoswarm.json"
PAGES = ("echo-server:9607", "stress:9608", "locust-master:8089")
# All but Grafana, which needs its own image.
SERVICES = ("echo-server", "stress", "locust-master", "locust-worker", "prometheus")
WORKERS = 2


@pytest.fixture(scope="module")
def demonstration(start_project: StartProject) -> Project:
    scale = f"locust-worker={WORKERS}"
    return start_project("--scale", scale, *SERVICES, STRESS_DURATION="20s")


def ask(project: Project, path: str, **parameters: str) -> Any:
    """The answer of Prometheus's API."""
    url = f"{project.url('prometheus', 9090)}/api/v1/{path}?{urlencode(parameters)}"
    return json.loads(fetch(url))["data"]


def expressions() -> Iterator[str]:
    """Every query of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "1m").replace("$job", "echo-server")


def test_prometheus_reaches_all_targets(demonstration: Project) -> None:
    def health() -> dict[str, str]:
        targets = ask(demonstration, "targets", state="active")["activeTargets"]
        return {one["labels"]["job"]: one["health"] for one in targets}

    up = {"echo-server": "up", "stress": "up", "swarm": "up"}
    until(lambda: health() == up, "all targets to be up")


def test_every_queried_metric_is_exported(demonstration: Project) -> None:
    texts = [(MONITORING / "prometheus" / "alerts.yml").read_text(), *expressions()]
    asked = {name for text in texts for name in re.findall(r"echo_(?:server|load|swarm)_\w+", text)}
    urls = [f"http://{page}/metrics" for page in PAGES]
    program = (
        f"import urllib.request\nfor u in {urls}: print(urllib.request.urlopen(u).read().decode())"
    )
    pages = demonstration.compose("exec", "-T", "echo-server", "python3", "-c", program)
    served = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", pages, re.MULTILINE):
        served |= {f"{name}_bucket"} if kind == "histogram" else {name}
    assert len(asked) > 20
    assert asked <= served


def test_every_query_of_the_dashboard_returns_data(demonstration: Project) -> None:
    silent = set(expressions())

    def all_have_answered() -> bool:
        # One answer is enough: the stress client's figures disappear when it ends.
        for expression in tuple(silent):
            if ask(demonstration, "query", query=expression)["result"]:
                silent.remove(expression)
        return not silent

    try:
        until(all_have_answered, "every query to return data")
    except AssertionError:
        pytest.fail(f"these return no data: {', '.join(sorted(silent))}")


def test_a_swarm_of_two_workers_runs(demonstration: Project) -> None:
    def value(expression: str) -> float:
        (found,) = ask(demonstration, "query", query=expression)["result"]
        return float(found["value"][1])

    until(lambda: value("echo_swarm_workers") == WORKERS, "the workers")
    until(lambda: value("echo_swarm_users") == 100, "the users")
    until(lambda: value('echo_swarm_requests_total{name="message"}') > 1000, "messages")
    assert value("sum(echo_swarm_failures_total) or vector(0)") == 0


def test_the_stress_client_has_1000_connections_and_no_error(demonstration: Project) -> None:
    (container,) = demonstration.containers("stress")
    assert docker("wait", container) == "0", demonstration.logs("stress")
    log = demonstration.logs("stress")
    assert "PASSED" in log
    assert "1,000 connections" in log


def test_every_container_is_confined(demonstration: Project) -> None:
    for service in SERVICES:
        for container in demonstration.containers(service):
            host = inspect(container)["HostConfig"]
            assert host["ReadonlyRootfs"], service
            assert host["CapDrop"] == ["ALL"]
            assert "no-new-privileges:true" in host["SecurityOpt"]
            assert host["Memory"] > 0
            bindings = (host["PortBindings"] or {}).values()
            assert {one["HostIp"] for binding in bindings for one in binding} <= {"127.0.0.1"}


def test_only_the_generator_alert_fires(demonstration: Project) -> None:
    alerts = ask(demonstration, "alerts")["alerts"]
    assert {one["labels"]["alertname"] for one in alerts} <= {"GeneratorBound"}


def test_stopping_ends_all_containers_cleanly(demonstration: Project) -> None:
    demonstration.compose("stop")
    for service in SERVICES:
        for container in demonstration.containers(service):
            assert inspect(container)["State"]["ExitCode"] == 0, demonstration.logs(service)


def test_nothing_is_left_behind(demonstration: Project) -> None:
    demonstration.compose("down")
    assert set(demonstration.leftovers().values()) == {""}


def test_the_mounted_directories_exist() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    mounted = re.findall(r"- \./([^:]+):/", compose)
    assert mounted
    assert all(Path(ROOT, one).is_dir() for one in mounted)
