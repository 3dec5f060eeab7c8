"""The locust process that `echo-load swarm` starts."""

import sys

from echo_core.interrupts import quit_on_interrupt


def main() -> None:
    """Run locust with the arguments of this process, then exit."""
    # The imports take a second, in which there is nothing to interrupt.
    quit_on_interrupt()
    sys.argv[0] = "echo-load swarm"
    from locust.exception import RPCError
    from locust.main import main as run_locust

    # Imported before locust puts the current directory in front of the module path.
    import echo_load.swarm.hooks  # noqa: F401  # isort: skip

    try:
        run_locust()  # type: ignore[no-untyped-call]  # locust's
    except RPCError as error:
        # The port for the workers is taken, or the address does not exist.
        sys.exit(f"echo-load swarm: error: {error}")


if __name__ == "__main__":
    main()
