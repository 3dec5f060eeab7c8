"""The share of a test that one generator has to do."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from ctypes import c_int64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import msgspec

from echo_client.addresses import Address
from echo_load.plan.pacing import Schedule, Timeline
from echo_load.plan.payload import Payload
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan

if TYPE_CHECKING:
    # Imported before gevent patches it, the module would keep unpatched parts.
    import ssl

# An instant of the monotonic clock, or a sequence number, that is never reached.
NEVER = 2**62
# The pause between two attempts to connect: doubled each time, up to the longest.
_BACK_OFF_SECONDS = 0.05
_LONGEST_BACK_OFF_SECONDS = 1.0
# Failures in a row (7 seconds) after which to give up a connection if nothing else ends a test.
_MOST_FAILURES = 10


def back_off_seconds(failures: int) -> float:
    """Return how long to wait before the next attempt to connect, after this many in a row."""
    return min(_BACK_OFF_SECONDS * 2.0 ** min(failures, 10), _LONGEST_BACK_OFF_SECONDS)


@dataclass(frozen=True, slots=True)
class Share:
    """One generator's share of the connections and of the messages.

    Attributes:
        plan: what all generators have to do.
        stages: those of the plan that share their connections.
        targets: the addresses of each target, in the order in which to try them.
        payload: what is sent.
        sources: addresses to connect from, which connections use in turn; empty for any.
        generator: its number, from 0.
        generators: how many there are.
        connections: how many connections there are in all; it has every `generators`th.
        core: the only processor core to run on; None for any.
        seed: of random numbers.
        target: the index of the only target that it uses; None for all.
        end_ns: the instant of the monotonic clock after which nothing new is sent. The controller
            changes it in shared memory: among a thousand threads that take turns at the GIL, a
            thread that had to be told first could wait for seconds.
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

    @classmethod
    def alone(cls, plan: Plan, targets: Sequence[Sequence[Address]], seed: int = 0) -> Self:
        """Return the share of a single generator that runs until it is told to end.

        Args:
            plan: what it has to do.
            targets: the addresses of each target.
            seed: of random numbers.
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
        )

    @property
    def numbers(self) -> range:
        """The numbers of its connections; all connections are numbered from 1."""
        first, step = 1 + self.generator, self.generators
        if self.target is not None:
            targets = len(self.targets)
            begin, step = first, math.lcm(step, targets)
            of_target = (
                number
                for number in range(begin, begin + step, self.generators)
                if (number - 1) % targets == self.target
            )
            # Without one, no connection of this generator has this target.
            first = next(of_target, self.connections + 1)
        return range(first, self.connections + 1, step)

    def by_target(self) -> dict[int, Share]:
        """Return a share for each target that this one has connections to, by its index."""
        targets = len(self.targets)
        if targets == 1:
            return {0: self}
        plan = msgspec.structs.replace(
            self.plan, connects_in_flight=-(-self.plan.connects_in_flight // targets)
        )
        shares = {target: replace(self, plan=plan, target=target) for target in range(targets)}
        return {target: share for target, share in shares.items() if share.numbers}

    @property
    def connect_gap(self) -> float:
        """The least seconds between two connections that it opens: its part of the connect rate."""
        rate, own = self.plan.connect_rate, len(self.numbers)
        return self.connections / (rate * own) if rate and own else 0.0

    def quota(self, number: int) -> int | None:
        """Return how many messages a connection sends in all; None if there is no limit."""
        if self.plan.messages is None or self.plan.open_loop:
            return None
        least, more = divmod(self.plan.messages, self.connections)
        return least + (number <= more)

    def stop_at(self, number: int, sequence: int) -> int:
        """Return the sequence before which a connection stops sending, to be closed or replaced.

        Args:
            number: the connection's number.
            sequence: the number of its next message, when it has just been opened.
        """
        quota = self.quota(number)
        through = NEVER if quota is None else quota
        return through if self.plan.churn is None else min(through, sequence + self.plan.churn)

    def gives_up(self, failures: int) -> bool:
        """Return whether to give a connection up after this many failures in a row."""
        if not self.plan.reconnect:
            return failures > 0
        endless = self.plan.seconds is None and self.plan.messages is not None
        return endless and failures >= _MOST_FAILURES

    @property
    def ends_when_idle(self) -> bool:
        """Whether it also ends once no connection is left, not only at an instant.

        That is the case if the messages are limited, lost connections are not reopened, or nothing
        else ends it.
        """
        plan = self.plan
        return plan.messages is not None or not plan.reconnect or self.timeline.seconds == math.inf

    @property
    def due_until_ns(self) -> int:
        """The instant of the monotonic clock until which messages are due: the end, or now."""
        end_ns = self.end_ns.value
        return end_ns if end_ns < NEVER else time.monotonic_ns()

    @property
    def timeline(self) -> Timeline:
        """The timeline of its stages."""
        return Timeline.of(self.plan, self.stages)

    @property
    def lifetimes(self) -> Timeline | None:
        """The timeline that says when connections are open; None if they always are."""
        return None if self.plan.open_loop or not self.plan.stages else self.timeline

    def schedule(self) -> Schedule | None:
        """The instants at which its messages are due, from the beginning; None in a closed loop."""
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
        # Otherwise, with as many targets as sources, each target would see one source only.
        turn = (number - 1) // len(self.targets)
        return self.sources[turn % len(self.sources)] if self.sources else None

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS context; None if no target speaks TLS."""
        if not any(address.transport == "tls" for target in self.targets for address in target):
            return None
        return self.plan.tls.context()
