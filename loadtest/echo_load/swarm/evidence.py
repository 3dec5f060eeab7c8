"""The first failures of each kind that the users of a swarm find.

Each worker sends its own to the master together with locust's statistics; the master keeps the
earliest.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from echo_load.engines.evidence import Evidence as Collector
from echo_load.engines.evidence import Found
from echo_load.plan.payload import Payload
from echo_load.results.evidence import Evidence, earliest, evidence_of

# Key of the evidence in the message of a worker to the master.
_FIELD = "echoswarm_evidence"


class SwarmEvidence:
    """The first failures of each kind, of this process or of all workers.

    Args:
        environment: locust's environment, whose events clear it and send it to the master.
    """

    def __init__(self, environment: Any) -> None:
        self._begin_ns: int | None = None
        self._collectors: dict[str, Collector] = {}
        self._evidence = Evidence()
        self._sent = Evidence()
        events = environment.events
        events.report_to_master.add_listener(self._on_report_to_master)
        events.worker_report.add_listener(self._on_worker_report)
        events.reset_stats.add_listener(self._clear)
        events.test_start.add_listener(self._on_test_start)

    def collector(self, target: str, payload: Payload) -> Collector:
        """Return what keeps the failures of users of a service.

        Args:
            target: URL of the service.
            payload: what the users send.
        """
        if target not in self._collectors:
            self._collectors[target] = Collector(payload)
        return self._collectors[target]

    def add(self, target: str, found: Found) -> None:
        """Add failures that an engine has found.

        Args:
            target: URL of the service.
            found: the failures.
        """
        kinds = Counter(one.kind for one in found.replies)
        kinds.update(one.kind for one in found.failures)
        if kinds:
            more = evidence_of(found, kinds, [target], self._begin_ns)
            self._evidence = earliest([self._evidence, more])

    def total(self) -> Evidence:
        """Return the first failures of each kind so far."""
        for target, collector in self._collectors.items():
            self.add(target, collector.take())
        return self._evidence

    def _clear(self, **_: object) -> None:
        self._collectors.clear()
        self._evidence = self._sent = Evidence()

    def _on_test_start(self, **_: object) -> None:
        self._begin_ns = time.monotonic_ns()
        self._clear()

    def _on_report_to_master(self, data: dict[str, Any], **_: object) -> None:
        evidence = self.total()
        if evidence != self._sent:
            self._sent = evidence
            data[_FIELD] = msgspec.to_builtins(evidence)

    def _on_worker_report(self, data: dict[str, Any], **_: object) -> None:
        if _FIELD in data:
            more = msgspec.convert(data[_FIELD], Evidence)
            self._evidence = earliest([self._evidence, more])


_by_environment: WeakKeyDictionary[Any, SwarmEvidence] = WeakKeyDictionary()


def evidence_in(environment: Any) -> SwarmEvidence:
    """Return the evidence of an environment, which the first call creates."""
    if environment not in _by_environment:
        _by_environment[environment] = SwarmEvidence(environment)
    return _by_environment[environment]
