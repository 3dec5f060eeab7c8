from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from ctypes import c_int64
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_client.addresses import resolve
from echo_client.tls import TlsOptions
from echo_core.endpoint import Endpoint
from echo_core.errors import InvalidValueError
from echo_load.engines.share import Share
from echo_load.measure.counts import Counts
from echo_load.plan.bounds import LARGEST_PAYLOAD, MOST_CONNECTIONS
from echo_load.plan.payload import FixedPayload, HelloPayload, StampedPayload
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan, parse_stages

STAGES = parse_stages("0-100/10s,100/30s", rates=False)
RATES = parse_stages("0-0.5/10s,0.5/30s", rates=True)
TOO_MANY = parse_stages("1-2000001/1s", rates=False)
TOO_FAST = parse_stages("1-101M/1s", rates=True)

BAD_PLANS: list[tuple[dict[str, Any], str]] = [
    # Numbers.
    ({"connections": 0}, f"`connections` 0 is not between 1 and {MOST_CONNECTIONS}"),
    ({"connections": MOST_CONNECTIONS + 1}, "`connections` 2000001 is not between 1 and"),
    ({"stages": TOO_MANY}, "the stages have up to 2000001 connections; at most 2000000"),
    ({"processes": 0}, "`processes` 0 is not between 1 and"),
    ({"processes": 1025}, "`processes` 1025 is"),
    ({"messages": 0}, "`messages` 0 is"),
    ({"messages": 10**15 + 1}, "`messages` 1000000000000001 is"),
    ({"pipeline": 0}, "`pipeline` 0 is"),
    ({"pipeline": 100_001}, "`pipeline` 100001 is"),
    ({"churn": 0}, "`churn` 0 is"),
    ({"connects_in_flight": 0}, "`connects_in_flight` 0 is"),
    ({"duration": 0.0}, "`duration` 0.0 is not above 0 and finite"),
    ({"duration": math.inf}, "`duration` inf is"),
    ({"duration": math.nan}, "`duration` nan is"),
    ({"timeout": 0.0}, "`timeout` 0.0 is"),
    ({"connect_timeout": -1.0}, "`connect_timeout` -1.0 is"),
    ({"rate": 0.0}, "`rate` 0.0 is"),
    ({"rate": math.nan}, "`rate` nan is"),
    ({"rate": 100e6 + 1}, "a rate of 100,000,001 messages per second is above 100,000,000"),
    ({"stages": TOO_FAST, "staged_rate": True}, "a rate of 101,000,000 messages per second"),
    # The rate of the warm-up.
    (
        {"stages": RATES, "staged_rate": True, "rate": 101e6},
        "a rate of 101,000,000 messages per second",
    ),
    ({"connect_rate": 0.0}, "`connect_rate` 0.0 is"),
    ({"warmup": -1.0}, "`warmup` -1.0 is negative"),
    ({"warmup": math.nan}, "`warmup` nan is"),
    # Time.
    ({"duration": timedelta(days=3651)}, "`duration`: 3.15446e+08 seconds are longer than ten"),
    ({"duration": 1e300}, "`duration`: 1e+300 seconds are longer than ten years"),
    ({"warmup": "99999h"}, "`warmup`: 3.59996e+08 seconds are longer than ten years"),
    ({"stages": "1/50000h,1/50000h"}, "`stages`: 3.6e+08 seconds are longer than ten years"),
    ({"stages": "1/1s,1/99999h", "loop": True}, "`stages`: 3.59996e+08 seconds are longer"),
    ({"stages": STAGES, "duration": 90.0}, "`duration` 1m30s and `stages` both give the duration"),
    ({"loop": True}, "`loop` repeats `stages`, but there are none; add `stages`"),
    ({"loop": True, "rate": 5.0}, "`loop` repeats `stages`"),
    ({"staged_rate": True}, "`rate` needs a number, or `stages`"),
    ({"arrivals": "poisson"}, "`arrivals` poisson has no effect without `rate`"),
    ({"arrivals": "poisson", "stages": STAGES}, "`arrivals` poisson"),
    # Payload.
    ({"payload_size": (0, 5)}, "`payload_size` 0 to 5 is not a size or a range of sizes"),
    ({"payload_size": (6, 5)}, "`payload_size` 6 to 5 is not a size or a range of sizes"),
    ({"payload_size": (1, LARGEST_PAYLOAD + 1)}, f"from 1 to {LARGEST_PAYLOAD} bytes"),
    ({"message": ""}, "is empty; it needs"),
    ({"message": "a", "payload_file": "b"}, "`message` and `payload_file` both give what is sent"),
    ({"message": "a", "hello": True}, "`message` and `hello` both give what is sent"),
    # Targets.
    ({"targets": ("localhost:0",)}, "port 0 cannot be connected to"),
    ({"targets": ("localhost:7", "fd://3")}, "fd:// is only for listening"),
    ({"targets": ("*:7",)}, "* is only for listening"),
    ({"targets": ("http://localhost",)}, "the scheme 'http' is not supported"),
    (
        {"targets": ("udp://localhost:7",), "engine": "threads"},
        "the threads engine does not support udp, which udp://localhost:7 needs; use `engine` hub",
    ),
    ({"targets": ("udp://localhost:7",), "engine": "greenlets"}, "use `engine` hub"),
    ({"message": "\udcff"}, "use `payload_file` to send"),
    ({"rate": 5.0, "stages": (StagePlan(first=1, last=1, duration=1),)}, "set `staged_rate`"),
    ({"stages": (StagePlan(first=0, last=0, duration=1),)}, "all stages are 0"),
    ({"stages": (StagePlan(first=0.5, last=1, duration=1),)}, "of a stage must be whole"),
    ({"tls": TlsOptions(insecure=True)}, "TLS options are given, but no target is tls://HOST:PORT"),
    (
        {"tls": TlsOptions(ca="x"), "targets": ("localhost:7",)},
        "TLS options are given, but no target is",
    ),
    # What connections are opened with.
    ({"send_proxy": "v3"}, "`send_proxy` 'v3' is not v1 or v2"),
    (
        {"send_proxy": "v1", "targets": ("localhost:7", "udp://localhost:7")},
        "`send_proxy` needs a stream, and udp://localhost:7 is none",
    ),
    (
        {"send_proxy_source": "10.0.0.0/8"},
        "`send_proxy_source` 10.0.0.0/8 has no effect without `send_proxy`; add `send_proxy` v1",
    ),
    (
        {"send_proxy": "v2", "send_proxy_source": "10.0.0.0/8", "targets": ("unix:///a",)},
        "`send_proxy_source` 10.0.0.0/8 applies only to IP targets, not to unix:///a",
    ),
    (
        {"send_proxy": "v2", "send_proxy_source": "10.0.0.1/8"},
        "`send_proxy_source`: '10.0.0.1/8' is neither an address nor a network (10.0.0.1/8 has",
    ),
    ({"dscp": 64}, "`dscp` 64 is not between 0 and 63"),
    ({"dscp": -1}, "`dscp` -1 is not between 0 and 63"),
    ({"dscp": 0, "targets": ("unix:///a",)}, "`dscp` applies only to IP targets, not to unix:///a"),
    ({"keepalive": 0.0}, "`keepalive` 0s is not in whole seconds, from 1s to 32767s"),
    ({"keepalive": 1.5}, "`keepalive` 1.5s is not in whole seconds"),
    ({"keepalive": 1.0, "targets": ("udp://a:7",)}, "`keepalive` needs TCP; udp://a:7 has no"),
    ({"nodelay": False, "targets": ("unix:///a",)}, "`nodelay` needs TCP, which unix:///a is not"),
    ({"buffer_size": 0}, "`buffer_size` 0 is not between 1 and 1073741824"),
]


