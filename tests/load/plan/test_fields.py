"""The values that a field of a plan accepts, and the errors for all others."""

from __future__ import annotations

import dataclasses
import inspect
import math
import pickle
import sys
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_client.tls import TlsOptions
from echo_core.errors import InvalidValueError
from echo_load.limits.capacity_plan import CapacityPlan
from echo_load.limits.idle_plan import IdlePlan
from echo_load.limits.watch import WatchPlan
from echo_load.plan.bounds import LOWEST_RATE
from echo_load.plan.converters import CONVERTERS
from echo_load.plan.pacing import Schedule, Timeline
from echo_load.plan.plan import Plan
from echo_load.plan.stages import StagePlan, parse_stages

TARGET = "tcp://127.0.0.1:50007"
STAGE = StagePlan(first=1.0, last=3.0, duration=2.0)
FLAGS = [field.name for field in dataclasses.fields(Plan) if isinstance(field.default, bool)]
# Whole plans of which one field is varied.
PLANS: dict[type, dict[str, Any]] = {
    Plan: {},
    StagePlan: {"first": 1, "last": 2, "duration": 3},
    IdlePlan: {"plan": Plan(targets=TARGET)},
    WatchPlan: {"plan": Plan(targets=TARGET)},
    CapacityPlan: {"plan": Plan(targets=TARGET)},
}
FIELDS = [(kind, field.name) for kind in PLANS for field in dataclasses.fields(kind)]


class Odd:
    """An object without a usable representation."""

    def __repr__(self) -> str:
        raise RuntimeError


def refusal(kind: type, fields: dict[str, Any]) -> str | None:
    """The error about these fields of a plan; None if they are accepted."""
    try:
        kind(**fields)
    except InvalidValueError as error:
        return str(error)
    return None


WRONG: list[Any] = [
    *(object(), Odd(), Odd, len, {}, {"a": 1}, {1}, range(3), b"", b"x", bytearray(b"x"), 1j),
    *([None], [[]], [1], (1,), (None, None), (1, 2, 3), (Odd(), Odd()), ["", b""], [Odd()]),
    *(-1, -1.5, "-1", "", " ", "x", "\0", "\ud800", "1 2", "\u0661", math.nan, -math.inf),
    *(-(10**400), 10**5000, Decimal("nan"), Fraction(-1, 3), np.float64("nan"), np.array([1, 2])),
    *(timedelta(seconds=-1), timedelta.min, Path("\0")),
]


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_wrong_value_is_refused_by_the_name_of_its_field(kind: type, name: str) -> None:
    refused = list(filter(None, (refusal(kind, {**PLANS[kind], name: value}) for value in WRONG)))
    for message in refused:
        assert f"`{name}" in message
        assert "\n" not in message
        assert len(message) < 300
    # Fields of text accept some of these.
    assert len(refused) >= 30


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.timedeltas()
    | st.builds(object),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
)


@given(st.sampled_from(FIELDS), ANYTHING)
def test_any_value_is_accepted_in_its_exact_type_or_refused(
    field: tuple[type, str], value: Any
) -> None:
    kind, name = field
    try:
        plan: Any = kind(**{**PLANS[kind], name: value})
    except InvalidValueError:
        return
    # This checks the types of all fields.
    assert msgspec.convert(msgspec.to_builtins(plan), kind) == plan
    assert dataclasses.replace(plan) == plan


# Numbers that a duration or a rate may be by their type, but hardly is.
EXTREMES = (
    *(sys.float_info.min * sys.float_info.epsilon, sys.float_info.min, 1e-300, 1e-30, 1e-12, 1e-7),
    *(1e9, 1e12, 1e30, 1e300, sys.float_info.max, math.inf, -math.inf, math.nan, -0.0, 10**400),
)


