"""The checks of a plan: values out of their range, and fields that contradict each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from echo_client.proxy_header import ClientAddresses
from echo_client.tls import TlsOptions
from echo_core.endpoint import Endpoint, NetworkEndpoint
from echo_core.errors import InvalidValueError
from echo_core.units import LONGEST_SECONDS, format_duration
from echo_load.plan import fields
from echo_load.plan.bandwidth import mean_size
from echo_load.plan.bounds import (
    HIGHEST_RATE,
    LARGEST_PAYLOAD,
    LONGEST_TEST,
    MOST_CONNECTIONS,
    MOST_MESSAGES,
    MOST_PIPELINED,
    MOST_PROCESSES,
    MOST_REPEATS,
)
from echo_load.plan.engine_name import SUPPORTED_SCHEMES

if TYPE_CHECKING:
    from echo_load.plan.plan import Plan


def check_plan(plan: Plan) -> None:
    """Check the fields of a plan.

    Raises:
        InvalidValueError: one is out of its range, or two contradict each other.
    """
    _check_numbers(plan)
    _check_rates(plan)
    _check_least(plan)
    _check_length(plan)
    _check_time(plan)
    _check_payload(plan)
    _check_targets(plan)
    _check_opening(plan)


def _check_numbers(plan: Plan) -> None:
    for name, value, least, most in (
        ("connections", plan.connections, 1, MOST_CONNECTIONS),
        ("processes", plan.processes, 1, MOST_PROCESSES),
        ("messages", plan.messages, 1, MOST_MESSAGES),
        ("pipeline", plan.pipeline, 1, MOST_PIPELINED),
        ("churn", plan.churn, 1, MOST_MESSAGES),
        ("connects_in_flight", plan.connects_in_flight, 1, MOST_CONNECTIONS),
        ("repeat", plan.repeat, 1, MOST_REPEATS),
    ):
        if value is not None and not least <= value <= most:
            raise InvalidValueError(f"`{name}` {value} is not between {least} and {most}")
    for name, amount in (
        ("duration", plan.duration),
        ("timeout", plan.timeout),
        ("connect_timeout", plan.connect_timeout),
        ("rate", plan.rate),
        ("connect_rate", plan.connect_rate),
        ("bytes_per_message", plan.bytes_per_message),
    ):
        if amount is not None and not 0 < amount < math.inf:
            raise InvalidValueError(f"`{name}` {amount} is not above 0 and finite")
    for name, timeout in (("timeout", plan.timeout), ("connect_timeout", plan.connect_timeout)):
        if timeout is not None and timeout > LONGEST_SECONDS:
            raise InvalidValueError(f"`{name}` {timeout} is longer than a week (168h)")
    if not 0 <= plan.warmup < math.inf:
        raise InvalidValueError(f"`warmup` {plan.warmup} is negative or infinite")
    if plan.most_connections > MOST_CONNECTIONS:
        raise InvalidValueError(
            f"the stages have up to {plan.most_connections:.10g} connections; at most "
            f"{MOST_CONNECTIONS} are supported"
        )


def _check_rates(plan: Plan) -> None:
    rates = [plan.rate or 0, *(one.highest for one in plan.stages if plan.staged_rate)]
    if max(rates) > HIGHEST_RATE:
        raise InvalidValueError(
            f"a rate of {max(rates):,.10g} messages per second is above {HIGHEST_RATE:,.0f}"
        )
    if plan.connect_rate is not None and plan.connect_rate > HIGHEST_RATE:
        raise InvalidValueError(
            f"`connect_rate` {plan.connect_rate:,.10g} is above {HIGHEST_RATE:,.0f}"
        )


def _check_least(plan: Plan) -> None:
    """Check that durations and rates which are not 0 are not too close to it."""
    for name, seconds in (
        ("duration", plan.duration),
        ("warmup", plan.warmup),
        ("timeout", plan.timeout),
        ("connect_timeout", plan.connect_timeout),
        *(("stages", stage.duration) for stage in plan.stages),
    ):
        fields.refuse_too_short(name, seconds or 0.0)
    levels = [level for one in plan.stages for level in (one.first, one.last)]
    for name, rate in (
        ("rate", plan.rate),
        ("connect_rate", plan.connect_rate),
        *(("stages", level) for level in levels if plan.staged_rate),
    ):
        fields.refuse_too_low(name, rate or 0.0)


def _check_length(plan: Plan) -> None:
    for name, seconds in (
        ("duration", plan.duration or 0.0),
        ("warmup", plan.warmup),
        ("stages", sum(stage.duration or 0.0 for stage in plan.stages)),
    ):
        if seconds > LONGEST_TEST:
            raise InvalidValueError(f"`{name}`: {seconds:g} seconds are longer than ten years")


def _check_time(plan: Plan) -> None:
    if plan.stages and plan.duration is not None and not plan.loop:
        raise InvalidValueError(
            f"`duration` {format_duration(plan.duration)} and `stages` both give the "
            "duration; omit one, or add `loop` to repeat the stages for the duration"
        )
    if plan.loop and not plan.stages:
        raise InvalidValueError("`loop` repeats `stages`, but there are none; add `stages`")
    if plan.staged_rate and not plan.stages:
        raise InvalidValueError("`rate` needs a number, or `stages`")
    if plan.staged_rate and plan.rate is not None and not plan.warmup:
        rate = f"{plan.rate:g}" if plan.bytes_per_message is None else plan.rate_name
        raise InvalidValueError(
            f"`rate` {rate} has no effect: the stages are rates, and there is no "
            "warm-up; give `rate` without a number, or add `warmup`"
        )
    if plan.reopen and not plan.stages:
        raise InvalidValueError("`reopen` needs `stages`, and there are none")
    if plan.rate is not None and plan.stages and not plan.staged_rate:
        raise InvalidValueError(
            "`rate` and `stages` are both given; set `staged_rate` to make the stages rates"
        )
    if plan.stages and not any(stage.highest for stage in plan.stages):
        raise InvalidValueError("`stages`: all stages are 0; at least one must be above 0")
    if not plan.staged_rate and any(
        level % 1 for stage in plan.stages for level in (stage.first, stage.last)
    ):
        raise InvalidValueError("`stages`: the number of connections of a stage must be whole")
    if plan.arrivals != "constant" and not plan.open_loop:
        raise InvalidValueError(
            f"`arrivals` {plan.arrivals} has no effect without `rate`; add `rate`"
        )


def _check_payload(plan: Plan) -> None:
    least, most = plan.payload_size
    if not 1 <= least <= most <= LARGEST_PAYLOAD:
        sizes = f"{least}" if least == most else f"{least} to {most}"
        raise InvalidValueError(
            f"`payload_size` {sizes} is not a size or a range of sizes from 1 to "
            f"{LARGEST_PAYLOAD} bytes"
        )
    if plan.message is not None and not plan.message:
        raise InvalidValueError("`message` is empty; it needs at least one byte")
    if plan.message is not None and any("\ud800" <= one <= "\udfff" for one in plan.message):
        raise InvalidValueError(
            f"`message` {plan.message!r} is not valid text; use `payload_file` to send "
            "arbitrary bytes"
        )
    given = [
        name
        for name, is_given in (
            ("message", plan.message is not None),
            ("payload_file", plan.payload_file is not None),
            ("hello", plan.hello),
        )
        if is_given
    ]
    if len(given) > 1:
        raise InvalidValueError(f"`{given[0]}` and `{given[1]}` both give what is sent; give one")
    if plan.bytes_per_message is not None:
        _check_mean_size(plan, plan.bytes_per_message)


def _check_mean_size(plan: Plan, given: float) -> None:
    if not plan.open_loop:
        raise InvalidValueError(
            f"`bytes_per_message` {given:g} has no effect without `rate`; omit it"
        )
    # The size of a file is not looked up again, as the plan may be that of an old result.
    if plan.payload_file is None:
        size = mean_size(payload_size=plan.payload_size, message=plan.message, hello=plan.hello)
        if not math.isclose(given, size):
            raise InvalidValueError(
                f"`bytes_per_message` {given:g} is not the mean size of the messages, {size:g}"
            )


def _check_targets(plan: Plan) -> None:
    for endpoint in plan.endpoints:
        version = endpoint.ip_version if isinstance(endpoint, NetworkEndpoint) else None
        if version and plan.ip_version and version != plan.ip_version:
            raise InvalidValueError(
                f"`ip_version` {plan.ip_version}: {endpoint} is an IPv{version} address; "
                f"omit it, or give an IPv{plan.ip_version} address"
            )
        if endpoint.scheme not in SUPPORTED_SCHEMES[plan.driven_by]:
            able = " or ".join(
                name for name, schemes in SUPPORTED_SCHEMES.items() if endpoint.scheme in schemes
            )
            raise InvalidValueError(
                f"the {plan.driven_by} engine does not support {endpoint.scheme}, which "
                f"{endpoint} needs; use `engine` {able}"
            )
    if plan.schemes == {"unix"}:
        for option, value in (
            ("`source_ips`", plan.source_ips),
            ("`ip_version`", plan.ip_version),
            ("`dscp`", plan.dscp is not None),
        ):
            if value:
                raise InvalidValueError(
                    f"{option} applies only to IP targets, not to {plan.targets[0]}"
                )
    if plan.tls_resume and plan.driven_by != "hub":
        raise InvalidValueError(
            f"the {plan.driven_by} engine does not support `tls_resume`; use `engine` hub"
        )
    if (plan.tls_resume or plan.tls != TlsOptions()) and not plan.speaks("tls"):
        raise InvalidValueError("TLS options are given, but no target is tls://HOST:PORT")


def _check_opening(plan: Plan) -> None:
    """Check the fields that say what a connection is opened with."""
    _ = plan.socket_options
    if plan.send_proxy not in {None, "v1", "v2"}:
        raise InvalidValueError(f"`send_proxy` {plan.send_proxy!r} is not v1 or v2")
    if plan.send_proxy is not None and plan.speaks("udp"):
        raise InvalidValueError(
            f"`send_proxy` needs a stream, and {_first(plan, 'udp')} is none; omit one of them"
        )
    if plan.send_proxy_source is not None:
        _check_proxy_source(plan, plan.send_proxy_source)
    if not plan.uses_tcp:
        if plan.keepalive is not None:
            raise InvalidValueError(f"`keepalive` needs TCP; {plan.targets[0]} has no keep-alives")
        if not plan.nodelay:
            raise InvalidValueError(f"`nodelay` needs TCP, which {plan.targets[0]} is not")


def _check_proxy_source(plan: Plan, source: str) -> None:
    if plan.send_proxy is None:
        raise InvalidValueError(
            f"`send_proxy_source` {source} has no effect without `send_proxy`; add "
            "`send_proxy` v1 or v2"
        )
    if plan.speaks("unix"):
        raise InvalidValueError(
            f"`send_proxy_source` {source} applies only to IP targets, not to "
            f"{_first(plan, 'unix')}"
        )
    try:
        ClientAddresses.parse(source)
    except InvalidValueError as error:
        raise InvalidValueError(f"`send_proxy_source`: {error}") from error


def _first(plan: Plan, scheme: str) -> Endpoint:
    """Return the first target with a scheme."""
    return next(endpoint for endpoint in plan.endpoints if endpoint.scheme == scheme)
