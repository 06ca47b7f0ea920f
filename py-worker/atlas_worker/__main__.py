"""``python -m atlas_worker``: ``serve`` runs a worker, ``health`` asks one whether it serves."""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from atlas_worker.service import logs

if TYPE_CHECKING:
    from atlas_worker.service.auth import Access
    from atlas_worker.service.collectives import Torchrun
    from atlas_worker.service.limits import Limits
    from atlas_worker.service.server import Worker

log = logging.getLogger("atlas_worker")

_STOP_SECONDS = 8.0
"""Time for a worker to stop. Then the process ends, even in the middle of a step."""


class _Refused(Exception):
    """The command cannot be carried out as given; the text is the reason, for the user."""


def main(argv: list[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The command line without the program's name; that of the process by default.

    Returns:
        The exit code. ``serve``: 0 after SIGTERM or SIGINT, 2 if the worker cannot start as given.
        ``health``: 0 if the worker serves, else 1. ``catalogue``: 0.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _COMMANDS[arguments.command](arguments)
    except _Refused as refused:
        print(f"atlas_worker: {refused}", file=sys.stderr)
        return 2


def _health(arguments: argparse.Namespace) -> int:
    from atlas_worker.service.healthport import is_serving

    return 0 if is_serving(arguments.port) else 1


def _catalogue(arguments: argparse.Namespace) -> int:
    import atlas_worker.blocks  # noqa: F401  declares every block
    from atlas_worker.catalogue import catalogue

    print(json.dumps(catalogue(), indent=2, ensure_ascii=False))
    return 0


def _serve(arguments: argparse.Namespace) -> int:
    # Before PyTorch loads OpenMP: threads that wait by spinning slow a shared machine down.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    out = _claim_stdout()
    if arguments.parent_stdin:
        threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()
    stop = _stop_on_signals()
    logs.configure(arguments.log_level, arguments.log_format, sys.stderr)
    token = os.environ.pop("ATLAS_TOKEN", None)  # processes that the worker starts must not see it
    _check_access(arguments, token)
    _check_folders(arguments)
    torchrun = _join_torchrun(arguments)
    if torchrun is not None and torchrun.rank > 0:
        _exit_now(_help(torchrun, arguments.threads))
    worker, access = _make_worker(arguments, token, torchrun)
    worker.start()
    _announce(worker, access, out)
    if arguments.idle is not None:
        watch = threading.Thread(
            target=_stop_when_idle, args=(worker, arguments.idle, stop), name="idle", daemon=True
        )
        watch.start()
    stop.wait()
    log.info("stopping")
    threading.Timer(_STOP_SECONDS, _exit_now, (1,)).start()
    if torchrun is not None:
        torchrun.end()
    worker.stop()
    _exit_now(0)


def _rank(arguments: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    out = _claim_stdout()
    threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()
    logs.configure("warning", "text", sys.stderr)
    import torch

    import atlas_worker.blocks  # noqa: F401  declares every block
    from atlas_worker.errors import RankLost
    from atlas_worker.service import devices
    from atlas_worker.service.collectives import Group, file_store
    from atlas_worker.service.helper import Helper
    from atlas_worker.service.team import CONNECTION_LOST, shared_threads

    threads, size, device = arguments.threads, arguments.size, torch.device(arguments.device)
    devices.make_reproducible(threads)
    devices.keep_freed_memory()
    print("ready", file=out, flush=True)
    try:
        group = Group(file_store(arguments.store, size), arguments.rank, size, device)
        Helper(group, device, threads, shared_threads(threads, size, device)).serve()
    except RankLost:
        _exit_now(CONNECTION_LOST)
    except BaseException as error:
        log.exception("rank %d failed", arguments.rank)
        memory = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        told = {"message": f"{type(error).__name__}: {error}", "memory": memory}
        print(json.dumps(told), file=out, flush=True)
        _exit_now(1)
    return 0


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "health": _health,
    "catalogue": _catalogue,
    "serve": _serve,
    "rank": _rank,
}


# The command line.


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m atlas_worker", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    health = commands.add_parser(
        "health", help="exit with 0 if the worker in the same container serves, else 1"
    )
    health.add_argument("port", type=_port, help="health port of the worker")
    commands.add_parser("catalogue", help="print the block catalogue as JSON, for blocks.json")
    rank = commands.add_parser("rank", help="join a training (a worker starts it)")
    for flag, kind in (("rank", int), ("size", int), ("store", str), ("device", str)):
        rank.add_argument(f"--{flag}", type=kind, required=True)
    rank.add_argument("--threads", type=_positive, required=True)
    serve = commands.add_parser("serve", help="run a worker")
    for flag, settings in _serve_options().items():
        serve.add_argument(flag, **settings)
    return parser


def _serve_options() -> dict[str, dict[str, Any]]:
    """Options of ``serve``: what ``add_argument`` takes, by flag."""
    return {
        "--listen": {
            "type": _address,
            "default": ("127.0.0.1", 0),
            "metavar": "HOST:PORT",
            "help": "address of the gRPC server, port 0 for a free one (default 127.0.0.1:0); "
            "beyond the loopback interface TLS and a token are needed",
        },
        "--tensor-port": {
            "type": _port,
            "default": 0,
            "help": "port of the tensor plane (default: a free one)",
        },
        "--metrics-port": {
            "type": _port,
            "default": 0,
            "help": "port of the metrics plane (default: a free one)",
        },
        "--plane-folder": {
            "type": Path,
            "metavar": "DIR",
            "help": "use sockets in this folder for both planes instead of ports: for clients of "
            "one user of this machine; nobody else may enter it; removed at the end",
        },
        "--health-port": {
            "type": _port,
            "help": "loopback port that answers gRPC's health checks, and nothing else, without "
            "TLS or token (default: none)",
        },
        "--tls-cert": {"type": Path, "metavar": "FILE", "help": "certificate in PEM"},
        "--tls-key": {"type": Path, "metavar": "FILE", "help": "private key of the certificate"},
        "--tls-client-ca": {
            "type": Path,
            "metavar": "FILE",
            "help": "certificate of the authority that must have signed the clients' certificates",
        },
        "--token-file": {
            "type": Path,
            "metavar": "FILE",
            "help": "file with the bearer token that clients must send "
            "(default: the token in ATLAS_TOKEN, or none)",
        },
        "--threads": {
            "type": _positive,
            "help": "CPU threads (default: the physical cores that the worker may use)",
        },
        "--device": {
            "default": "auto",
            "help": "default device of sessions: auto, cpu, cuda or cuda:N",
        },
        "--torchrun": {
            "action": "store_true",
            "help": "share trainings with the other processes that torchrun has started; rank 0 is "
            "the worker",
        },
        "--parent-stdin": {
            "action": "store_true",
            "help": "exit at once when standard input is closed",
        },
        "--data-root": {
            "type": Path,
            "default": Path("."),
            "help": "folder that data files must lie in (default: the current folder)",
        },
        "--trust-code": {
            "action": "store_true",
            "default": os.environ.get("ATLAS_TRUST_CODE") == "1",
            "help": "execute code that clients send or name: programs and modules as predictors "
            "(also: ATLAS_TRUST_CODE=1)",
        },
        "--lease": {
            "type": _seconds,
            "metavar": "SECONDS",
            "help": "how long a session is kept without a call, a watch or an unfinished job "
            "(1 to 604800; default 600)",
        },
        "--idle": {
            "type": _seconds,
            "metavar": "SECONDS",
            "help": "exit when there has been no session for this time (default: never)",
        },
        "--log-level": {
            "default": "info",
            "choices": logs.LEVELS,
            "help": "lowest level that is logged (default info)",
        },
        "--log-format": {
            "default": "text",
            "choices": logs.FORMATS,
            "help": "format of the log on standard error: text, or one JSON object a line",
        },
    }


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not (host == "localhost" or _is_address(host)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an address to listen on, "
            "such as 127.0.0.1:0, 0.0.0.0:50051, [::]:50051"
        )
    return host, _port(port)


def _positive(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads (1 to 4096)")
    return int(text)


def _seconds(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 7 * 24 * 3600:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds (1 to 604800, a week)"
        )
    return int(text)


# Checks of what was given.


def _check_access(arguments: argparse.Namespace, token: str | None) -> None:
    """Refuse incomplete TLS flags, and a worker without TLS or token that others can reach."""
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise _Refused("--tls-cert and --tls-key are only good together: give both")
    if arguments.tls_client_ca is not None and arguments.tls_cert is None:
        raise _Refused("--tls-client-ca is for TLS: give --tls-cert and --tls-key")
    missing = []
    if arguments.tls_cert is None:
        missing += ["--tls-cert", "--tls-key"]
    if arguments.token_file is None and not token:
        missing += ["--token-file"]
    host, port = arguments.listen
    if missing and not _is_loopback(host):
        raise _Refused(
            f"--listen {_written(host)}:{port} is reachable from other machines, "
            f"which needs TLS and a token: give {', '.join(missing)} "
            "(atlas worker keygen makes the files), or listen on 127.0.0.1"
        )


def _check_folders(arguments: argparse.Namespace) -> None:
    """Refuse folders that do not fit. The planes' folder is removed at the end from now on."""
    folder: Path | None = arguments.plane_folder
    if folder is not None:
        ports = arguments.tensor_port or arguments.metrics_port
        if ports or not _is_loopback(arguments.listen[0]):
            raise _Refused(
                "--plane-folder is for clients on this machine, in place of the planes' ports"
            )
        if not _is_private(folder):
            raise _Refused(
                f"--plane-folder {folder} must be an empty folder that only you may enter "
                "(mode 0700)"
            )
        _plane_folders.append(folder)
    if not arguments.data_root.is_dir():
        raise _Refused(f"--data-root {arguments.data_root} is not a folder")


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    mine = (
        stat.S_ISDIR(status.st_mode)
        and status.st_mode & 0o077 == 0
        and status.st_uid == os.getuid()
    )
    return mine and not any(folder.iterdir())


# The worker. Its modules are imported only here: PyTorch takes seconds to load, and the thread that
# watches the parent already runs.


def _join_torchrun(arguments: argparse.Namespace) -> Torchrun | None:
    """Find the other processes of torchrun, if asked to. Sets the default number of threads."""
    if not arguments.torchrun:
        return None
    import torch

    from atlas_worker.service import devices
    from atlas_worker.service.collectives import Torchrun

    cuda = torch.cuda.is_available() and arguments.device != "cpu"
    try:
        torchrun = Torchrun("cuda" if cuda else "cpu")
    except KeyError as error:
        raise _Refused(
            f"--torchrun is for processes that torchrun has started: {error.args[0]} is not set"
        ) from None
    arguments.threads = arguments.threads or max(1, devices.available_cores() // torchrun.beside)
    threading.Thread(target=_exit_without_parent, name="parent", daemon=True).start()
    return torchrun


def _help(torchrun: Torchrun, threads: int) -> int:
    """Serve rank 0 of torchrun until it ends. Returns the exit code."""
    import atlas_worker.blocks  # noqa: F401  declares every block
    from atlas_worker.errors import RankLost
    from atlas_worker.service import devices
    from atlas_worker.service.helper import Helper

    devices.make_reproducible(threads)
    devices.keep_freed_memory()
    while True:
        try:
            if (group := torchrun.join()) is None:
                return 0
            Helper(group, torchrun.device, threads, threads).serve()
        except RankLost as lost:
            log.info("%s", lost)  # the next group is another try


def _make_worker(
    arguments: argparse.Namespace, token: str | None, torchrun: Torchrun | None
) -> tuple[Worker, Access]:
    """Set the process up and make the worker. Raises ``_Refused`` if the worker cannot start."""
    from atlas_worker.errors import AddressInUse, InvalidInput
    from atlas_worker.service import devices
    from atlas_worker.service.server import Worker

    threads = arguments.threads or devices.available_cores()
    devices.make_reproducible(threads)
    devices.keep_freed_memory()
    limits = _limits(arguments)
    devices.bound_files(limits.max_files)
    import atlas_worker.blocks  # noqa: F401  declares every block

    try:
        access = _access(arguments, token)
        worker = Worker(
            *arguments.listen,
            devices=devices.Devices(arguments.device),
            threads=threads,
            limits=limits,
            access=access,
            plane_ports=(arguments.tensor_port, arguments.metrics_port),
            plane_folder=arguments.plane_folder,
            health_port=arguments.health_port,
            torchrun=torchrun,
        )
    except InvalidInput as error:
        flag = f"--{error.field.replace('_', '-')}"
        raise _Refused(f"{error.message}: {flag} takes {error.expected}") from None
    except AddressInUse as error:
        raise _Refused(
            f"{error}; choose others with --listen, --tensor-port, --metrics-port, --health-port; "
            "0 is a free one"
        ) from None
    return worker, access


def _limits(arguments: argparse.Namespace) -> Limits:
    from atlas_worker.service.limits import Limits

    limits = Limits(data_root=arguments.data_root.resolve(), trust_code=arguments.trust_code)
    return limits if arguments.lease is None else replace(limits, lease_seconds=arguments.lease)


def _access(arguments: argparse.Namespace, token: str | None) -> Access:
    from atlas_worker.service import auth

    tls = None
    if arguments.tls_cert is not None:
        tls = auth.server_tls(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
    if arguments.token_file is not None:
        token = auth.read_token(arguments.token_file)
    elif token:
        token = auth.check_token(token, "ATLAS_TOKEN")
    return auth.Access(tls, token or None)


def _announce(worker: Worker, access: Access, out: TextIO) -> None:
    """Log that the worker serves, and write the ready line for the process that started it."""
    from atlas_worker.service.server import PROTOCOL_VERSION

    asked = [what for what, given in (("TLS", access.tls), ("a token", access.token)) if given]
    log.info(
        "serving at %s with %s", worker.address, " and ".join(asked) or "neither TLS nor a token"
    )
    planes = worker.dataplane.describe()
    ready = {
        "event": "ready",
        "address": worker.address,
        "tensors": planes.tensors,
        "metrics": planes.metrics,
        "protocol_version": PROTOCOL_VERSION,
        "pid": os.getpid(),
    }
    print(json.dumps(ready), file=out, flush=True)


# The process.


def _claim_stdout() -> TextIO:
    """Return standard output for the ready line alone; what libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


def _stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set. A second signal ends the process at once."""
    stop = threading.Event()
    signals: list[int] = []

    def on_signal(number: int, _: object) -> None:
        signals.append(number)
        if len(signals) > 1:
            _exit_now(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop


def _stop_when_idle(worker: Worker, seconds: float, stop: threading.Event) -> None:
    """Set the event once the worker has had no session for a time."""
    last = time.monotonic()
    while not stop.wait(1.0):
        if worker.has_sessions():
            last = time.monotonic()
        elif time.monotonic() - last > seconds:
            log.info("no session for %g s", seconds)
            stop.set()


def _exit_with_parent() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    _exit_now(0)


def _exit_without_parent() -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1.0)
    _exit_now(0)


_plane_folders: list[Path] = []
"""Folders to remove when the process ends, however it ends."""


def _exit_now(code: int) -> NoReturn:
    for folder in _plane_folders:
        with suppress(OSError):
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    for child in _children(os.getpid()):
        try:
            os.kill(child, signal.SIGKILL)
        except OSError:
            pass
    os._exit(code)


def _children(pid: int) -> list[int]:
    """Processes below ``pid``, deepest first (Linux; elsewhere none)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in direct:
            found += [*_children(child), child]
    return found


if __name__ == "__main__":
    sys.exit(main())