@pytest.mark.parametrize(("fields", "expected"), BAD_PLANS)
def test_an_invalid_plan_is_refused_in_one_line(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Plan(**fields)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"stages": STAGES, "duration": 90.0, "loop": True},
        {"stages": RATES, "staged_rate": True, "arrivals": "poisson"},
        {"stages": RATES, "staged_rate": True, "rate": 3.0, "warmup": 1.0},
        {"rate": 0.5, "arrivals": "poisson", "messages": 10**15},
        {"targets": ("tls://localhost:7",), "tls": TlsOptions(insecure=True)},
        {"targets": ("tls://localhost:7", "unix:///a", "localhost"), "engine": "threads"},
        {"targets": ("udp://localhost:7", "unix:///a"), "payload_size": (65_507, 65_507)},
        {"targets": ("udp://[::1]:7",), "payload_size": (65_527, 65_527)},
        {"targets": ("udp://localhost:7",), "payload_size": (1, 65_527), "ip_version": 6},
        {"payload_size": (LARGEST_PAYLOAD, LARGEST_PAYLOAD)},
        {"connections": MOST_CONNECTIONS, "processes": 1024, "pipeline": 100_000},
        {"send_proxy": "v1", "send_proxy_source": "[2001:db8::1]:9", "targets": ("tls://a:7",)},
        {"send_proxy": "v2", "targets": ("unix:///a", "localhost")},
        {"dscp": 63, "nodelay": False, "keepalive": 32_767.0, "buffer_size": 1 << 30},
        {"dscp": 0, "keepalive": 1.0, "targets": ("udp://localhost:7", "localhost:7")},
    ],
)
def test_a_plan_is_encoded_and_decoded_without_loss(fields: dict[str, Any]) -> None:
    plan = Plan(**fields)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=Plan) == plan


