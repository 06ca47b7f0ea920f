"""The worker's log: the tags of each line, and that it is one line whatever clients send."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atlas_worker.client import Client
from atlas_worker.service import logs
from atlas_worker.service.auth import Access
from atlas_worker.service.server import Worker

from . import fakes
from .support import Objects, Refused

Lines = Callable[[], list[dict[str, Any]]]
FORGED = "run-7\n2026-01-31 12:00:00,000 ERROR forged\x1b[2J\u2028"


@pytest.fixture
def root() -> Iterator[None]:
    """Python's loggers, put back afterwards."""
    loggers = [logging.getLogger(), logging.getLogger("atlas_worker")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers = handlers


@pytest.fixture
def lines(root: None) -> Lines:
    """What the worker has logged, from debug on, as JSON."""
    stream = io.StringIO()
    logs.configure("debug", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_lines_of_a_job_carry_run_session_and_job(
    worker: Worker, client: Client, lines: Lines
) -> None:
    fakes.GATE.set()
    Objects(client).dataset()
    with Client(worker.address, label="run-7") as other:
        session = other.session
        job = other.call("StartJob", handle=Objects(other).dataset(run=False)).job
        for _ in other.call("WatchJob", job_id=job.job_id):
            pass
    of_run = [line for line in lines() if line.get("run") == "run-7"]
    of_job = [line for line in of_run if line.get("job") == job.job_id]
    assert [line["message"].partition(":")[0] for line in of_job if line["level"] == "info"] == [
        "queued",
        "running",
        "succeeded",
    ]
    assert any(
        line["level"] == "debug" and line["message"].startswith("epoch 1 of") for line in of_job
    )
    assert {line["session"] for line in of_run} == {session[:8]}
    assert [of_run[0]["message"], of_run[-1]["message"]] == [
        "session opened on cpu",
        "session closed",
    ]
    # Other sessions' lines do not name this one, and no line has a session's whole id.
    assert not any("run-7" in json.dumps(line) for line in lines() if line not in of_run)
    assert session not in json.dumps(lines())


def test_a_call_that_fails_belongs_to_its_session_and_the_next_one_does_not(
    client: Client, lines: Lines
) -> None:
    with Refused("NOT_FOUND"):
        client.call("StartJob", handle="none-1")
    client.call("Describe")
    failed = next(line for line in lines() if line["message"].startswith("StartJob: NOT_FOUND"))
    assert failed["session"] == client.session[:8]
    described = [line for line in lines() if line["message"].startswith("Describe: OK")]
    assert described
    assert not any("session" in line for line in described)


def test_no_token_is_ever_logged(lines: Lines) -> None:
    worker = Worker(access=Access(token="right-" + 16 * "r"))
    worker.start()
    with Client(worker.address, token="right-" + 16 * "r"), Refused("UNAUTHENTICATED"):
        Client(worker.address, token="wrong-" + 16 * "w")
    worker.stop()
    messages = json.dumps(lines())
    assert "UNAUTHENTICATED" in messages
    assert "rrrr" not in messages
    assert "wwww" not in messages


@pytest.mark.parametrize("style", logs.FORMATS)
def test_an_event_is_one_line_whatever_it_says(style: str, root: None) -> None:
    stream = io.StringIO()
    logs.configure("info", style, stream)
    with logs.bound(run=FORGED, session=32 * "f", job="job-1"):
        logging.getLogger("atlas_worker").info("about %s", FORGED)
        logging.getLogger("atlas_worker").debug("too little to be said")
        logging.getLogger("some.library").info("of its makers' interest")
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    assert 9 * "f" not in line
    if style == "json":
        assert json.loads(line)["run"] == FORGED


@pytest.mark.parametrize("style", logs.FORMATS)
def test_an_error_brings_its_traceback(style: str, root: None) -> None:
    stream = io.StringIO()
    logs.configure("error", style, stream)
    try:
        raise ValueError("the cause")
    except ValueError:
        logging.getLogger("atlas_worker").exception("what failed")
    text = stream.getvalue()
    first, *more = text.splitlines()
    assert "what failed" in first
    if style == "json":
        assert "ValueError: the cause" in json.loads(text)["traceback"]
    else:
        assert more[-1] == "    ValueError: the cause"
        assert all(line.startswith("    ") for line in more)
