"""A locustfile that resets locust's statistics after a warm-up.

The option --warmup-seconds sets the seconds from the start of the last user to the reset;
`--reset-stats` would reset them at once.
"""

from typing import Any

import locust

import gevent  # isort: skip  # after locust, which patches

events: Any = locust.events


def add_option(parser: Any) -> None:
    parser.add_argument("--warmup-seconds", type=float, default=0.0)


def reset_after_warmup(environment: Any, **_: object) -> None:
    def reset() -> None:
        environment.events.reset_stats.fire()
        environment.stats.reset_all()

    def later(**_: object) -> None:
        gevent.spawn_later(environment.parsed_options.warmup_seconds, reset)

    environment.events.spawning_complete.add_listener(later)


events.init_command_line_parser.add_listener(add_option)
events.init.add_listener(reset_after_warmup)
