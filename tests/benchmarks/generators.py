"""The load generators that are compared, and which of them this machine can run."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_results import MeasurementError
from measuring import PEERS, WARMUP_SECONDS, compile_peer, peer_rate

REFERENCE = "C, epoll, unchecked"
PIPELINING = "C, pipelining, unchecked"
OPENSSL = "C, OpenSSL, unchecked"
HUB = "echo-load run, hub"
HUB_OVER_TCP = "echo-load run, hub, over TCP"
STRESS = "echo-load stress"
TUTORIAL = "the tutorial's threads"
UVLOOP = "uvloop, Protocol, unchecked"
SOCKET_USER = "locust, a plain socket User, unchecked"
ECHO_USER = "locust, EchoUser"
BLOCK_USER = "locust, EchoBlockUser"
ENGINES = ("hub", "greenlets", "threads")
# Connections per block of EchoBlockUser.
_BLOCK = 100
# Locust needs about as long to start its users as a measurement lasts.
_MOST_USERS = 1000


@dataclass(frozen=True)
class Generator:
    """The command of a generator, and how to read its rate.

    Attributes:
        command: returns a program and its arguments for a target's port, a number of connections, a
            message size in bytes, and seconds.
        rate: returns messages per second from what the program printed as JSON.
    """

    command: Callable[[int, int, int, float], list[object]]
    rate: Callable[[Any], float]


def peer(*program: str, pipeline: int | None = None) -> Generator:
    """Return a closed loop among the peers, with a number of messages in flight if it takes one."""
    depth = [] if pipeline is None else [pipeline]
    return Generator(
        lambda port, connections, size, seconds: [
            *(*program, port, connections, size, *depth, WARMUP_SECONDS, seconds)
        ],
        peer_rate,
    )


def echo_load_run(engine: str, *arguments: object, scheme: str = "tcp") -> Generator:
    """Return an engine of `echo-load run`: every message checked and recorded."""
    trust = ("--tls-insecure",) if scheme == "tls" else ()
    return Generator(
        lambda port, connections, size, seconds: [
            *(sys.executable, "-m", "echo_load", "run", f"{scheme}://127.0.0.1:{port}", *trust),
            *("--engine", engine, "--payload-size", size, "--warmup", f"{WARMUP_SECONDS}s"),
            *("--connections", connections, "--duration", f"{seconds}s"),
            *("--processes", 1, "--json", *arguments),
        ],
        _echo_load_rate,
    )


def _echo_load_rate(result: Any) -> float:
    totals = result["totals"]
    if totals["errors"]:
        raise MeasurementError(f"echo-load counted errors: {totals['errors']}")
    rate: float = totals["messages_per_second"]
    return rate


def _stress() -> Generator:
    return Generator(
        lambda port, connections, _, seconds: [
            *(sys.executable, "-m", "echo_load", "stress", f"tcp://127.0.0.1:{port}"),
            *("--connections", connections, "--duration", f"{seconds}s"),
            *("--processes", 1, "--json"),
        ],
        _echo_load_rate,
    )


def _tutorial() -> Generator:
    """Return the tutorial's threads; their messages are `hello 0`, `hello 1` and so on."""
    program = (sys.executable, PEERS / "tutorial_threads.py")
    return Generator(
        lambda port, connections, _, seconds: [
            *(*program, port, connections, WARMUP_SECONDS, seconds)
        ],
        peer_rate,
    )


def _locust(file: Path, users: Callable[[int], int], *options: object) -> Generator:
    """Return users in a locust process, whose statistics are reset after the warm-up.

    Args:
        file: the locustfile.
        users: returns the number of users for a number of connections.
        options: further options of locust.
    """
    program = (sys.executable, "-m", "locust", "-f", f"{file},{PEERS / 'locust_warmup.py'}")
    how = ("--headless", "--only-summary", "--loglevel", "ERROR", "--json")
    return Generator(
        lambda port, connections, _, seconds: [
            *(*program, *how, "--host", f"tcp://127.0.0.1:{port}", *options),
            *("--warmup-seconds", WARMUP_SECONDS),
            *("-u", users(connections), "-r", users(connections)),
            # It accepts only whole seconds.
            *("-t", f"{math.ceil(WARMUP_SECONDS + seconds)}s"),
        ],
        _locust_rate,
    )


def _locust_rate(entries: Any) -> float:
    """Return messages per second from locust's statistics, divided as locust does it."""
    (entry,) = (entry for entry in entries if entry["name"] == "message")
    seconds = entry["last_request_timestamp"] - entry["start_time"]
    rate: float = entry["num_requests"] / seconds
    return rate


def _locusts(connections: int) -> dict[str, Generator]:
    """Return a plain socket user, and the swarm's users: a connection each, and blocks."""
    package = importlib.util.find_spec("echo_load")
    assert package is not None
    assert package.origin is not None
    ours = Path(package.origin).parent / "swarm" / "locustfile.py"
    found = {
        SOCKET_USER: _locust(PEERS / "locust_user.py", lambda connections: connections),
        ECHO_USER: _locust(ours, lambda connections: connections, "EchoUser"),
    }
    if connections >= _BLOCK:
        found[BLOCK_USER] = _locust(
            *(ours, lambda connections: connections // _BLOCK, "EchoBlockUser"),
            *("--block-connections", _BLOCK),
        )
    return found


class Generators:
    """Our generators and their peers, compiled in a folder.

    Attributes:
        left_out: peers that cannot run here, with the reason.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.left_out: dict[str, str] = {}
        self._has_uvloop = importlib.util.find_spec("uvloop") is not None
        if not self._has_uvloop:
            self.left_out[UVLOOP] = "uvloop is not installed"

    def closed_loops(self, connections: int) -> dict[str, Generator]:
        """Return the closed loops with one message in flight, with the reference first."""
        found = {
            REFERENCE: peer(compile_peer("closed_loop", self._directory)),
            **{f"echo-load run, {engine}": echo_load_run(engine) for engine in ENGINES},
        }
        if self._has_uvloop:
            found[UVLOOP] = peer(sys.executable, str(PEERS / "uvloop_loop.py"))
        if connections <= _MOST_USERS:
            found |= _locusts(connections)
            found |= {STRESS: _stress(), TUTORIAL: _tutorial()}
        return found

    def pipelining(self, pipeline: int) -> dict[str, Generator]:
        """Return the closed loops with many messages in flight, with the reference first."""
        reference = peer(compile_peer("pipelined_loop", self._directory), pipeline=pipeline)
        return {
            PIPELINING: reference,
            HUB: echo_load_run("hub", "--pipeline", pipeline),
        }

    def bulk(self) -> dict[str, Generator]:
        """Return the closed loops for large messages, with the reference first."""
        return {
            REFERENCE: peer(compile_peer("closed_loop", self._directory)),
            HUB: echo_load_run("hub"),
        }

    def tls(self, program: str, pipeline: int) -> dict[str, Generator]:
        """Return the closed loops over TLS, with the reference, `program`, first."""
        deep = ("--pipeline", pipeline)
        return {
            OPENSSL: peer(program, pipeline=pipeline),
            **{
                f"echo-load run, {engine}": echo_load_run(engine, *deep, scheme="tls")
                for engine in ENGINES
            },
        }