@pytest.mark.parametrize("value", EXTREMES)
def test_a_number_is_refused_or_fits_into_what_is_made_of_it(value: float) -> None:
    refused = set()
    for kind, name in FIELDS:
        given = {**PLANS[kind], name: value}
        if said := refusal(kind, given):
            assert f"`{name}" in said or "a rate of" in said
            assert len(said) < 300
            refused.add((kind, name))
            continue
        plan: Any = kind(**given)
        assert len(repr(plan)) < 300
        assert len(getattr(plan, "description", "")) < 300
        if kind is CapacityPlan:
            assert plan.within.lowest <= plan.within.start <= plan.within.highest
    times = {"duration", "timeout", "connect_timeout", "rate", "connect_rate", "cycle", "start"}
    accepted = {name for kind, name in FIELDS if name in times and (kind, name) not in refused}
    # A stage does not know whether it is one of rates; its plan refuses it.
    assert accepted <= ({"duration"} if value > 0 else set())


@pytest.mark.parametrize("staged", [False, True])
def test_the_lowest_rate_is_paced_by_many_generators(staged: bool) -> None:
    stage = StagePlan(first=LOWEST_RATE, last=LOWEST_RATE, duration=None)
    fields: dict[str, Any] = (
        {"stages": stage, "staged_rate": True} if staged else {"rate": LOWEST_RATE, "messages": 10}
    )
    plan = Plan(connections=10_000, **fields)
    schedule = Schedule(
        Timeline.of(plan, plan.run_stages), "poisson", turns=range(5000, 5001), of=10_000, seed=1
    )
    instants = [next(schedule) for _ in range(2000)]
    assert instants == sorted(instants)
    assert instants[0] > 0


@pytest.mark.parametrize(
    ("levels", "duration"),
    [((1e-7, 1), 1), ((1, 5e-324), 1), ((1, 1), 1e-7), ((1, 1), 1e300), ((1e300, 1), 1)],
)
def test_a_plan_refuses_extreme_stages(levels: tuple[float, float], duration: float) -> None:
    stage = StagePlan(first=levels[0], last=levels[1], duration=duration)
    with pytest.raises(InvalidValueError, match=r"`stages`|rate of"):
        Plan(stages=stage, staged_rate=True)


def test_a_server_name_may_be_an_address_as_in_a_target() -> None:
    assert Plan(targets="tls://x", tls=TlsOptions(server_name="[::1]")).tls.server_name == "::1"
    for name in ("[x]", "x:443", ""):
        said = refusal(Plan, {"targets": "tls://x", "tls": TlsOptions(server_name=name)})
        assert said == f"`tls.server_name`: {name!r} is not a host name or address"


@pytest.mark.parametrize(
    ("name", "value", "exact"),
    [
        ("targets", TARGET, (TARGET,)),
        ("targets", [TARGET, "localhost"], (TARGET, "localhost")),
        ("targets", [], ()),
        ("duration", "1m30s", 90.0),
        ("duration", 10, 10.0),
        ("duration", timedelta(milliseconds=250), 0.25),
        ("duration", Fraction(1, 4), 0.25),
        ("duration", None, None),
        ("timeout", "250ms", 0.25),
        ("warmup", "0", 0.0),
        ("rate", "10k", 10_000.0),
        ("rate", np.int64(5), 5.0),
        ("connect_rate", 0.5, 0.5),
        ("connections", "1.5k", 1500),
        ("connections", 1e3, 1000),
        ("connections", np.int64(5), 5),
        ("messages", "1M", 1_000_000),
        ("payload_size", 64, (64, 64)),
        ("payload_size", "64KiB", (65_536, 65_536)),
        ("payload_size", "64-16KiB", (64, 16_384)),
        ("payload_size", (1, 5), (1, 5)),
        ("payload_size", ["1", "1KiB"], (1, 1024)),
        ("payload_file", Path("/etc/hosts"), "/etc/hosts"),
        ("source_ips", "127.0.1.1, 127.0.1.0/28", ("127.0.1.1", "127.0.1.0/28")),
        (
            "source_ips",
            ["127.0.1.1", "127.0.1.2,127.0.1.3"],
            tuple(f"127.0.1.{n}" for n in (1, 2, 3)),
        ),
        ("thresholds", "p99<5ms", ("p99<5ms",)),
        ("thresholds", ["p99<5ms", "errors==0"], ("p99<5ms", "errors==0")),
        ("abort_on", "p99>5ms", ("p99>5ms",)),
        ("stages", "1-3/2s", (STAGE,)),
        ("stages", STAGE, (STAGE,)),
        ("stages", [STAGE, "1-3/2s,1-3/2s"], (STAGE,) * 3),
    ],
)
def test_a_convenient_value_is_converted(name: str, value: Any, exact: Any) -> None:
    found = getattr(Plan(**{name: value}), name)
    assert found == exact
    assert type(found) is type(exact)


