"""The dispatcher of the hub engine's open loop."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import repeat

import pytest
from gevent.hub import get_hub

from echo_client.addresses import resolve
from echo_core.endpoint import Endpoint
from echo_core.epoll_set import EpollSet
from echo_load.engines.hub.connection import ConnectionSlot, HubConnection
from echo_load.engines.hub.dispatcher import Dispatcher
from echo_load.engines.recorder import Recorder
from echo_load.engines.share import Share
from echo_load.plan.plan import Plan
from support.processes import DEADLINE


class Sent:
    """An exchange that sends nothing, and counts the messages that it was told to send."""

    pipeline = batch = 1

    def __init__(self) -> None:
        self.count = 0

    def capacity(self, _connection: HubConnection) -> int:
        return 1

    def send(
        self, _connection: HubConnection, count: int, _now: int, _due_ns: Sequence[int] = ()
    ) -> None:
        self.count += count


@pytest.fixture
def ready() -> Iterator[select.epoll]:
    with select.epoll() as epoll:
        yield epoll


def test_a_generator_that_is_behind_receives_between_its_sends(ready: select.epoll) -> None:
    """Otherwise replies that had arrived would be counted as late."""
    connections = 1000
    target = Endpoint.parse("udp://127.0.0.1:9")
    [address] = resolve(target)
    plan = Plan(targets=("udp://127.0.0.1:9",), connections=connections, rate=1e6, duration=60)
    share = Share.alone(plan, [[address]])
    schedule = share.schedule()
    assert schedule is not None
    sent = Sent()
    epoll_set = EpollSet(get_hub().loop, ready, lambda _ready: None)
    dispatcher = Dispatcher(schedule, epoll_set, Recorder(share.timeline), sent)
    with closing(dispatcher), closing(epoll_set):
        free = [
            HubConnection.of(slot, address, None)
            for slot in map(ConnectionSlot, range(connections))
        ]
        for connection in free:
            dispatcher.add(connection)
        # All of their messages have been due for long.
        dispatcher.start(time.monotonic_ns() - int(30e9))
        steps = []
        while sent.count < connections:
            before = sent.count
            dispatcher.dispatch()
            steps.append(sent.count - before)
            if sent.count < connections:
                # It continues at once, also if no reply arrives.
                assert ready.poll(DEADLINE)
                dispatcher.timer_is_ready()
        for connection in free:
            connection.close()
    assert steps == [*repeat(64, connections // 64), connections % 64]
