"""The entry point of `echo-server` and of `python -m echo_server`."""

from echo_core.interrupts import quit_on_interrupt


def main() -> None:
    """Run `echo-server` with the arguments of this process, and exit."""
    quit_on_interrupt()
    from echo_core.command_line import program
    from echo_core.errors import ExitCode
    from echo_server.cli import echo_server

    program.run(echo_server, "echo-server", exhausted=ExitCode.SERVER)


if __name__ == "__main__":
    main()
