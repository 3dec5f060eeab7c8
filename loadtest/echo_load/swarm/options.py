"""The options of a swarm, which are added to those of locust."""

from __future__ import annotations

from typing import Any

# Name, default and help of each option. All values are strings, because the web form sends text.
OPTIONS = (
    ("wait", "0s", "Pause of an EchoUser between two messages: 1s, or a range as in 1s-3s."),
    ("payload-size", "64", "Size of a message, or a range of sizes: 64-16KiB."),
    ("timeout", "10s", "Time within which a reply has to arrive."),
    ("connect-timeout", "5s", "Time within which a connection has to be open."),
    ("tls-ca", "", "PEM file of the authorities to trust where the host is tls://."),
    ("tls-client-cert", "", "PEM file of the client certificate."),
    ("tls-client-key", "", "PEM file of its key, if it is in another file."),
    ("tls-server-name", "", "Name the certificate must be valid for, if not the host's."),
    ("block-connections", "100", "Number of connections of each EchoBlockUser."),
    (
        "rate",
        "",
        "Messages per second of each EchoBlockUser (open loop); without it, a closed loop.",
    ),
    ("stages", "", "Number of users over time: 0-100/10s,100/30s; or stress: 100, then 1000."),
    (
        "threshold",
        "",
        "Limits that must hold, or else the exit code is 99: p99<5ms,errors<10. Repeatable.",
    ),
)
DEFAULTS = {name: default for name, default, _ in OPTIONS}
# Options that may also be a list in a TOML file.
REPEATABLE = frozenset({"threshold"})
PREFIX = "ECHO_SWARM"
INSECURE = ("tls-insecure", "Accept any certificate.")


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