def test_a_decoded_plan_is_checked() -> None:
    with pytest.raises(msgspec.ValidationError, match="`connections` 0 is not"):
        msgspec.json.decode(b'{"connections": 0}', type=Plan)


# Defaults.


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 10),
        ({"rate": 5.0}, 10),
        ({"duration": 3.0}, 3),
        ({"messages": 5}, None),
        ({"messages": 5, "duration": 3.0}, 3),
        ({"stages": STAGES}, 40),
        ({"stages": STAGES, "messages": 5}, 40),
        ({"stages": STAGES, "loop": True}, None),
        ({"stages": STAGES, "loop": True, "duration": 90.0}, 90),
        ({"stages": (*STAGES, StagePlan(first=1, last=1, duration=None))}, None),
    ],
)
def test_the_duration_of_a_plan_has_a_default(
    fields: dict[str, Any], seconds: float | None
) -> None:
    assert Plan(**fields).seconds == seconds


@pytest.mark.parametrize(
    ("fields", "engine"),
    [
        ({}, "hub"),
        ({"targets": ("localhost", "unix:///a", "udp://localhost")}, "hub"),
        ({"targets": ("localhost", "tls://localhost", "udp://localhost")}, "hub"),
        ({"targets": ("tls://localhost",), "engine": "threads"}, "threads"),
        ({"engine": "greenlets"}, "greenlets"),
    ],
)
def test_the_engine_of_a_plan_has_a_default(fields: dict[str, Any], engine: str) -> None:
    assert Plan(**fields).driven_by == engine


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 10),
        ({"targets": ("localhost",)}, 10),
        ({"targets": ("localhost", "udp://localhost")}, 1),
        ({"targets": ("udp://localhost",), "timeout": 3.0}, 3),
    ],
)
def test_the_reply_timeout_has_a_default(fields: dict[str, Any], seconds: float) -> None:
    assert Plan(**fields).reply_timeout == seconds


@pytest.mark.parametrize(
    ("fields", "connections", "open_loop", "name"),
    [
        ({}, 100, False, "100 connections"),
        ({"connections": 1}, 1, False, "1 connection"),
        ({"connections": 7, "stages": STAGES}, 100, False, "0-100 connections"),
        (
            {"connections": 7, "stages": RATES, "staged_rate": True},
            7,
            True,
            "0-0.5 msg/s on 7 connections",
        ),
        ({"connections": 1, "rate": 900.0}, 1, True, "900 msg/s on 1 connection"),
        ({"rate": 1.0}, 100, True, "1 msg/s on 100 connections"),
    ],
)
def test_plans_derive_connections_loop_and_stage_names(
    fields: dict[str, Any], connections: int, open_loop: bool, name: str
) -> None:
    plan = Plan(**fields)
    assert (plan.most_connections, plan.open_loop) == (connections, open_loop)
    assert plan.stage_name(plan.run_stages[0]) == name


