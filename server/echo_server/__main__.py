"""The program `echo-server`, also `python -m echo_server`."""

from typing import NoReturn

from echo_core.interrupts import quit_on_interrupt


def main() -> NoReturn:
    """Run `echo-server` with the arguments of this process."""
    quit_on_interrupt()
    from echo_core import command
    from echo_server.cli import echo_server

    command.run(echo_server, "echo-server")


if __name__ == "__main__":
    main()
