"""The options of a swarm, beyond locust's own: on its command line and in its web form."""

from __future__ import annotations

from typing import Any

# Name, default and help of each option. All are texts: that is what the web form sends.
OPTIONS = (
    ("wait", "0s", "What an EchoUser waits between two messages: 1s, or from-to as in 1s-3s."),
    ("payload-size", "64", "Bytes of a message, or the smallest and the largest: 64-16KiB."),
    ("timeout", "10s", "What a reply may take."),
    ("connect-timeout", "5s", "What opening a connection may take."),
    ("tls-ca", "", "Authorities to trust where the host is tls://, in PEM form."),
    ("tls-client-cert", "", "A certificate to show, in PEM form."),
    ("tls-client-key", "", "Its key, if that is in another file."),
    ("tls-server-name", "", "What the certificate must be for, if not for the host."),
    ("block-connections", "100", "Connections of an EchoBlockUser."),
    (
        "rate",
        "",
        "Messages a second of an EchoBlockUser, sent when due; else as replies come.",
    ),
    ("stages", "", "Users over time, 0-100/10s,100/30s, or stress: 100, then 1000."),
    (
        "threshold",
        "",
        "What has to be kept, else the exit code is 99: p99<5ms,errors<10. Repeatable.",
    ),
)
# They take a list in a TOML file, too.
REPEATABLE = frozenset({"threshold"})
PREFIX = "ECHO_SWARM"
INSECURE = ("tls-insecure", "Trust any certificate.")


def add_options(parser: Any) -> None:
    """Add the options of a swarm to locust's parser, and so to its web form."""
    for name, default, help_text in OPTIONS:
        parser.add_argument(
            f"--{name}",
            default=None if name in REPEATABLE else default,
            metavar="VALUE",
            env_var=variable(name),
            help=help_text,
            action="append" if name in REPEATABLE else "store",
            # The web form has a field of its own for the users.
            include_in_web_ui=name != "stages",
        )
    name, help_text = INSECURE
    parser.add_argument(f"--{name}", action="store_true", env_var=variable(name), help=help_text)


def variable(name: str) -> str:
    """The variable of the environment that sets an option."""
    return f"{PREFIX}_{name.upper().replace('-', '_')}"