def test_stages_may_be_rates() -> None:
    plan = Plan(stages="0-0.5/10s,2k/1s", staged_rate=True)
    assert plan.stages == parse_stages("0-0.5/10s,2k/1s", rates=True)
    with pytest.raises(InvalidValueError, match=r"^`stages`: the number of connections .* whole"):
        Plan(stages="0-0.5/10s")


def test_paths_of_tls_options_are_converted() -> None:
    plan = Plan(targets="tls://localhost", tls=TlsOptions(ca=Path("ca.pem")))  # type: ignore[arg-type]
    assert plan.tls == TlsOptions(ca="ca.pem")
    for options, expected in (
        (TlsOptions(key=5), "`tls.key` cannot be of type int; give the path of a file"),  # type: ignore[arg-type]
        (TlsOptions(server_name=b"x"), "`tls.server_name` cannot be of type bytes; give text"),  # type: ignore[arg-type]
        (TlsOptions(insecure="no"), "`tls.insecure` cannot be of type str; give True or False"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidValueError) as caught:
            Plan(targets="tls://localhost", tls=options)
        assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"duration": "soon"}, "`duration`: 'soon' is not a duration; write it as in 10s"),
        ({"warmup": None}, "`warmup` cannot be None; give seconds, or a text such as 10s"),
        ({"connections": []}, "`connections` cannot be of type list; give a whole number"),
        ({"connections": True}, "`connections` cannot be of type bool; give a whole"),
        ({"connections": 1.5}, "`connections` 1.5 is not a whole number"),
        ({"connections": 10**5000}, "`connections` is not a whole number below 1e+18"),
        ({"engine": "asyncio"}, "`engine` 'asyncio' is not hub, greenlets or threads"),
        ({"ip_version": "6"}, "`ip_version` cannot be of type str; give 4 or 6"),
        ({"loop": "yes"}, "`loop` cannot be of type str; give True or False"),
        ({"targets": ["a", 5]}, "`targets` has an item of type int; give texts only"),
        ({"targets": "http://a"}, "`targets`: 'http://a': the scheme 'http' is not"),
        ({"thresholds": "p99"}, "`thresholds`: 'p99' is not a threshold; write it as"),
        ({"abort_on": "messages>1"}, "only known at the end; use `thresholds`, or"),
        ({"stages": [5]}, "`stages` has an item of type int; give texts and StagePlans"),
        ({"payload_size": (1, 2, 3)}, "`payload_size` has 3 sizes; give one, or the"),
        ({"payload_file": "a\0b"}, "`payload_file` 'a\\x00b' has a null character"),
        ({"payload_file": "a\ud800"}, "`payload_file` 'a\\ud800' has a character that no path"),
        ({"timeout": "200h"}, "`timeout` 720000.0 is longer than a week (168h)"),
        ({"tls": {"ca": "x"}}, "`tls` cannot be of type dict; give TlsOptions, as in"),
        # Names.
        ({"target": "localhost"}, "Plan has no field `target`; did you mean `targets`?"),
        ({"source_ip": "::1"}, "Plan has no field `source_ip`; did you mean `source_ips`?"),
        ({"url": "localhost"}, "Plan has no field `url`; its fields are targets, engine, "),
    ],
)
def test_the_error_says_what_is_wrong_and_what_would_be_right(
    fields: dict[str, Any], expected: str
) -> None:
    assert expected in str(refusal(Plan, fields))


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        (StagePlan, {"first": 1, "last": 1}, "StagePlan needs `duration`"),
        (IdlePlan, {"up_to": "1m"}, "IdlePlan needs `plan`"),
        (WatchPlan, {"plan": TARGET}, "`plan` cannot be of type str; give a Plan"),
        (WatchPlan, {"plan": Plan(), "intervall": 1}, "did you mean `interval`?"),
        (
            CapacityPlan,
            {"plan": Plan(stages="1/1s")},
            "`stages` cannot be given in the plan of a search",
        ),
        (
            CapacityPlan,
            {"plan": Plan(), "precision": "90%"},
            "`precision` 0.9 is not between 0.001 and 0.5",
        ),
        (CapacityPlan, {"plan": Plan(), "repeat": 0}, "`repeat` 0 is not between 1 and 1000"),
        *(
            (
                CapacityPlan,
                {"plan": Plan(), "cycle": 1, name: 2.5},
                f"`{name}` 2.5 is not a whole number of connections",
            )
            for name in ("start", "lowest", "highest")
        ),
        (
            CapacityPlan,
            {"plan": Plan(), "lowest": "5k", "highest": "1k"},
            "`lowest` 5,000 is above `highest` 1,000",
        ),
    ],
)
def test_the_errors_of_other_plans_name_their_fields_too(
    kind: type, fields: dict[str, Any], expected: str
) -> None:
    assert expected in str(refusal(kind, fields))


