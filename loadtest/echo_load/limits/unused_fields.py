"""Fields of a `Plan` that a command would ignore, and refuses instead."""

from __future__ import annotations

import dataclasses

from echo_core.errors import InvalidValueError
from echo_load.plan.plan import Plan

# The pace, the stages, the generators and the verdict of a load, which single probes do not have.
LOAD_FIELDS = (
    *("engine", "processes", "messages", "rate", "arrivals", "stages", "staged_rate", "loop"),
    *("reopen", "warmup", "pipeline", "churn", "reconnect", "connect_rate", "connects_in_flight"),
    *("tls_resume", "repeat", "thresholds", "abort_on"),
)


def refuse_fields(plan: Plan, names: tuple[str, ...], what: str) -> None:
    """Check that fields of a plan have their defaults.

    Args:
        plan: the plan.
        names: names of the fields.
        what: what the plan is for, such as `a watch`.

    Raises:
        InvalidValueError: a field has another value, or there are several source addresses.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(Plan)}
    for name in names:
        if getattr(plan, name) != defaults[name]:
            raise InvalidValueError(f"`{name}` cannot be given in the plan of {what}")
    if len(plan.source_ips) > 1 or any("/" in one for one in plan.source_ips):
        raise InvalidValueError(
            f"`source_ips` {', '.join(plan.source_ips)} is more than the one address that can be "
            f"given in the plan of {what}"
        )
