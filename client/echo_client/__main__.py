"""The program `echo-client`, also `python -m echo_client`."""

from typing import NoReturn

from echo_client.cli import echo_client
from echo_core import command


def main() -> NoReturn:
    """Run `echo-client` with the arguments of this process."""
    command.run(echo_client, "echo-client")


if __name__ == "__main__":
    main()
