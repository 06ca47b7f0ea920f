"""``python -m atlas_worker serve``: run a worker until it is told to stop."""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import NoReturn


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 after SIGTERM or SIGINT, 2 when the worker cannot start as asked."""
    parser = argparse.ArgumentParser(prog="python -m atlas_worker", description=__doc__)
    serve = parser.add_subparsers(dest="command", required=True).add_parser("serve", help="run a worker")
    serve.add_argument(
        "--host", default="127.0.0.1", help="loopback address to listen on (default %(default)s)"
    )
    serve.add_argument(
        "--port", type=_port, default=0, help="port of the gRPC server; 0 takes a free one (default)"
    )
    serve.add_argument(
        "--threads", type=_positive, help="CPU threads (default: the physical cores it may use)"
    )
    serve.add_argument(
        "--device", default="auto", help="auto, cpu, cuda or cuda:N: what sessions get by default"
    )
    serve.add_argument(
        "--parent-stdin", action="store_true", help="exit at once when standard input is closed"
    )
    serve.add_argument(
        "--data-root",
        type=Path,
        default=Path("."),
        help="folder that data files must lie in (default: where it is started)",
    )
    serve.add_argument(
        "--trust-code",
        action="store_true",
        default=os.environ.get("ATLAS_TRUST_CODE") == "1",
        help="execute code that clients send or name: programs and modules as predictors (also: ATLAS_TRUST_CODE=1)",
    )
    serve.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    arguments = parser.parse_args(argv)
    # Before PyTorch loads OpenMP: threads that wait by spinning make a machine shared with others many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    # Whatever a library prints must not end up beside the ready line: stdout is ours, fd 1 becomes stderr.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if arguments.parent_stdin:
        threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()
    stop = threading.Event()
    signals: list[int] = []

    def on_signal(number: int, _: object) -> None:
        signals.append(number)
        if len(signals) > 1:
            _exit_now(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    logging.basicConfig(
        level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )

    if not _is_loopback(arguments.host):
        return _refuse(
            f"--host {arguments.host} is reachable from other machines, which needs TLS and a token; this worker has "
            "neither yet: use 127.0.0.1 and an SSH tunnel"
        )
    if not arguments.data_root.is_dir():
        return _refuse(f"--data-root {arguments.data_root} is not a folder")
    # Imported only now: torch takes seconds, and the watch on the parent is already up.
    from atlas_worker.errors import InvalidInput
    from atlas_worker.service import machine
    from atlas_worker.service.limits import Limits
    from atlas_worker.service.server import PROTOCOL_VERSION, AddressInUse, Worker

    threads = arguments.threads or machine.available_cores()
    machine.make_reproducible(threads)
    machine.keep_freed_memory()
    import atlas_worker.blocks  # noqa: F401  registers every building block

    try:
        devices = machine.Devices(arguments.device)
        limits = Limits(data_root=arguments.data_root.resolve(), trust_code=arguments.trust_code)
        worker = Worker(arguments.host, arguments.port, devices=devices, threads=threads, limits=limits)
    except InvalidInput as error:
        return _refuse(f"{error.message}: --device takes {error.expected}")
    except AddressInUse as error:
        return _refuse(
            f"{error}: port {arguments.port} is in use or not allowed; choose another with --port, or 0 for a free one"
        )
    worker.start()
    ready = {
        "event": "ready",
        "address": worker.address,
        "protocol_version": PROTOCOL_VERSION,
        "pid": os.getpid(),
    }
    print(json.dumps(ready), file=out, flush=True)
    stop.wait()
    logging.info("stopping")
    # A step that does not end must not keep the process.
    threading.Timer(8.0, _exit_now, (1,)).start()
    worker.stop()
    _exit_now(0)


def _refuse(reason: str) -> int:
    print(f"atlas_worker: {reason}", file=sys.stderr)
    return 2


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads (1 to 4096)")
    return int(text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _exit_with_parent() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    _exit_now(0)


def _exit_now(code: int) -> NoReturn:
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
