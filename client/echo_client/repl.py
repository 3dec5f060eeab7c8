"""The interactive prompt, which sends each line and prints the reply and its round trip."""

from __future__ import annotations

import hashlib
import os
import shlex
import time
from array import array
from collections.abc import Callable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory

from echo_client import differences, round_trips
from echo_client.completion import CommandCompleter
from echo_client.connection import EchoConnection
from echo_client.errors import ClientError
from echo_client.pipe import check_stream, stream
from echo_client.prompt_connection import PromptConnection
from echo_client.terminal_output import STYLE, Progress, show, show_error
from echo_core.endpoint import Endpoint
from echo_core.errors import InvalidValueError
from echo_core.units import format_bytes, format_time, parse_count


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
        self._connection = PromptConnection(endpoint, connect)
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
            completer=CommandCompleter(
                self._commands,
                with_arguments=[name for name, (given, *_) in self._commands.items() if given],
                with_files=["send"],
            ),
            complete_while_typing=False,
            style=STYLE,
        )
        self._run_guarded(self._reconnect, "")
        show("", "\\help lists the commands, Ctrl-D quits")
        while not self._ended:
            try:
                line = session.prompt(self._prompt)
            except KeyboardInterrupt:
                continue
            except EOFError:
                break
            if line:
                self._run_guarded(self._execute, line)
        self._connection.close()

    def _prompt(self) -> FormattedText:
        state = "" if self._connection.is_open else " (not connected)"
        return FormattedText([("class:prompt", f"{self._endpoint.location}{state}> ")])

    def _run_guarded(self, action: Callable[[str], None], argument: str) -> None:
        """Run an action, print its error in one line, and close the connection if it broke."""
        try:
            action(argument)
        except InvalidValueError as error:
            show_error(str(error))
        except ClientError as error:
            show_error(f"{error}; the next message connects again")
            self._connection.close()
        except KeyboardInterrupt:
            # The reply may still arrive; only a new connection is certain to be in step.
            show_error("interrupted, connection closed; the next message connects again")
            self._connection.close()

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
        self._connection.make_ready()
        reply, nanoseconds = self._connection.round_trip(message)
        show(to_text(reply), f"  {format_time(nanoseconds / 1e9)}")
        if reply != message:
            _show_difference(message, reply)
        self._connection.check_step(message, reply)

    def _help(self, _argument: str) -> None:
        for name, (arguments, meaning, _) in self._commands.items():
            show(f"  {f'{chr(92)}{name} {arguments}':<18}", meaning)
        show("  anything else     ", "is sent unchanged, as UTF-8; start with \\\\ to send one \\")

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
        show(
            f"{format_bytes(size)} sent and echoed unchanged",
            f"  {format_time(seconds)}, {format_bytes(size / seconds)}/s each way, "
            f"sha256 {digest.hexdigest()[:16]}",
        )

    def _repeat(self, argument: str) -> None:
        count_text, _, text = argument.partition(" ")
        if not text:
            raise InvalidValueError("no text is given; write \\repeat N TEXT")
        count = parse_count(count_text)
        if not count:
            raise InvalidValueError("0 messages are none; write \\repeat N TEXT with N from 1")
        self._connection.make_ready()
        repetition = _Repetition(self._connection, text.encode(), count)
        try:
            repetition.run()
        finally:
            # Also after Ctrl-C or an error.
            repetition.show_figures()

    def _stats(self, _argument: str) -> None:
        self._connection.show_statistics()

    def _reconnect(self, _argument: str) -> None:
        self._connection.open()

    def _quit(self, _argument: str) -> None:
        self._ended = True


class _Repetition:
    """A message that is sent many times, each time when the reply to the last has arrived."""

    def __init__(self, connection: PromptConnection, message: bytes, count: int) -> None:
        self._connection = connection
        self._message = message
        self._count = count
        self._sent = 0
        self._round_trips_ns = array("q")
        self._mismatches = 0
        # The number and the reply of the first message whose reply differed.
        self._first_mismatch: tuple[int, bytes] | None = None
        self._progress = Progress(count)

    def run(self) -> None:
        """Send the messages and check their replies."""
        while self._sent < self._count:
            self._sent += 1
            reply, nanoseconds = self._connection.round_trip(self._message)
            self._round_trips_ns.append(nanoseconds)
            if reply != self._message:
                self._mismatches += 1
                self._first_mismatch = self._first_mismatch or (self._sent, reply)
                self._connection.check_step(self._message, reply)
            self._progress.update(self._sent)

    def show_figures(self) -> None:
        """Print how many messages were sent and came back, and their round trips."""
        self._progress.erase()
        unchanged = len(self._round_trips_ns) - self._mismatches
        of = "" if self._sent == self._count else f" of {self._count:,}"
        show(f"{self._sent:,}{of} sent, {unchanged:,} came back unchanged")
        if self._round_trips_ns:
            show("", round_trips.summary(self._round_trips_ns))
        if self._first_mismatch is not None:
            number, reply = self._first_mismatch
            show_error(f"message {number:,} is the first with a wrong reply:")
            _show_difference(self._message, reply)


def _show_difference(message: bytes, reply: bytes) -> None:
    for line in differences.describe(message, reply):
        show_error(line)


def _history() -> History:
    try:
        path = history_path()
    except RuntimeError:
        show_error("history is not saved: there is no home directory")
        return InMemoryHistory()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        show_error(f"history is not saved: {path}: {error.strerror}")
        return InMemoryHistory()
    return FileHistory(str(path))


def _unquoted(argument: str) -> str:
    if os.path.exists(os.path.expanduser(argument)):  # noqa: PTH110, PTH111
        # As it is completed: without quotes, even around spaces.
        return argument
    try:
        words = shlex.split(argument)
    except ValueError:
        return argument
    return words[0] if len(words) == 1 else argument
