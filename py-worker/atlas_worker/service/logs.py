"""The worker's log: one line per event, with the run, session and job that it belongs to.

As text: ``2026-01-31 12:00:00,000 INFO running: predictor-1 to epoch 3 [run=… session=… job=…]``.
As JSON: an object with ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message``; where they
are known ``run`` (the session's label, for which clients use the run's id), ``session`` and
``job``; and for an error ``traceback``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from types import MappingProxyType
from typing import TextIO

LEVELS = ("debug", "info", "warning", "error")
"""Levels of the log, the most detailed first."""
FORMATS = ("text", "json")
"""Formats of the log."""

_SHOWN = 100  # characters of a label, which the client chooses
_SESSION_DIGITS = 8
_NOTHING: Mapping[str, str] = MappingProxyType({})
_tags: ContextVar[Mapping[str, str]] = ContextVar("atlas_log_tags", default=_NOTHING)


def configure(level: str, style: str, stream: TextIO) -> None:
    """Set up the log. Libraries log warnings and errors only.

    Args:
        level: Lowest level that the worker logs, of ``LEVELS``.
        style: One of ``FORMATS``.
        stream: Where to log.
    """
    handler = logging.StreamHandler(stream)
    handler.addFilter(_tag)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]  # replaces the handlers of libraries
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))
    logging.getLogger("atlas_worker").setLevel(level.upper())


def clear() -> None:
    """Forget the tags of this thread, which has served other calls before."""
    _tags.set(_NOTHING)


def bind(*, run: str = "", session: str = "", job: str = "") -> None:
    """Tag what this thread logs from now on, and what its work on the compute thread logs.

    A session's id is all that is needed to use the session, so only its beginning is logged.

    Args:
        run: The session's label.
        session: The session's id.
        job: The job's id.
    """
    new = {"run": run[:_SHOWN], "session": session[:_SESSION_DIGITS], "job": job}
    _tags.set({**_tags.get(), **{name: value for name, value in new.items() if value}})


@contextmanager
def bound(*, run: str = "", session: str = "", job: str = "") -> Iterator[None]:
    """Tag the log as :func:`bind` does, within a ``with`` block."""
    token = _tags.set(_tags.get())
    try:
        bind(run=run, session=session, job=job)
        yield
    finally:
        _tags.reset(token)


def _tag(record: logging.LogRecord) -> bool:
    record.tags = _tags.get()
    return True


class TextFormatter(logging.Formatter):
    """Formats a record for people. A traceback follows its line, indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line, and its traceback."""
        tags: Mapping[str, str] = getattr(record, "tags", _NOTHING)
        line = f"{self.formatTime(record)} {record.levelname} {record.getMessage()}"
        if tags:
            line += f" [{' '.join(f'{name}={value}' for name, value in tags.items())}]"
        # Text from clients must not look like a log line, nor reach a terminal as commands.
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        if record.exc_info:
            text += "\n    " + self.formatException(record.exc_info).replace("\n", "\n    ")
        return text


class JsonFormatter(logging.Formatter):
    """Formats a record for programs, as JSON Lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one JSON object."""
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "tags", _NOTHING),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)
