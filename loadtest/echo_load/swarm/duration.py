"""The duration of a swarm's test, from which its rates are computed."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakKeyDictionary


class Duration:
    """The duration of the running test, or of the last one.

    Args:
        environment: locust's environment, whose events mark the beginning and the end.

    Attributes:
        has_begun: whether a test has begun.
    """

    def __init__(self, environment: Any) -> None:
        self._total = environment.stats.total
        self._stopped: float | None = None
        self.has_begun = False
        environment.events.test_start.add_listener(self._on_start)
        environment.events.test_stopping.add_listener(self._on_stopping)

    @property
    def has_ended(self) -> bool:
        """True if the last test has ended."""
        return self._stopped is not None

    @property
    def seconds(self) -> float:
        """Seconds until locust began to stop its users, or until the last request if that is later.

        During a test they are the seconds so far.
        """
        end = time.time() if self._stopped is None else self._stopped
        last: float = self._total.last_request_timestamp or 0.0
        start: float = self._total.start_time
        return max(0.0, end - start, last - start)

    def _on_start(self, **_: object) -> None:
        self.has_begun = True
        self._stopped = None

    def _on_stopping(self, **_: object) -> None:
        self._stopped = time.time()


_by_environment: WeakKeyDictionary[Any, Duration] = WeakKeyDictionary()


def duration_of(environment: Any) -> Duration:
    """Return the duration of an environment's tests; only tests after the first call count."""
    if environment not in _by_environment:
        _by_environment[environment] = Duration(environment)
    return _by_environment[environment]
