"""Locust users of an echo service."""

from __future__ import annotations

import random
import time
from typing import Any

import gevent
from locust import User, task
from locust.user.task import LOCUST_STATE_STOPPING

from echo_core.endpoint import Endpoint
from echo_load.engines.hub.engine import HubEngine
from echo_load.engines.recorder import Recorder, Snapshot
from echo_load.engines.share import Share
from echo_load.measure.counts import Counts
from echo_load.swarm.client import EchoClient, resolved
from echo_load.swarm.evidence import evidence_in
from echo_load.swarm.histograms import histograms_of
from echo_load.swarm.locust_stats import add_measurements
from echo_load.swarm.pretended_clients import clients_before
from echo_load.swarm.settings import Settings, parse_host

_POLL_SECONDS = 0.01
# Interval at which the measurements of a block are added to locust's statistics.
_UPDATE_SECONDS = 0.25


class _User(User):
    """A user that may be stopped twice, which happens if several users end the test."""

    abstract = True

    def stop(self, force: bool = False) -> bool:
        """Stop the user, unless it is stopping already."""
        if self._state == LOCUST_STATE_STOPPING and not force:
            return False
        return bool(super().stop(force))


class EchoUser(_User):
    """The base class of users with one connection.

    It has no tasks. Tasks of a subclass use `self.client`, an `EchoClient`: `self.client.echo()`
    sends a message and checks the reply. Locust's tables show `connect`, `message` and `close` as
    separate requests.
    """

    abstract = True

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.settings = Settings.of(environment.parsed_options)
        self.client = EchoClient(environment, parse_host(self.host), self.settings)

    @classmethod
    def check(cls, settings: Settings, endpoint: Endpoint) -> None:
        """Check the options before a user is created.

        Raises:
            InvalidValueError: options contradict each other.
            TlsFileError: a file for TLS is invalid.
        """
        settings.plan(endpoint).payload(0)
        if endpoint.scheme == "tls":
            settings.tls.context()

    def wait_time(self) -> float:
        """Return the pause before the next message in seconds."""
        least, most = self.settings.wait
        return least if least == most else random.uniform(least, most)  # noqa: S311  # no secret

    def on_stop(self) -> None:
        """Close the connection."""
        self.client.close()


class EchoBlockUser(_User):
    """A user with many connections, driven by the hub engine, for more load than `EchoUser`.

    Its messages are checked and timed as in `echo-load run`, and added to locust's statistics in
    batches, as `connect` and `message`. Listeners of locust's `request` event are not called.
    """

    abstract = True

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._settings = Settings.of(environment.parsed_options)

    @classmethod
    def check(cls, settings: Settings, endpoint: Endpoint) -> None:
        """Check the options before a user is created.

        Raises:
            InvalidValueError: options contradict each other.
            TlsFileError: a file for TLS is invalid.
        """
        settings.plan(endpoint, "hub").payload(0)
        if endpoint.scheme == "tls":
            settings.tls.context()

    @task
    def drive(self) -> None:
        """Open the connections and send messages until locust stops the user."""
        endpoint = parse_host(self.host)
        plan = self._settings.plan(endpoint, "hub")
        seed = random.SystemRandom().getrandbits(32)
        before = clients_before(self.environment, plan.proxy_headers, plan.connections)
        share = Share.alone(plan, [resolved(endpoint)], seed, before)
        recorder = Recorder(share.timeline, share.payload)
        engine = HubEngine(share, recorder)
        counted = Counts()
        method = endpoint.scheme.upper()

        def take() -> tuple[Counts, Snapshot]:
            """Return the measurements since the last call."""
            nonlocal counted
            counts = engine.counts()
            gained, counted = counts.since(counted), counts
            return gained, recorder.take(counts)

        def update() -> None:
            gained, measured = take()
            histograms = histograms_of(self.environment)
            add_measurements(self.environment, histograms, method, gained, measured)
            evidence_in(self.environment).add(str(endpoint), measured.found)

        def discard(**_: object) -> None:
            """Discard measurements from before a reset of locust's statistics."""
            take()

        events: Any = self.environment.events
        events.reset_stats.add_listener(discard)

        engine.open()
        try:
            while not engine.settled:
                gevent.sleep(_POLL_SECONDS)
            gate_ns = time.monotonic_ns()
            recorder.start(gate_ns)
            recorder.stage = 0
            engine.start(gate_ns)
            while not engine.ended:
                gevent.sleep(_UPDATE_SECONDS)
                update()
                if self._state == LOCUST_STATE_STOPPING:
                    # Replies to messages in flight may arrive until their timeouts.
                    share.end_ns.value = min(share.end_ns.value, time.monotonic_ns())
        finally:
            share.end_ns.value = 0
            engine.abort()
            update()
            events.reset_stats.remove_listener(discard)