def test_fields_are_given_by_name() -> None:
    make: Any = Plan
    with pytest.raises(InvalidValueError, match=r"^Plan takes its fields by name, as in Plan\(tar"):
        make("localhost")


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("value", [0, 1, "", "true", None, np.bool_(True)])
def test_flags_are_true_or_false_only(name: str, value: Any) -> None:
    with pytest.raises(InvalidValueError, match=f"^`{name}` cannot be .*give True or False$"):
        Plan(**{name: value})


@pytest.mark.parametrize("kind", PLANS)
def test_the_signature_has_all_fields_with_their_defaults(kind: type) -> None:
    parameters = inspect.signature(kind).parameters
    assert list(parameters) == [field.name for field in dataclasses.fields(kind)]
    given = {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty
    }
    assert kind(**{**PLANS[kind], **given}) == kind(**PLANS[kind])
    assert given.keys() == {
        field.name for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING
    }


def test_each_field_of_a_plan_has_a_converter() -> None:
    assert list(CONVERTERS) == [field.name for field in dataclasses.fields(Plan)]


def test_a_plan_is_immutable_and_can_be_copied() -> None:
    plan = Plan(targets=TARGET, duration="10s")
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.duration = 5.0  # type: ignore[misc]
    changed = dataclasses.replace(plan, rate=5.0)
    assert (changed.duration, changed.rate) == (10.0, 5.0)
    assert pickle.loads(pickle.dumps(changed)) == changed
    assert {plan, changed, Plan(targets=(TARGET,), duration=10)} == {plan, changed}


def test_a_plan_is_shown_as_python_writes_it() -> None:
    plan = Plan(targets=TARGET, duration="10s", payload_size=64, stages=())
    assert repr(plan) == f"Plan(targets=('{TARGET}',), duration=10.0)"
    assert eval(repr(plan)) == plan
    assert repr(IdlePlan(plan=plan)) == f"IdlePlan(plan={plan!r})"


def test_a_search_without_an_slo_has_the_default_one() -> None:
    assert CapacityPlan(plan=Plan()).plan.thresholds == ("p99<10ms",)
    assert CapacityPlan(plan=Plan(thresholds="p50<1s")).plan.thresholds == ("p50<1s",)
    assert CapacityPlan(plan=Plan(), cycle="5s").plan.thresholds == ()
