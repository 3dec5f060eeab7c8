"""The interactive prompt, which sends each line and prints the reply and its round trip."""

from __future__ import annotations

import hashlib
import os
import shlex
import statistics
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.styles import Style

from echo_client.connection import EchoConnection
from echo_client.errors import ClientError
from echo_client.pipe import check_stream, stream
from echo_core.endpoint import Endpoint
from echo_core.errors import InvalidValueError
from echo_core.units import format_bytes, parse_count

STYLE = Style.from_dict({"dim": "#888888", "error": "ansired", "prompt": "bold"})


def history_path() -> Path:
    """Return the file of the prompt's history: `$XDG_STATE_HOME/echoswarm/history`.

    Raises:
        RuntimeError: the user has no home directory.
    """
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "echoswarm" / "history"


class Repl:
    """A prompt with one connection to an echo service.

    Args:
        endpoint: the endpoint of the service.
        connect: opens a connection to the service.
    """

    def __init__(self, endpoint: Endpoint, connect: Callable[[], EchoConnection]) -> None:
        self._endpoint = endpoint
        self._connect = connect
        self._connection: EchoConnection | None = None
        self._round_trips = array("q")
        self._bytes = 0
        self._mismatches = 0
        self._ended = False
        self._commands: dict[str, tuple[str, str, Callable[[str], None]]] = {
            "help": ("", "list the commands", self._help),
            "hex": ("BYTES", "send bytes written in hexadecimal: \\hex e4 bd a0", self._hex),
            "send": ("FILE", "send a file over a connection of its own and check it", self._send),
            "repeat": ("N TEXT", "send a text N times", self._repeat),
            "stats": ("", "show statistics of all round trips so far", self._stats),
            "reconnect": ("", "close the connection and open a new one", self._reconnect),
            "quit": ("", "quit, as Ctrl-D does", self._quit),
        }

    def run(self) -> None:
        """Read and execute lines until Ctrl-D or the quit command."""
        session: PromptSession[str] = PromptSession(
            history=_history(),
            completer=WordCompleter([f"\\{name}" for name in self._commands], sentence=True),
            complete_while_typing=False,
            style=STYLE,
        )
        self._run_guarded(self._reconnect, "")
        _print("", "\\help lists the commands, Ctrl-D quits")
        while not self._ended:
            try:
                line = session.prompt(self._prompt)
            except KeyboardInterrupt:
                continue
            except EOFError:
                break
            if line:
                self._run_guarded(self._execute, line)
        self._disconnect()

    def _prompt(self) -> FormattedText:
        state = "" if self._connection else " (not connected)"
        return FormattedText([("class:prompt", f"{self._endpoint.location}{state}> ")])

    def _run_guarded(self, action: Callable[[str], None], argument: str) -> None:
        """Run an action, print its error in one line, and close the connection if it broke."""
        try:
            action(argument)
        except InvalidValueError as error:
            _print_error(str(error))
        except ClientError as error:
            _print_error(f"{error}; \\reconnect connects again")
            self._disconnect()
        except KeyboardInterrupt:
            # The reply may still arrive; only a new connection is certain to be in step.
            _print_error("interrupted, connection closed; \\reconnect connects again")
            self._disconnect()

    def _execute(self, line: str) -> None:
        if line.startswith("\\") and not line.startswith("\\\\"):
            name, _, argument = line[1:].partition(" ")
            if name not in self._commands:
                raise InvalidValueError(
                    f"\\{name} is not a command; \\help lists them, and \\\\{name} sends \\{name}"
                )
            self._commands[name][2](argument.strip())
            return
        text = line.removeprefix("\\") if line.startswith("\\\\") else line
        self._show(text.encode(), lambda reply: reply.decode(errors="backslashreplace"))

    def _show(self, message: bytes, to_text: Callable[[bytes], str]) -> None:
        reply, nanoseconds = self._round_trip(message)
        _print(to_text(reply), f"  {nanoseconds / 1e3:.0f} µs")
        if reply != message:
            _print_error(f"the reply differs from what was sent: {to_text(message)}")

    def _round_trip(self, message: bytes) -> tuple[bytes, int]:
        connection = self._connection
        if connection is None:
            raise InvalidValueError("not connected; \\reconnect connects again")
        begin = time.perf_counter_ns()
        reply = connection.round_trip(message)
        nanoseconds = time.perf_counter_ns() - begin
        self._round_trips.append(nanoseconds)
        self._bytes += len(message)
        self._mismatches += reply != message
        return reply, nanoseconds

    def _help(self, _argument: str) -> None:
        for name, (arguments, meaning, _) in self._commands.items():
            _print(f"  {f'{chr(92)}{name} {arguments}':<18}", meaning)
        _print(
            "  anything else     ", "is sent unchanged, as UTF-8; start with \\\\ to send one \\"
        )

    def _hex(self, argument: str) -> None:
        try:
            message = bytes.fromhex(argument)
        except ValueError:
            message = b""
        if not message:
            raise InvalidValueError(
                f"{argument!r} is not hexadecimal; write it as in \\hex e4 bd a0"
            )
        self._show(message, lambda reply: reply.hex(" "))

    def _send(self, argument: str) -> None:
        if not argument:
            raise InvalidValueError("no file is given; write \\send FILE")
        check_stream(self._endpoint)
        path = Path(os.path.expanduser(_unquoted(argument)))  # noqa: PTH111  # as it is without a home
        digest = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file, self._connect() as connection:
                begin = time.perf_counter()
                size = stream(connection, lambda most: file.read(most) or b"", digest.update)
                seconds = time.perf_counter() - begin
        except OSError as error:
            raise InvalidValueError(f"{path}: {error.strerror}") from error
        except ClientError as error:
            # The file had a connection of its own; the prompt's connection is unaffected.
            raise InvalidValueError(f"{path}: {error}") from error
        _print(
            f"{format_bytes(size)} sent and echoed unchanged",
            f"  {seconds:.3f} s, {format_bytes(size / seconds)}/s each way, "
            f"sha256 {digest.hexdigest()[:16]}",
        )

    def _repeat(self, argument: str) -> None:
        count_text, _, text = argument.partition(" ")
        if not text:
            raise InvalidValueError("no text is given; write \\repeat N TEXT")
        count = parse_count(count_text)
        message = text.encode()
        trips = array("q")
        mismatches = 0
        for _ in range(count):
            reply, nanoseconds = self._round_trip(message)
            trips.append(nanoseconds)
            mismatches += reply != message
        _print(f"{count} sent, {count - mismatches} came back unchanged", _summary(trips))

    def _stats(self, _argument: str) -> None:
        _print(
            f"{len(self._round_trips)} messages, {format_bytes(self._bytes)} each way, "
            f"{self._mismatches} mismatches",
            _summary(self._round_trips),
        )

    def _reconnect(self, _argument: str) -> None:
        self._disconnect()
        self._connection = self._connect()
        _print(
            f"{'sending' if self._endpoint.scheme == 'udp' else 'connected'} to {self._endpoint}"
        )

    def _quit(self, _argument: str) -> None:
        self._ended = True

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _history() -> History:
    try:
        path = history_path()
    except RuntimeError:
        _print_error("history is not saved: there is no home directory")
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        _print_error(f"history is not saved: {path}: {error.strerror}")
        return InMemoryHistory()
    return FileHistory(str(path))


def _summary(trips: array[int]) -> str:
    if not trips:
        return ""
    low, high = min(trips) / 1e3, max(trips) / 1e3
    median = statistics.median(trips) / 1e3
    return f"  round trip min {low:.0f}, median {median:.0f}, max {high:.0f} µs"


def _unquoted(argument: str) -> str:
    try:
        words = shlex.split(argument)
    except ValueError:
        return argument
    return words[0] if len(words) == 1 else argument


def _print(text: str, dimmed: str = "") -> None:
    print_formatted_text(FormattedText([("", text), ("class:dim", dimmed)]), style=STYLE)


def _print_error(text: str) -> None:
    print_formatted_text(FormattedText([("class:error", text)]), style=STYLE)
