"""Fields of a plan that a watch or a search for an idle timeout would ignore."""

from __future__ import annotations

from typing import Any

import pytest

from echo_core.errors import InvalidValueError
from echo_load import IdlePlan, Plan, WatchPlan

TARGET = "127.0.0.1:50007"
UNUSED: list[dict[str, Any]] = [
    {"engine": "threads"},
    {"processes": 2},
    {"messages": 10},
    {"rate": 100},
    {"rate": "1MB/s"},
    {"stages": "10/1s,20/1s"},
    {"stages": "10/1s", "loop": True, "duration": "5s"},
    {"warmup": "1s"},
    {"pipeline": 4},
    {"churn": 5},
    {"reconnect": False},
    {"connect_rate": 100},
    {"connects_in_flight": 7},
    {"repeat": 3},
    {"thresholds": "p99<5ms"},
    {"abort_on": "errors>10"},
    {"source_ips": ("127.0.0.2", "127.0.0.3")},
    {"source_ips": "127.0.1.0/24"},
]
USED: list[dict[str, Any]] = [
    {"hello": True},
    {"message": "ping"},
    {"payload_size": "1KiB"},
    {"timeout": "2s"},
    {"source_ips": "127.0.0.2"},
    {"keepalive": "5s"},
    {"send_proxy": "v2"},
    {"dscp": "EF"},
]


@pytest.mark.parametrize("given", UNUSED, ids=str)
def test_a_field_that_would_be_ignored_is_refused_by_name(given: dict[str, Any]) -> None:
    plan = Plan(targets=TARGET, **given)
    name = next(iter(given))
    with pytest.raises(InvalidValueError, match=rf"^`{name}` .*in the plan of a watch$"):
        WatchPlan(plan=plan)
    with pytest.raises(InvalidValueError, match=rf"^`{name}` .*in the plan of a search"):
        IdlePlan(plan=plan)


@pytest.mark.parametrize("given", USED, ids=str)
def test_fields_that_are_used_are_accepted(given: dict[str, Any]) -> None:
    plan = Plan(targets=TARGET, **given)
    assert WatchPlan(plan=plan).plan == plan
    assert IdlePlan(plan=plan).plan == plan


def test_the_timeout_of_a_watch_is_that_of_connecting_too() -> None:
    plan = Plan(targets=TARGET, timeout="2s", connect_timeout="2s")
    assert WatchPlan(plan=plan).plan == plan
    with pytest.raises(InvalidValueError, match="`connect_timeout` 3s is not the `timeout` 2s"):
        WatchPlan(plan=Plan(targets=TARGET, timeout="2s", connect_timeout="3s"))
