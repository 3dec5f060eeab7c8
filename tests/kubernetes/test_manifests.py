"""The manifests against the schemas of the Kubernetes API, and their parts against each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from echo_core.units import parse_duration
from echo_load.cli import echo_load
from echo_server.cli import echo_server

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "loadtest" / "kubernetes"
KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
# The oldest that this should run on, and the newest that there is.
VERSIONS = ("1.30", kubernetes_validate.latest_version())


def manifests() -> Iterator[Any]:
    """Everything that the kustomizations apply."""
    for kustomization in KUSTOMIZATIONS:
        for name in yaml.safe_load(kustomization.read_text())["resources"]:
            yield from yaml.safe_load_all((kustomization.parent / name).read_text())


MANIFESTS = {f"{one['kind']} {one['metadata']['name']}": one for one in manifests()}
PODS = {
    name: one["spec"]["template"]["spec"]
    for name, one in MANIFESTS.items()
    if "template" in one["spec"]
}


def the_container(pod: Any) -> Any:
    (container,) = pod["containers"]
    return container


def test_each_file_is_applied() -> None:
    applied = {
        kustomization.parent / name
        for kustomization in KUSTOMIZATIONS
        for name in yaml.safe_load(kustomization.read_text())["resources"]
    }
    assert applied | set(KUSTOMIZATIONS) == set(FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_are_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_invalid_manifests_are_rejected() -> None:
    wrong = {**MANIFESTS["Service echo-server"], "speck": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("name", PODS)
def test_every_pod_is_confined(name: str) -> None:
    pod = PODS[name]
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    container = the_container(pod)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])


@pytest.mark.parametrize("name", PODS)
def test_images_are_those_of_the_compose_file(name: str) -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    assert the_container(PODS[name])["image"] in re.findall(r"image: (echoswarm-\S+)", compose)


def test_the_server_has_time_to_drain() -> None:
    pod = PODS["Deployment echo-server"]
    container = the_container(pod)
    variables = {one["name"]: one["value"] for one in container["env"]}
    drain = parse_duration(variables["ECHO_SERVER_DRAIN_TIMEOUT"])
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > before + drain


def test_ports_probes_and_scrapes_agree() -> None:
    deployment = MANIFESTS["Deployment echo-server"]
    container = the_container(PODS["Deployment echo-server"])
    variables = {one["name"]: one["value"] for one in container["env"]}
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert variables["ECHO_SERVER_ADMIN"] == f"0.0.0.0:{ports['admin']}"
    assert variables["ECHO_SERVER_LISTEN"].split() == [
        f"tcp://0.0.0.0:{ports['echo-tcp']}",
        f"udp://0.0.0.0:{ports['echo-udp']}",
    ]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("readiness", "liveness")}
    assert probes["readiness"] == {"path": "/readyz", "port": "admin"}
    assert probes["liveness"] == {"path": "/healthz", "port": "admin"}
    scrape = deployment["spec"]["template"]["metadata"]["annotations"]
    assert scrape["prometheus.io/port"] == str(ports["admin"])


@pytest.mark.parametrize("name", [name for name in MANIFESTS if name.startswith("Service ")])
def test_a_service_has_pods_with_its_ports(name: str) -> None:
    service = MANIFESTS[name]["spec"]
    (pod,) = (
        one["spec"]["template"]
        for one in MANIFESTS.values()
        if one["kind"] == "Deployment"
        and service["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
    )
    offered = {(one["name"], one["protocol"]) for one in the_container(pod["spec"])["ports"]}
    assert {(one["targetPort"], one["protocol"]) for one in service["ports"]} <= offered


def test_a_load_test_is_run_once_and_its_exit_code_is_kept() -> None:
    job = MANIFESTS["Job echo-load"]["spec"]
    assert job["backoffLimit"] == 0
    assert PODS["Job echo-load"]["restartPolicy"] == "Never"


def test_variables_and_arguments_exist_in_the_commands() -> None:
    options = {option for one in echo_server.params for option in one.opts}
    for variable in the_container(PODS["Deployment echo-server"])["env"]:
        name = variable["name"].removeprefix("ECHO_SERVER_").lower().replace("_", "-")
        assert f"--{name}" in options
    command, target, *arguments = the_container(PODS["Job echo-load"])["args"]
    known = {option for one in echo_load.commands[command].params for option in one.opts}
    assert {one.partition("=")[0] for one in arguments} <= known
    host = target.removeprefix("tcp://").partition(":")[0]
    assert f"Service {host}" in MANIFESTS
    (_, _, master) = the_container(PODS["Deployment echo-swarm-workers"])["args"]
    assert f"Service {master.partition('=')[2]}" in MANIFESTS
