"""Structured logs on standard error that never hold up the program that writes them.

Lines go into a bounded queue that a native thread drains. A reader of standard error that stalls
therefore stops that thread and nothing else; what overflows the queue is dropped and counted.
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
    """A text stream whose `write` never blocks; a native thread writes it to a descriptor.

    `_queue.SimpleQueue` is the one primitive here: monkey-patching leaves it alone, its `put`
    never blocks, and its `get` waits in the thread that calls it only.

    Args:
        descriptor: where the text goes.
        start_thread: starts a native thread. In a monkey-patched process that is the original
            `_thread.start_new_thread`, not the patched one.
        on_dropped: called in the native thread with the number of writes dropped, once there is
            space again.
        capacity: writes that may wait.
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
        self._waiting: _queue.SimpleQueue[str | None] = _queue.SimpleQueue()
        self._ended: _queue.SimpleQueue[None] = _queue.SimpleQueue()
        start_thread(self._drain, ())

    def write(self, text: str) -> int:
        """Take `text`, or drop it if `capacity` writes are waiting."""
        if self._waiting.qsize() < self._capacity:
            self._waiting.put(text)
        else:
            self._overflowed += 1
        return len(text)

    @property
    def dropped(self) -> int:
        """Writes lost so far: the queue was full, or nobody reads any more."""
        return self._overflowed + self._unwritable

    def close(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until all is written; False if it was not."""
        self._waiting.put(None)
        try:
            self._ended.get(timeout=timeout)
        except _queue.Empty:
            return False
        return True

    def _drain(self) -> None:
        reported = 0
        while (text := self._waiting.get()) is not None:
            self._write(text.encode(errors="backslashreplace"))
            if self._on_dropped and self._overflowed > reported and self._waiting.empty():
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
                # Nobody reads any more (EPIPE); the program goes on without logs.
                self._unwritable += 1
                return

    def _pause(self) -> None:
        # Nothing is ever put here while this thread runs: a sleep that no patching reaches.
        with contextlib.suppress(_queue.Empty):
            self._ended.get(timeout=_RETRY_SECONDS)


class QueuedLogger:
    """The file that structlog writes finished lines to: one line, one write."""

    def __init__(self, stream: DrainedStream) -> None:
        self._stream = stream

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")

    debug = info = warning = error = critical = msg = _write


def configure(
    level: Level,
    log_format: Format,
    start_thread: StartThread = _thread.start_new_thread,
    **always: object,
) -> DrainedStream:
    """Send every structlog logger to standard error; call it once, before the first line.

    Args:
        level: the least severe level that is written.
        log_format: `console` for people, `json` for programs (an object a line), `auto` for
            console on a terminal and JSON elsewhere.
        start_thread: as for `DrainedStream`.
        **always: what every line says beside its own.

    Returns:
        The stream the lines go through; close it at exit.
    """
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        lambda _logger, _method, event: {**event, **always},
    ]
    if console:
        processors.append(
            structlog.dev.ConsoleRenderer(
                colors=_wants_colour(sys.stderr),
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    else:
        # Plain tracebacks: the structured ones show local variables, and with them payloads.
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


def _wants_colour(stream: TextIO) -> bool:
    """Follow NO_COLOR (no-color.org) and FORCE_COLOR (force-color.org), then the stream."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()