@pytest.mark.parametrize(
    ("fields", "level", "duration"),
    [
        ({"connections": 7}, 7, 10),
        ({"rate": 0.5, "duration": 3.0}, 0.5, 3),
        ({"messages": 1}, 100, None),
    ],
)
def test_a_plan_without_stages_has_a_single_one(
    fields: dict[str, Any], level: float, duration: float | None
) -> None:
    assert Plan(**fields).run_stages == (StagePlan(first=level, last=level, duration=duration),)
    assert Plan(stages=STAGES).run_stages == STAGES


@pytest.mark.parametrize(
    ("fields", "level", "connections", "open_loop"),
    [
        ({"messages": 5, "thresholds": ("p99<1s",)}, 100, 100, False),
        ({"rate": 50.0, "connections": 3, "duration": 9.0}, 50, 3, True),
        ({"stages": STAGES, "loop": True, "duration": 90.0}, 100, 100, False),
        ({"stages": RATES, "staged_rate": True, "rate": 3.0}, 3, 100, True),
        ({"stages": RATES, "staged_rate": True, "repeat": 4}, 0.5, 100, True),
    ],
)
def test_a_warm_up_has_the_first_level(
    fields: dict[str, Any], level: float, connections: int, open_loop: bool
) -> None:
    plan = Plan(warmup=2.5, timeout=7.0, **fields)
    warm_up = plan.warm_up(plan.run_stages[0])
    assert warm_up.stages == (StagePlan(first=level, last=level, duration=2.5),)
    assert (warm_up.most_connections, warm_up.open_loop) == (connections, open_loop)
    assert (warm_up.seconds, warm_up.messages, warm_up.limits) == (2.5, None, ())
    assert (warm_up.reply_timeout, warm_up.warmup, warm_up.repeat) == (7.0, 0, 1)


# Payloads.


def test_a_plan_makes_its_payload(tmp_path: Path) -> None:
    file = tmp_path / "payload"
    file.write_bytes(b"\0\xff")
    payload = Plan(message="\u00e9").payload(1)
    read = Plan(payload_file=str(file)).payload(1)
    sized = Plan(payload_size=(24, 30)).payload(1)
    hello = Plan(hello=True).payload(1)
    assert (payload.message(1, 5), read.message(1, 5)) == (b"\xc3\xa9", b"\0\xff")
    assert isinstance(payload, FixedPayload)
    assert isinstance(hello, HelloPayload)
    assert isinstance(sized, StampedPayload)
    assert sized.message(1, 5) == StampedPayload(24, 30, 1).message(1, 5)
    assert sized.message(1, 5) != Plan(payload_size=(24, 30)).payload(2).message(1, 5)


def test_an_unusable_payload_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(LARGEST_PAYLOAD + 1)
    for path, expected in (
        (tmp_path / "none", "none: No such file"),
        (tmp_path, "Is a directory"),
        (empty, "empty is empty or too large"),
        (large, "large is empty or too large"),
    ):
        with pytest.raises(InvalidValueError, match=f"^`payload_file` .*{expected}"):
            Plan(payload_file=str(path)).payload(1)


# How the generators share a plan.


def shares(
    plan: Plan, generators: int, sources: Sequence[str] = (), connections: int | None = None
) -> list[Share]:
    return [
        Share(
            plan=plan,
            stages=plan.run_stages,
            targets=tuple(tuple(resolve(Endpoint.parse(one))) for one in plan.targets),
            payload=plan.payload(1),
            sources=tuple(sources),
            generator=generator,
            generators=generators,
            connections=connections or plan.most_connections,
            core=None,
            seed=1,
            end_ns=c_int64(0),
        )
        for generator in range(generators)
    ]


@given(st.integers(1, 2_000), st.integers(1, 64), st.integers(1, 100_000))
def test_generators_share_connections_and_messages_evenly(
    connections: int, generators: int, messages: int
) -> None:
    parts = shares(Plan(connections=connections, messages=messages), generators)
    numbers = [list(part.numbers) for part in parts]
    assert sorted(chain(*numbers)) == list(range(1, connections + 1))
    sizes = list(map(len, numbers))
    assert max(sizes) - min(sizes) <= 1
    quotas = [part.quota(number) or 0 for part in parts for number in part.numbers]
    assert sum(quotas) == messages
    assert max(quotas) - min(quotas) <= 1


