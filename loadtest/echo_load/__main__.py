"""The program `echo-load`, also `python -m echo_load`."""

from echo_core.interrupts import quit_on_interrupt


def main() -> None:
    """Run `echo-load` with the arguments of this process, then exit."""
    quit_on_interrupt()
    from echo_core.command_line import program
    from echo_load.cli import echo_load

    program.run(echo_load, "echo-load")


if __name__ == "__main__":
    main()
