"""The worker's log: one line per event, with the run, session and job that it belongs to.

As text, ``2026-01-31 12:00:00,000 INFO running: predictor-1 to epoch 3 [run=… session=… job=…]``; as JSON, an object
with ``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, where they are known ``run`` (the session's label,
for which clients take the run's id), ``session``, ``job``, and for an error ``traceback``.
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
FORMATS = ("text", "json")

_SHOWN = 100  # characters of a label, which is the client's to choose
_SESSION_DIGITS = 8
_NOTHING: Mapping[str, str] = MappingProxyType({})
_tags: ContextVar[Mapping[str, str]] = ContextVar("atlas_log_tags", default=_NOTHING)


def configure(level: str, style: str, stream: TextIO) -> None:
    """Log to ``stream`` in one of ``FORMATS``; libraries only from warnings on, since below it is for those who make them."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(_tag)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]  # also if a library has begun to log in its own way
    root.setLevel(max(logging.WARNING, getattr(logging, level.upper())))
    logging.getLogger("atlas_worker").setLevel(level.upper())


def clear() -> None:
    """What is logged from here on belongs to nothing yet: a call begins on a thread that has served others."""
    _tags.set(_NOTHING)


def bind(*, run: str = "", session: str = "", job: str = "") -> None:
    """What this thread logs from here on, and work that it hands to the compute thread, belongs to these too.

    Of a session's id, which is all that it takes to use the session, the log gets the beginning.
    """
    new = {"run": run[:_SHOWN], "session": session[:_SESSION_DIGITS], "job": job}
    _tags.set({**_tags.get(), **{name: value for name, value in new.items() if value}})


@contextmanager
def bound(*, run: str = "", session: str = "", job: str = "") -> Iterator[None]:
    """:func:`bind`, for the body only."""
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
    """For people; a traceback follows its line, indented."""

    def format(self, record: logging.LogRecord) -> str:
        tags: Mapping[str, str] = getattr(record, "tags", _NOTHING)
        line = f"{self.formatTime(record)} {record.levelname} {record.getMessage()}"
        if tags:
            line += f" [{' '.join(f'{name}={value}' for name, value in tags.items())}]"
        # What clients name must not look like lines of ours, nor reach a terminal as commands.
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        if record.exc_info:
            text += "\n    " + self.formatException(record.exc_info).replace("\n", "\n    ")
        return text


class JsonFormatter(logging.Formatter):
    """For machines: JSON Lines."""

    def format(self, record: logging.LogRecord) -> str:
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
