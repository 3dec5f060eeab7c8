"""The share of a test that one generator runs."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from ctypes import c_int64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from echo_client.addresses import Address
from echo_load.plan.pacing import Schedule, Timeline
from echo_load.plan.payload import Payload
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan

if TYPE_CHECKING:
    # Not imported at run time: gevent has to patch the module before it is imported.
    import ssl

# An instant of the monotonic clock, or a sequence number, that is never reached.
NEVER = 2**62
# Pause between attempts to connect: doubled with each consecutive failure, up to the longest.
_BACK_OFF_SECONDS = 0.05
_LONGEST_BACK_OFF_SECONDS = 1.0
_TICK_SECONDS = 0.01
# A timeout is noticed at most about this share of it too late.
_TICK_SHARE = 0.1
# Consecutive failures (in about 7 seconds) after which a connection is given up, if nothing else
# would end the test.
_MOST_FAILURES = 10


def back_off_seconds(failures: int) -> float:
    """Return the pause in seconds after a number of consecutive failures to connect."""
    return min(_BACK_OFF_SECONDS * 2.0 ** min(failures, 10), _LONGEST_BACK_OFF_SECONDS)


@dataclass(frozen=True, slots=True)
class Share:
    """One generator's share of the connections and of the messages of a test.

    Attributes:
        plan: the test, which all generators share.
        stages: stages of the plan that share their connections.
        targets: addresses of each target, in the order in which they are tried.
        payload: messages of the test.
        sources: addresses to connect from, which connections use in turn; empty for any.
        generator: number of the generator, from 0.
        generators: number of generators.
        connections: number of connections of all generators. The generator has every
            `generators`th of them.
        core: processor core to which the generator is pinned; None to not pin it.
        seed: seed of random numbers.
        target: index of the only target of this share; None for all targets.
        clients_before: number of the pretended clients of PROXY headers that connections of other
            tests at the same time have.
        end_ns: instant after which no message becomes due, in nanoseconds of the monotonic clock;
            0 if the test was stopped. It is in shared memory, so that a change by the controller
            takes effect in all threads at once: where a thousand threads share the GIL, a thread
            that forwards it could be delayed for seconds.
    """

    plan: Plan
    stages: tuple[StagePlan, ...]
    targets: tuple[tuple[Address, ...], ...]
    payload: Payload
    sources: tuple[str, ...]
    generator: int
    generators: int
    connections: int
    core: int | None
    seed: int
    end_ns: c_int64
    target: int | None = None
    clients_before: int = 0

    @classmethod
    def alone(
        cls,
        plan: Plan,
        targets: Sequence[Sequence[Address]],
        seed: int = 0,
        clients_before: int = 0,
    ) -> Self:
        """Return the share of a single generator, which has no end until `end_ns` is set.

        Args:
            plan: the test.
            targets: addresses of each target.
            seed: seed of random numbers.
            clients_before: number of pretended clients that are not those of this share.
        """
        return cls(
            plan=plan,
            stages=plan.run_stages,
            targets=tuple(map(tuple, targets)),
            payload=plan.payload(seed),
            sources=(),
            generator=0,
            generators=1,
            connections=plan.most_connections,
            core=None,
            seed=seed,
            end_ns=c_int64(NEVER),
            clients_before=clients_before,
        )

    @property
    def tick_seconds(self) -> float:
        """The interval in seconds of a generator's periodic work.

        It is longer if generators share cores, which otherwise would mostly wake up for that, but
        not too long for the timeouts of the plan.
        """
        if self.core is not None:
            return _TICK_SECONDS
        shortest = min(self.plan.reply_timeout, self.plan.connect_timeout)
        shared = _TICK_SECONDS * self.generators / len(os.sched_getaffinity(0))
        return max(_TICK_SECONDS, min(shared, shortest * _TICK_SHARE))

    @property
    def numbers(self) -> range:
        """The numbers of the connections of this share; all connections are numbered from 1."""
        first, step = 1 + self.generator, self.generators
        if self.target is not None:
            targets = len(self.targets)
            begin, step = first, math.lcm(step, targets)
            of_target = (
                number
                for number in range(begin, begin + step, self.generators)
                if (number - 1) % targets == self.target
            )
            # If this generator has no connection to the target, the range is empty.
            first = next(of_target, self.connections + 1)
        return range(first, self.connections + 1, step)

    def by_target(self) -> dict[int, Share]:
        """Return a share for each target to which this one has connections, by its index."""
        targets = len(self.targets)
        if targets == 1:
            return {0: self}
        plan = replace(self.plan, connects_in_flight=-(-self.plan.connects_in_flight // targets))
        shares = {target: replace(self, plan=plan, target=target) for target in range(targets)}
        return {target: share for target, share in shares.items() if share.numbers}

    @property
    def connect_gap(self) -> float:
        """The interval in seconds at which connections may be opened; 0 without a connect rate.

        It is such that all generators together keep to the connect rate.
        """
        rate, own = self.plan.connect_rate, len(self.numbers)
        return self.connections / (rate * own) if rate and own else 0.0

    def quota(self, number: int) -> int | None:
        """Return the number of messages that a connection sends in all; None without a limit."""
        if self.plan.messages is None or self.plan.open_loop:
            return None
        least, more = divmod(self.plan.messages, self.connections)
        return least + (number <= more)

    def stop_at(self, number: int, sequence: int) -> int:
        """Return the first sequence number that a connection does not send any more.

        When it has sent all messages before, it is closed or replaced.

        Args:
            number: number of the connection.
            sequence: sequence number of its next message at the time when it is opened.
        """
        quota = self.quota(number)
        through = NEVER if quota is None else quota
        return through if self.plan.churn is None else min(through, sequence + self.plan.churn)

    def gives_up(self, failures: int) -> bool:
        """Return whether to give up a connection after a number of consecutive failures."""
        if not self.plan.reconnect:
            return failures > 0
        endless = self.plan.seconds is None and self.plan.messages is not None
        return endless and failures >= _MOST_FAILURES

    @property
    def ends_when_idle(self) -> bool:
        """True if the test also ends when no connection is left, and not only at its end.

        That is the case if the number of messages is limited, lost connections are not reopened, or
        the stages have no end.
        """
        plan = self.plan
        return plan.messages is not None or not plan.reconnect or self.timeline.seconds == math.inf

    @property
    def due_until_ns(self) -> int:
        """The instant up to which messages are due: the end, or now if there is none.

        It is in nanoseconds of the monotonic clock.
        """
        end_ns = self.end_ns.value
        return end_ns if end_ns < NEVER else time.monotonic_ns()

    @property
    def timeline(self) -> Timeline:
        """The timeline of the stages."""
        return Timeline.of(self.plan, self.stages)

    @property
    def lifetimes(self) -> Timeline | None:
        """The timeline of the number of connections; None if they are always open."""
        return None if self.plan.open_loop or not self.plan.stages else self.timeline

    def schedule(self) -> Schedule | None:
        """Return the schedule of the messages of this share; None in a closed loop."""
        if not self.plan.open_loop:
            return None
        numbers = self.numbers
        turns = range(numbers.start - 1, self.connections, numbers.step)
        messages = self.plan.messages
        if messages is not None:
            rounds, more = divmod(messages, self.connections)
            messages = rounds * len(turns) + sum(turn < more for turn in turns)
        return Schedule(
            self.timeline,
            self.plan.arrivals,
            turns=turns,
            of=self.connections,
            seed=self.seed,
            messages=messages,
        )

    def addresses(self, number: int) -> tuple[Address, ...]:
        """Return the addresses of a connection's target; connections use the targets in turn."""
        return self.targets[(number - 1) % len(self.targets)]

    def source(self, number: int) -> str | None:
        """Return the source address of a connection; None for any."""
        # Connections to the same target use the sources in turn. Otherwise, with as many sources as
        # targets, each target would be reached from one source only.
        turn = (number - 1) // len(self.targets)
        return self.sources[turn % len(self.sources)] if self.sources else None

    def tls_context(self) -> ssl.SSLContext | None:
        """Return the TLS context; None if no target uses TLS."""
        if not any(address.transport == "tls" for target in self.targets for address in target):
            return None
        return self.plan.tls.context()
