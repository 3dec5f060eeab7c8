"""The reconciliation of the generators' counts with the counters of the server.

The bytes or datagrams sent, received by the server, sent by the server, and received must be equal.
Any difference is described with its possible causes.
"""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Literal
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from echo_core.errors import InvalidValueError
from echo_load.errors import AdminError
from echo_load.measure.counts import Counts
from echo_load.results.reconciliation import Reconciliation

_TIMEOUT_SECONDS = 5.0
# Longest wait for the server to notice the end of every connection.
_SETTLE_SECONDS = 5.0
_POLL_SECONDS = 0.05
_PREFIX = "echo_server_"
# Proxies of the environment are ignored: the target is reached without one, too.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(slots=True)
class _ServerCounts:
    """The counters of a server since its start, or their increase between two readings."""

    totals: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)
    connections_open: int = 0

    def since(self, before: _ServerCounts) -> _ServerCounts:
        """Return the increase since an earlier reading."""
        return _ServerCounts(
            self.totals - before.totals,
            self.dropped - before.dropped,
            self.faults - before.faults,
            self.closed - before.closed,
            self.connections_open - before.connections_open,
        )

    def by_name(self) -> dict[str, int]:
        """Return all counts by name, except that of open connections.

        A metric with a label has one name per value of it, such as `closed{reset}`.
        """
        labelled = {"closed": self.closed, "dropped": self.dropped, "faults": self.faults}
        return {
            name.removesuffix("_total"): count for name, count in sorted(self.totals.items())
        } | {
            f"{name}{{{kind}}}": count
            for name, counts in labelled.items()
            for kind, count in sorted(counts.items())
        }


class Reconciler:
    """The counters of a server before a test, to compare with those after it.

    Args:
        admin: URL of the admin page of an echo-server, `http://HOST:PORT` or just `HOST:PORT`.

    Raises:
        InvalidValueError: `admin` is not such a URL.
        AdminError: the counters cannot be read from there.
    """

    def __init__(self, admin: str) -> None:
        base = admin if "://" in admin else f"http://{admin}"
        self.admin = base.removesuffix("/").removesuffix("/metrics")
        if not _is_http_url(self.admin):
            raise InvalidValueError(
                f"`reconcile`: {admin!r} is not the http://HOST:PORT of an echo-server's --admin "
                "page"
            )
        self._before = self._read()

    def compare(self, counts: Counts, *, datagrams: bool) -> Reconciliation:
        """Compare the counters with the generators' counts, once all connections have ended.

        Args:
            counts: counts of all generators since the counters were first read.
            datagrams: whether to compare datagrams instead of bytes.

        Raises:
            AdminError: the counters can no longer be read.
        """
        gained = self._settled().since(self._before)
        if datagrams:
            sent, received = counts.datagrams_sent, counts.datagrams_received
            names = ("datagrams_received_total", "datagrams_sent_total")
        else:
            sent, received = counts.bytes_sent, counts.bytes_received
            names = ("received_bytes_total", "sent_bytes_total")
        arrived, returned = (gained.totals[name] for name in names)
        unit: Literal["bytes", "datagrams"] = "datagrams" if datagrams else "bytes"
        return Reconciliation(
            admin=self.admin,
            unit=unit,
            sent=sent,
            received_by_server=arrived,
            sent_by_server=returned,
            received=received,
            balanced=sent == arrived == returned == received,
            differences=_differences(sent, arrived, returned, received, unit, gained),
            server=gained.by_name(),
        )

    def _settled(self) -> _ServerCounts:
        """Read the counters until the connections of the test have ended and no counter changes.

        After a few seconds, return them as they are.
        """
        deadline = time.monotonic() + _SETTLE_SECONDS
        found = self._read()
        while time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            again = self._read()
            if again == found and again.connections_open <= self._before.connections_open:
                break
            found = again
        return found

    def _read(self) -> _ServerCounts:
        try:
            with _DIRECT.open(f"{self.admin}/metrics", timeout=_TIMEOUT_SECONDS) as answer:
                text = answer.read().decode()
        except (OSError, HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise AdminError(f"cannot read {self.admin}/metrics: {reason}") from error
        return _parse(text, self.admin)


def _is_http_url(url: str) -> bool:
    """Return whether a text is a URL of http or https with a host."""
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in {"http", "https"}
            and bool(parts.hostname)
            and parts.port != 0
            and not any(character.isspace() for character in url)
        )
    except ValueError:
        return False


def _parse(text: str, admin: str) -> _ServerCounts:
    counts = _ServerCounts()
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                _add(counts, sample.name, sample.labels, int(sample.value))
    except (ValueError, OverflowError, KeyError) as error:
        raise AdminError(f"{admin}/metrics is not the metrics page of an echo-server") from error
    if "received_bytes_total" not in counts.totals:
        raise AdminError(f"{admin}/metrics has no counters of an echo-server")
    return counts


def _add(counts: _ServerCounts, sample: str, labels: dict[str, str], value: int) -> None:
    name = sample.removeprefix(_PREFIX)
    if name == sample:
        return
    if name == "connections_open":
        counts.connections_open += value
    elif name == "datagrams_dropped_total":
        counts.dropped[labels["reason"]] += value
    elif name == "faults_injected_total":
        counts.faults[labels["kind"]] += value
    elif name == "connections_closed_total":
        counts.closed[labels["reason"]] += value
    elif name.endswith("_total"):
        counts.totals[name] += value


def _differences(
    sent: int, arrived: int, returned: int, received: int, unit: str, gained: _ServerCounts
) -> list[str]:
    """Return a description of each difference between the four counts.

    Args:
        sent: bytes or datagrams that the generators sent.
        arrived: those that the server received.
        returned: those that the server sent.
        received: those that the generators received.
        unit: `bytes` or `datagrams`.
        gained: increase of all counters of the server, for the possible causes.
    """
    found = []
    if sent > arrived:
        found.append(f"{sent - arrived:,} {unit} were sent that the server did not receive")
    if sent < arrived:
        found.append(
            f"the server received {arrived - sent:,} {unit} more than were sent: it has other "
            "clients, or the path duplicates data"
        )
    if arrived != returned:
        more, fewer = max(0, returned - arrived), max(0, arrived - returned)
        reasons = [
            *(f"{count:,} {kind} injected" for kind, count in sorted(gained.faults.items())),
            *(f"{count:,} dropped for {why}" for why, count in sorted(gained.dropped.items())),
            *(
                f"{count:,} connections closed by {why}"
                for why, count in sorted(gained.closed.items())
                if why != "end_of_stream"
            ),
        ]
        found.append(
            f"the server sent back {more or fewer:,} {unit} {'more' if more else 'fewer'} than it "
            "received" + (f" ({', '.join(reasons)})" if reasons else "")
        )
    if returned > received:
        found.append(
            f"{returned - received:,} {unit} left the server and did not come back, or arrived on "
            "connections that were given up"
        )
    if returned < received:
        found.append(
            f"{received - returned:,} {unit} came back that the server did not send: the path "
            "duplicates or adds data"
        )
    return found
