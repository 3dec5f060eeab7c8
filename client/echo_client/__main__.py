"""The program `echo-client`, also `python -m echo_client`."""

from typing import NoReturn

from echo_core.interrupts import quit_on_interrupt


def main() -> NoReturn:
    """Run `echo-client` with the arguments of this process."""
    quit_on_interrupt()
    from echo_client.cli import echo_client
    from echo_core import command

    command.run(echo_client, "echo-client")


if __name__ == "__main__":
    main()
