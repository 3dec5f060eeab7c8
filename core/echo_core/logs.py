"""Structured logs on standard error that never block the program.

Lines go through a bounded queue to a native thread. If the reader of standard error stalls, only
that thread waits; lines that do not fit into the queue are dropped and counted.
"""

from __future__ import annotations

import _queue
import _thread
import contextlib
import os
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, TextIO

import structlog

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]
StartThread = Callable[[Callable[[], None], tuple[()]], object]

CAPACITY = 10_000
_RETRY_SECONDS = 0.05


class DrainedStream:
    """A text stream whose `write` never blocks: a native thread writes to the descriptor.

    The only synchronisation is `_queue.SimpleQueue`: monkey-patching does not replace it, its `put`
    never blocks, and its `get` blocks only the calling thread.

    Args:
        descriptor: the file descriptor to write to.
        start_thread: starts a native thread. A monkey-patched process passes the original
            `_thread.start_new_thread`, not the patched one.
        on_dropped: called in the native thread with the number of dropped writes, once the queue
            has space again.
        capacity: the maximum number of writes in the queue.
    """

    def __init__(
        self,
        descriptor: int,
        start_thread: StartThread = _thread.start_new_thread,
        on_dropped: Callable[[int], None] | None = None,
        capacity: int = CAPACITY,
    ) -> None:
        self._overflowed = 0
        self._unwritable = 0
        self._descriptor = descriptor
        self._on_dropped = on_dropped
        self._capacity = capacity
        self._queue: _queue.SimpleQueue[str | None] = _queue.SimpleQueue()
        self._ended: _queue.SimpleQueue[None] = _queue.SimpleQueue()
        start_thread(self._drain, ())

    def write(self, text: str) -> int:
        """Queue `text`, or drop it if the queue is full; return its length."""
        if self._queue.qsize() < self._capacity:
            self._queue.put(text)
        else:
            self._overflowed += 1
        return len(text)

    @property
    def dropped(self) -> int:
        """The number of writes lost so far: the queue was full, or writing failed."""
        return self._overflowed + self._unwritable

    def close(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all is written; return False if it was not."""
        self._queue.put(None)
        try:
            self._ended.get(timeout=timeout)
        except _queue.Empty:
            return False
        return True

    def _drain(self) -> None:
        reported = 0
        while (text := self._queue.get()) is not None:
            self._write(text.encode(errors="backslashreplace"))
            if self._on_dropped and self._overflowed > reported and self._queue.empty():
                self._on_dropped(self._overflowed - reported)
                reported = self._overflowed
        self._ended.put(None)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # Another process made the shared descriptor non-blocking.
                self._pause()
            except OSError:
                # For example EPIPE: the reader has exited. The program continues without logs.
                self._unwritable += 1
                return

    def _pause(self) -> None:
        # Nothing is ever put into this queue, so this is a sleep that is never monkey-patched.
        with contextlib.suppress(_queue.Empty):
            self._ended.get(timeout=_RETRY_SECONDS)


class QueuedLogger:
    """The logger that structlog passes rendered lines to; each line is one write."""

    def __init__(self, stream: DrainedStream) -> None:
        self._stream = stream

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")

    debug = info = warning = error = critical = msg = _write


def configure(
    level: Level,
    log_format: Format,
    start_thread: StartThread = _thread.start_new_thread,
    **fields: object,
) -> DrainedStream:
    """Send the lines of all structlog loggers to standard error; call it before the first line.

    Args:
        level: the least severe level that is written.
        log_format: `console` for people, `json` for programs (one object per line), `auto` for
            `console` on a terminal and `json` elsewhere.
        start_thread: see `DrainedStream`.
        **fields: fields that are added to every line.

    Returns:
        The stream that the lines are written to, to be closed at exit.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: {**event, **fields},
    ]
    if console:
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=_use_colour(sys.stderr),
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    else:
        # Plain tracebacks, since structured ones contain local variables and thus payloads.
        processors += [
            structlog.processors.format_exc_info,
            _event_first,
            structlog.processors.JSONRenderer(),
        ]

    def report_dropped(count: int) -> None:
        structlog.get_logger().warning("log lines dropped", count=count)

    stream = DrainedStream(sys.stderr.fileno(), start_thread, report_dropped)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: QueuedLogger(stream),
        cache_logger_on_first_use=True,
    )
    return stream


def _event_first(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    leading = {key: event.pop(key) for key in ("timestamp", "level", "event")}
    return {**leading, **event}


def _use_colour(stream: TextIO) -> bool:
    """Return True if a stream is to be coloured.

    NO_COLOR (no-color.org) forbids colours, FORCE_COLOR (force-color.org) requires them; without
    either they are used on a terminal.
    """
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
