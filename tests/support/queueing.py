"""Queueing theory of a single worker with a fixed service time: the M/D/1 queue."""

from __future__ import annotations

import math


def share_answered_within(seconds: float, rate: float, service: float) -> float:
    """The share of messages that an M/D/1 queue answers within a time.

    That is the waiting time's distribution (A. K. Erlang, The Theory of Probabilities and Telephone
    Conversations, 1909; V. Iversen and L. Staalhagen, Waiting time distribution in M/D/1 queueing
    systems, Electronics Letters 35, 1999), plus the fixed service time.
    """
    waited = seconds - service
    if waited < 0:
        return 0.0
    # The queue's load at which `number` services have begun in the time.
    loads = [rate * (number * service - waited) for number in range(int(waited / service) + 1)]
    return (1 - rate * service) * math.fsum(
        load**number / math.factorial(number) * math.exp(-load) for number, load in enumerate(loads)
    )


def rate_that_keeps(percentile: float, seconds: float, service: float) -> float:
    """The rate at which this share of messages is answered within a time, by bisection."""
    low, high = 0.0, 1 / service
    while high - low > 1e-6:
        middle = (low + high) / 2
        if share_answered_within(seconds, middle, service) >= percentile:
            low = middle
        else:
            high = middle
    return low
