"""The kernel's figures of connections: the time to open them, and retransmits."""

from __future__ import annotations

import ctypes
import socket
import subprocess
import sys
from threading import Event

import pytest

from echo_client.tcp_info import TcpInfo
from support.misbehaving import Service
from support.processes import DEADLINE, EchoServerProcess, environment, loaded

# asm-generic/socket.h; Python does not name it.
_SO_ATTACH_FILTER = 26
# linux/filter.h: an instruction that accepts no byte of a segment.
_RETURN = 0x06


class _Instruction(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction))]


def loses_everything(connection: socket.socket, over: Event) -> None:
    """Let no segment of an established connection arrive (socket(7), SO_ATTACH_FILTER)."""
    program = _Program(1, ctypes.pointer(_Instruction(_RETURN, 0, 0, 0)))
    connection.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
    over.wait(DEADLINE)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["hub", "threads", "greenlets"])
def test_retransmits_where_nothing_ever_came_back(engine: str) -> None:
    with Service(loses_everything) as service:
        _, result = loaded(
            *("run", service.target, "--engine", engine, "-c", "4", "-n", "4"),
            *("--timeout", "400ms", "--no-reconnect"),
        )
    assert result.totals.errors == {"no_reply": 4}
    assert (result.totals.retransmits or 0) >= 4
    assert result.latency_us.kernel.count == 4


# In a process of its own, because it blocks the event loop.
HELD_UP = """
import sys, time
import gevent
from echo_client.addresses import resolve
from echo_core.endpoint import Endpoint
from echo_load.engines.share import Share
from echo_load.engines.hub.engine import HubEngine
from echo_load.engines.recorder import Recorder
from echo_load.plan.plan import Plan

target = sys.argv[1]
plan = Plan(targets=(target,), connections=20, duration=60.0)
share = Share.alone(plan, [resolve(Endpoint.parse(target))])
recorder = Recorder(share.timeline)
engine = HubEngine(share, recorder)
engine.open()
time.sleep(0.5)
while not engine.settled:
    gevent.sleep(0.001)
times = recorder.times.connect
print(len(times), max(times) < 250_000_000)
"""


@pytest.mark.slow
def test_a_loop_that_is_late_does_not_measure_itself(echo_server: EchoServerProcess) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", HELD_UP, echo_server.url],
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        env=environment(),
    )
    assert ended.stdout.split() == [b"20", b"True"], ended.stderr.decode()


def test_a_handshake_that_lost_a_segment_took_as_long_as_it_took() -> None:
    assert TcpInfo(0, 70).connecting_ns(5_000_000) == 70_000
    assert TcpInfo(0, 70).connecting_ns(50_000) == 50_000
    assert TcpInfo(1, 70).connecting_ns(1_000_000_000) == 1_000_000_000
    assert TcpInfo(0, 0).connecting_ns(5_000_000) == 5_000_000
