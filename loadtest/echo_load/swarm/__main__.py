"""Locust, as `echo-load swarm` starts it."""

import sys

from echo_core.interrupts import quit_on_interrupt


def main() -> None:
    """Run locust with the arguments of this process, then exit."""
    # Until there is something to interrupt: the imports take a second.
    quit_on_interrupt()
    sys.argv[0] = "echo-load swarm"
    from locust.exception import RPCError
    from locust.main import main as run_locust

    # Locust will look for modules in the current folder first: import ours before that.
    import echo_load.swarm.hooks  # noqa: F401  # isort: skip

    try:
        run_locust()  # type: ignore[no-untyped-call]  # locust's
    except RPCError as error:
        # The port for the workers is taken, or there is no such address.
        sys.exit(f"echo-load swarm: error: {error}")


if __name__ == "__main__":
    main()
