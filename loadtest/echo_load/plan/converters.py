"""The converter of each field of a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from echo_client.socket_options import parse_dscp
from echo_client.tls import TlsOptions
from echo_core.endpoint import parse_host, parse_target
from echo_load.plan import fields
from echo_load.plan.bandwidth import Bandwidth, parse_load
from echo_load.plan.fields import optional
from echo_load.plan.stages import as_stages
from echo_load.plan.thresholds import Threshold


def _tls(name: str, value: object) -> TlsOptions:
    """Convert the paths of TLS options to text."""
    if not isinstance(value, TlsOptions):
        raise fields.wrong(name, value, "TlsOptions, as in TlsOptions(ca='ca.pem')")
    path, host = optional(fields.path), optional(_host)
    converters = {"ca": path, "cert": path, "key": path, "server_name": host}
    changed: dict[str, Any] = {
        field: convert(f"{name}.{field}", getattr(value, field))
        for field, convert in converters.items()
    }
    fields.flag(f"{name}.insecure", value.insecure)
    return replace(value, **changed)


def _host(name: str, value: object) -> str:
    """Convert a host name or address, which may have brackets if it is an IPv6 address."""
    host: str = fields.parsed(name, fields.text(name, value), parse_host)
    return host


def load(name: str, value: object) -> float | Bandwidth:
    """Convert a rate to messages per second, or leave it a bandwidth until the size is known."""
    if isinstance(value, str):
        found: float | Bandwidth = fields.parsed(name, value, parse_load)
        return found
    return fields.rate(name, value)


def _dscp(name: str, value: object) -> int:
    """Convert a DSCP, or its name such as EF or AF41."""
    if isinstance(value, str):
        dscp: int = fields.parsed(name, value, parse_dscp)
        return dscp
    return fields.whole(name, value)


CONVERTERS: dict[str, fields.Converter] = {
    "targets": fields.checked_texts(parse_target),
    "engine": optional(fields.choice("hub", "greenlets", "threads")),
    "processes": optional(fields.whole),
    "connections": fields.whole,
    "duration": optional(fields.seconds),
    "messages": optional(fields.whole),
    "rate": optional(load),
    "bytes_per_message": optional(fields.positive(fields.rate)),
    "arrivals": fields.choice("constant", "poisson"),
    "stages": as_stages,
    "staged_rate": fields.flag,
    "loop": fields.flag,
    "reopen": fields.flag,
    "warmup": fields.seconds,
    "pipeline": fields.whole,
    "payload_size": fields.size_range,
    "payload_file": optional(fields.path),
    "message": optional(fields.text),
    "hello": fields.flag,
    "churn": optional(fields.whole),
    "reconnect": fields.flag,
    "connect_rate": optional(fields.rate),
    "connects_in_flight": fields.whole,
    "timeout": optional(fields.seconds),
    "connect_timeout": fields.seconds,
    "source_ips": fields.listed_texts,
    "ip_version": optional(fields.choice(4, 6)),
    "tls": _tls,
    "tls_resume": fields.flag,
    "send_proxy": optional(fields.choice("v1", "v2")),
    "send_proxy_source": optional(fields.text),
    "dscp": optional(_dscp),
    "nodelay": fields.flag,
    "keepalive": optional(fields.seconds),
    "buffer_size": optional(fields.size),
    "repeat": fields.whole,
    "thresholds": fields.checked_texts(Threshold.parse),
    "abort_on": fields.checked_texts(Threshold.parse_abort),
}
