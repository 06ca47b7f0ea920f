"""``python -m atlas_worker serve`` as a process: its ready line, and every way it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atlas_worker.__main__ import main
from atlas_worker.client import Client
from atlas_worker.errors import InvalidInput
from atlas_worker.service.auth import read_token, server_tls
from atlas_worker.service.limits import Limits
from atlas_worker.service.server import PROTOCOL_VERSION

from .support import Objects

HERE = Path(__file__).parent
# The worker, with the fakes as its building blocks.
PROGRAM = f"""
import sys
sys.path[:0] = [{str(HERE.parents[1])!r}, {str(HERE.parent)!r}]
from service import fakes
from atlas_worker import predictors
from atlas_worker.__main__ import main
fakes.install()
fakes.GATE.set()
predictors.make_predictor, predictors.make_objective = fakes.make_predictor, fakes.make_objective
sys.exit(main())
"""


def start(*flags: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            PROGRAM,
            "serve",
            "--device",
            "cpu",
            *flags,
        ],
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    )


@pytest.fixture(scope="module")
def planes() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def two(planes: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Started together, because importing torch takes its time."""
    processes = [start("--parent-stdin", "--threads", "1", "--plane-folder", str(planes)), start()]
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


def ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())
    assert line["event"] == "ready"
    assert line["protocol_version"] == PROTOCOL_VERSION
    assert line["pid"] == process.pid
    return str(line["address"])


def ended(process: subprocess.Popen[str], seconds: float) -> tuple[int, float, str, str]:
    started = time.monotonic()
    out, err = process.communicate(timeout=seconds)
    return process.returncode, time.monotonic() - started, out, err


def test_the_worker_dies_with_its_parent(two: list[subprocess.Popen[str]], planes: Path) -> None:
    process = two[0]
    address = ready(process)
    client = Client(address)
    assert client.description.threads == 1
    port_in_use(address)
    assert sorted(file.name for file in planes.iterdir()) == ["metrics", "tensors"]
    limits = Path(f"/proc/{process.pid}/limits")
    if limits.exists():
        (files,) = [
            line for line in limits.read_text().splitlines() if line.startswith("Max open files")
        ]
        assert int(files.split()[3]) <= Limits().max_files
    client.call("StartJob", handle=Objects(client).predictor(long_op=True))
    time.sleep(0.3)  # well into one torch operation that takes seconds
    code, took, out, _ = ended(process, 10)
    assert (code, out) == (0, "")
    assert took < 3
    assert not planes.exists()
    client.close()


def port_in_use(address: str) -> None:
    port = address.rpartition(":")[2]
    code, _, out, err = ended(start("--listen", address), 30)
    assert (code, out) == (2, "")
    (line,) = [line for line in err.splitlines() if line.startswith("atlas_worker:")]
    assert f"port {port} is in use" in line
    assert "--listen" in line


def test_sigterm_stops_in_the_middle_of_a_job(two: list[subprocess.Popen[str]]) -> None:
    process = two[1]
    client = Client(ready(process))
    job = client.call("StartJob", handle=Objects(client).predictor(step_ms=50, steps=1000)).job
    stream = client.call("WatchJob", job_id=job.job_id)
    next(stream)
    os.kill(process.pid, signal.SIGTERM)
    code, took, out, _ = ended(process, 10)
    assert (code, out) == (0, "")
    assert took < 6
    client.close()


TLS = ("--tls-cert", "cert.pem", "--tls-key", "key.pem")
TOKEN = ("--token-file", "token")


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (
            ("--listen", "0.0.0.0:50051"),
            "0.0.0.0:50051 .* give --tls-cert, --tls-key, --token-file ",
        ),
        (("--listen", "[::]:0", *TLS), r"\[::\]:0 .* give --token-file "),
        (("--listen", "192.168.1.7:0", *TOKEN), "192.168.1.7:0 .* give --tls-cert, --tls-key "),
        (("--tls-cert", "cert.pem"), "--tls-cert and --tls-key"),
        (("--tls-client-ca", "ca.pem"), "--tls-client-ca is for TLS"),
        (
            ("--plane-folder", "none", "--tensor-port", "1"),
            "--plane-folder is for clients on this machine",
        ),
        (
            ("--plane-folder", "none", "--listen", "0.0.0.0:0", *TLS, *TOKEN),
            "--plane-folder is for clients",
        ),
        (("--plane-folder", "none"), "none must be an empty folder that only you may enter"),
        (("--plane-folder", "/tmp"), "/tmp must be an empty folder that only you may enter"),
    ],
)
def test_what_would_let_strangers_in_is_refused(flags: tuple[str, ...], wanted: str) -> None:
    done = serve(*flags)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert re.search(wanted, line), line


@pytest.mark.parametrize(
    "token", ["", "short", "a token of several words", "gehe\u00efm-gehe\u00efm-gehe\u00efm"]
)
def test_no_token_that_is_none(token: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token, encoding="utf-8")
    with pytest.raises(InvalidInput, match="token holds no token") as error:
        read_token(tmp_path / "token")
    assert "at least 16" in error.value.expected


def test_files_that_are_no_certificate(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(
        InvalidInput, match=r"text\.pem .* are not a certificate and its private key"
    ):
        server_tls(tmp_path / "text.pem", tmp_path / "text.pem")
    with pytest.raises(InvalidInput, match=r"cannot read .*none\.pem: No such file") as error:
        server_tls(tmp_path / "none.pem", tmp_path / "text.pem")
    assert error.value.field == "tls_cert"


def serve(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atlas_worker", "serve", *flags],
        capture_output=True,
        text=True,
        cwd=HERE.parents[1],
        timeout=30,
    )


@pytest.mark.parametrize(
    "flags",
    [
        ["--listen", "127.0.0.1:70000"],
        ["--listen", "127.0.0.1:-1"],
        ["--listen", "127.0.0.1"],
        ["--listen", "example.org:0"],
        ["--tensor-port", "x"],
        ["--threads", "0"],
        ["--lease", "0"],
        ["--lease", "-1"],
        ["--lease", "1e3"],
        ["--lease", "604801"],
        ["--nonsense"],
        [],
    ],
)
def test_bad_flags(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["serve", *flags] if flags else [])
    assert exit.value.code == 2
    assert capsys.readouterr().out == ""
