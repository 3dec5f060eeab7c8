"""The entry point of `echo-client` and of `python -m echo_client`."""

from echo_core.interrupts import quit_on_interrupt


def main() -> None:
    """Run `echo-client` with the arguments of this process, and exit."""
    quit_on_interrupt()
    from echo_client.cli import echo_client
    from echo_core.command_line import program

    program.run(echo_client, "echo-client")


if __name__ == "__main__":
    main()