@given(st.integers(1, 50), st.integers(1, 16))
def test_generators_share_the_connect_rate_as_they_share_the_connections(
    connections: int, processes: int
) -> None:
    generators = min(connections, processes)
    parts = shares(Plan(connections=connections, connect_rate=120.0), generators)
    assert sum(1 / part.connect_gap for part in parts) == pytest.approx(120)
    each = [len(part.numbers) * part.connect_gap for part in parts]
    assert each == pytest.approx([connections / 120] * generators)
    assert shares(Plan(), 1)[0].connect_gap == 0


@given(st.integers(1, 16), st.integers(0, 3000))
def test_generators_share_the_messages_that_are_due(generators: int, messages: int) -> None:
    plan = Plan(rate=1000.0, duration=2.0, messages=messages or None, connections=generators)
    due: list[int] = []
    for part in shares(plan, generators):
        schedule = part.schedule()
        assert schedule is not None
        due += schedule
        # The rate is limited, not the connections.
        assert part.quota(1) is None
        assert part.lifetimes is None
    most = 2000
    assert len(due) == min(messages or most, most)
    assert min(due) == 0
    assert len(set(due)) == len(due)


def test_shares_have_either_lifetimes_or_a_schedule() -> None:
    (constant,) = shares(Plan(), 1)
    (connections,) = shares(Plan(stages=STAGES), 1)
    (rates,) = shares(Plan(stages=RATES, staged_rate=True), 1)
    assert (constant.lifetimes, constant.schedule()) == (None, None)
    assert constant.quota(1) is None
    assert connections.lifetimes is not None
    assert list(connections.lifetimes.lifetimes(100)) == [(10, math.inf)]
    assert connections.schedule() is None
    assert rates.lifetimes is None
    assert len(list(rates.schedule() or ())) == 18


def test_targets_and_sources_are_used_in_turn() -> None:
    plan = Plan(targets=("127.0.0.1:1", "127.0.0.1:2"), connections=8)
    (share,) = shares(plan, 1, ["127.0.0.1", "127.0.0.2"])
    ways = Counter((share.addresses(n)[0].sockaddr[1], share.source(n)) for n in share.numbers)
    # Each target has each source equally often.
    assert ways == dict.fromkeys(
        [(port, source) for port in (1, 2) for source in ("127.0.0.1", "127.0.0.2")], 2
    )
    assert shares(plan, 1)[0].source(1) is None


def test_counts_are_added_and_subtracted() -> None:
    before = Counts(opened=2, messages=5, bytes_sent=7)
    before.errors.update(lost=2, reset=1)
    after = before.copy()
    after.add(Counts(opened=1, messages=4, retransmits=1))
    after.errors.update(timeout=1)
    after.errors["lost"] -= 1
    gained = after.since(before)
    assert (gained.opened, gained.messages, gained.bytes_sent, gained.retransmits) == (1, 4, 0, 1)
    # A datagram that counted as lost arrived late.
    assert gained.errors == {"timeout": 1, "lost": -1}
    before.add(gained)
    assert before == after


@pytest.mark.parametrize(
    "fields", [{"payload_size": (1, 65_508)}, {"message": "x" * 65_508}], ids=["size", "message"]
)
def test_a_message_too_large_for_a_datagram_is_refused(fields: dict[str, Any]) -> None:
    plan = Plan(targets=("udp://localhost:7",), **fields)
    with pytest.raises(
        InvalidValueError,
        match="messages of 65508 bytes are too large: a datagram can hold at most 65507",
    ):
        plan.payload(run=1)


def test_an_ipv6_datagram_holds_more() -> None:
    for plan in (
        Plan(targets=("udp://[::1]:7",), payload_size=(1, 65_528)),
        Plan(targets=("udp://localhost:7",), payload_size=(1, 65_528), ip_version=6),
    ):
        with pytest.raises(
            InvalidValueError, match="65528 bytes are too large: a datagram can hold at most 65527"
        ):
            plan.payload(run=1)
    both = Plan(targets=("udp://[::1]:7", "udp://127.0.0.1:7"), payload_size=(1, 65_508))
    with pytest.raises(
        InvalidValueError, match="65508 bytes are too large: a datagram can hold at most 65507"
    ):
        both.payload(run=1)
