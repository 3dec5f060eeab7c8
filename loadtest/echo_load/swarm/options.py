"""The options of a swarm, in addition to those of locust."""

from __future__ import annotations

from typing import Any

# Name, default and help of each option. All values are text, because the web form sends text.
_MESSAGES = (
    ("wait", "0s", "Pause of an EchoUser between messages, or a range such as 1s-3s."),
    ("payload-size", "64", "Message size, or a range of sizes such as 64-16KiB."),
    ("timeout", "10s", "Maximum time to wait for a reply."),
    ("connect-timeout", "5s", "Maximum time to open a connection."),
)
_TLS = (
    ("tls-ca", "", "PEM file with the CA certificates to trust for a tls:// host."),
    ("tls-client-cert", "", "PEM file with the client certificate."),
    (
        "tls-client-key",
        "",
        "PEM file with the private key, if it is not in the --tls-client-cert file.",
    ),
    (
        "tls-server-name",
        "",
        "Name that the server's certificate must be valid for; by default the host.",
    ),
)
_PROXY = (
    (
        "send-proxy",
        "",
        "Begin each connection with a PROXY protocol header of this version, v1 or v2, as a proxy "
        "does; not over UDP.",
    ),
    (
        "send-proxy-source",
        "",
        "Client address in the header; the connections have the addresses of a network such as "
        "10.0.0.0/8 in turn. By default the connection's own address.",
    ),
)
_BLOCKS = (
    ("block-connections", "100", "Number of connections per EchoBlockUser."),
    (
        "rate",
        "",
        "Messages per second per EchoBlockUser (open loop); without it, a closed loop.",
    ),
)
_TEST = (
    (
        "stages",
        "",
        "Number of users over time, such as 0-100/10s,100/30s; or stress for 100, then 1000.",
    ),
    (
        "threshold",
        "",
        "Limits that must hold, or the exit code is 99: p99<5ms,errors<10. Repeatable.",
    ),
)
GROUPS = {
    "Messages": _MESSAGES,
    "PROXY protocol": _PROXY,
    "TLS": _TLS,
    "EchoBlockUser": _BLOCKS,
    "Test": _TEST,
}
OPTIONS = tuple(option for options in GROUPS.values() for option in options)
DEFAULTS = {name: default for name, default, _ in OPTIONS}
# Options that may also be a list in a TOML file.
REPEATABLE = frozenset({"threshold"})
PREFIX = "ECHO_SWARM"
# A flag, in the group "TLS".
INSECURE = ("tls-insecure", "Do not verify the server's certificate.")


def add_options(parser: Any) -> None:
    """Add the options to locust's parser, from which the web form is made."""
    for name, default, help_text in OPTIONS:
        parser.add_argument(
            f"--{name}",
            default=None if name in REPEATABLE else default,
            metavar="VALUE",
            env_var=variable(name),
            help=help_text,
            action="append" if name in REPEATABLE else "store",
            # The web form has its own field for the number of users.
            include_in_web_ui=name != "stages",
        )
    name, help_text = INSECURE
    parser.add_argument(f"--{name}", action="store_true", env_var=variable(name), help=help_text)


def variable(name: str) -> str:
    """Return the name of the environment variable of an option."""
    return f"{PREFIX}_{name.upper().replace('-', '_')}"
