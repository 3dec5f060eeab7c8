"""Lines of text with the replies and errors of a test, and with what it opened connections."""

from __future__ import annotations

from echo_core.units import format_bytes, format_count
from echo_load.results.result import Result


def checks(result: Result) -> str:
    """Return the numbers of connections, replies and errors in one line, without a full stop."""
    totals = result.totals
    counted = (
        f"{format_count(totals.connections_opened, 'connection')}, "
        f"{format_count(totals.messages, 'reply')}"
    )
    if errors := sum(totals.errors.values()):
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(totals.errors.items()))
        return f"{counted}, {format_count(errors, 'error')} ({kinds})"
    if not totals.messages:
        return counted
    checked = f"{counted}, all identical to what was sent ({format_bytes(totals.bytes_received)})"
    if result.reconciliation is not None and result.reconciliation.balanced:
        checked += ", reconciled"
    return checked


def opened(result: Result) -> list[str]:
    """Return the TLS that was negotiated and a lack of buffer space, a line each, if any."""
    shortfall = result.buffers.shortfall if result.buffers is not None else ""
    return [line for line in (result.totals.tls, shortfall) if line]
