"""``python -m atlas_worker serve``: run a worker until it is told to stop; ``health``: ask one how it is."""

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
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from atlas_worker.service import logs

log = logging.getLogger("atlas_worker")


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 after SIGTERM or SIGINT, 2 when the worker cannot start as asked; of ``health``, 0 or 1."""
    parser = argparse.ArgumentParser(prog="python -m atlas_worker", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    health = commands.add_parser(
        "health", help="exit with 0 if the worker in the same container serves, else 1"
    )
    health.add_argument("port", type=_port, help="its --health-port")
    serve = commands.add_parser("serve", help="run a worker")
    serve.add_argument(
        "--listen",
        type=_address,
        default=("127.0.0.1", 0),
        metavar="HOST:PORT",
        help="address of the gRPC server, port 0 for a free one (default 127.0.0.1:0); "
        "beyond the loopback interface TLS and a token are needed",
    )
    for plane in ("tensor", "metrics"):
        serve.add_argument(
            f"--{plane}-port", type=_port, default=0, help=f"port of the {plane} plane (default: a free one)"
        )
    serve.add_argument(
        "--plane-folder",
        type=Path,
        metavar="DIR",
        help="for clients of one user of this machine: both planes are sockets in it, which nobody else may enter, "
        "in place of ports; removed at the end",
    )
    serve.add_argument(
        "--health-port",
        type=_port,
        help="loopback port that answers gRPC's health checks, and nothing else, without TLS or token (default: none)",
    )
    serve.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate in PEM")
    serve.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key in PEM")
    serve.add_argument(
        "--tls-client-ca", type=Path, metavar="FILE", help="who must have signed the clients' certificates"
    )
    serve.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="the bearer token that clients must have (default: what ATLAS_TOKEN says, or none)",
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
    serve.add_argument(
        "--lease",
        type=_seconds,
        metavar="SECONDS",
        help="how long a session is kept without a call, a watch or an unfinished job (1 to 604800; default 600)",
    )
    serve.add_argument(
        "--log-level", default="info", choices=logs.LEVELS, help="the least that is logged (default info)"
    )
    serve.add_argument(
        "--log-format",
        default="text",
        choices=logs.FORMATS,
        help="of the log, on standard error: text, or an object of JSON a line",
    )
    arguments = parser.parse_args(argv)
    if arguments.command == "health":
        from atlas_worker.service.healthport import is_serving

        return 0 if is_serving(arguments.port) else 1
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
    logs.configure(arguments.log_level, arguments.log_format, sys.stderr)

    host, port = arguments.listen
    token = os.environ.pop("ATLAS_TOKEN", None)  # what it starts need not know it
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        return _refuse("--tls-cert and --tls-key are only good together: give both")
    if arguments.tls_client_ca is not None and arguments.tls_cert is None:
        return _refuse("--tls-client-ca is for TLS: give --tls-cert and --tls-key")
    missing = []
    if arguments.tls_cert is None:
        missing += ["--tls-cert", "--tls-key"]
    if arguments.token_file is None and not token:
        missing += ["--token-file"]
    if missing and not _is_loopback(host):
        return _refuse(
            f"--listen {_written(host)}:{port} is reachable from other machines, which needs TLS and a token: give "
            f"{', '.join(missing)} (atlas worker keygen makes the files), or listen on 127.0.0.1"
        )
    folder: Path | None = arguments.plane_folder
    if folder is not None:
        if arguments.tensor_port or arguments.metrics_port or not _is_loopback(host):
            return _refuse("--plane-folder is for clients on this machine, in place of the planes' ports")
        if not _is_private(folder):
            return _refuse(
                f"--plane-folder {folder} must be an empty folder that only you may enter (mode 0700)"
            )
        _plane_folders.append(folder)
    if not arguments.data_root.is_dir():
        return _refuse(f"--data-root {arguments.data_root} is not a folder")
    # Imported only now: torch takes seconds, and the watch on the parent is already up.
    from atlas_worker.errors import AddressInUse, InvalidInput
    from atlas_worker.service import access, machine
    from atlas_worker.service.limits import Limits
    from atlas_worker.service.server import PROTOCOL_VERSION, Worker

    threads = arguments.threads or machine.available_cores()
    machine.make_reproducible(threads)
    machine.keep_freed_memory()
    limits = Limits(data_root=arguments.data_root.resolve(), trust_code=arguments.trust_code)
    if arguments.lease is not None:
        limits = replace(limits, lease_seconds=arguments.lease)
    machine.bound_files(limits.max_files)
    import atlas_worker.blocks  # noqa: F401  registers every building block

    try:
        tls = None
        if arguments.tls_cert is not None:
            tls = access.server_tls(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca)
        if arguments.token_file is not None:
            token = access.read_token(arguments.token_file)
        elif token:
            token = access.check_token(token, "ATLAS_TOKEN")
        worker = Worker(
            host,
            port,
            devices=machine.Devices(arguments.device),
            threads=threads,
            limits=limits,
            access=access.Access(tls, token or None),
            plane_ports=(arguments.tensor_port, arguments.metrics_port),
            plane_folder=folder,
            health_port=arguments.health_port,
        )
    except InvalidInput as error:
        return _refuse(f"{error.message}: {error.field} takes {error.expected}")
    except AddressInUse as error:
        return _refuse(
            f"{error}; choose others with --listen, --tensor-port, --metrics-port, --health-port; 0 is a free one"
        )
    worker.start()
    asked = [what for what, given in (("TLS", tls), ("a token", token)) if given]
    log.info("serving at %s with %s", worker.address, " and ".join(asked) or "neither TLS nor a token")
    ready = {
        "event": "ready",
        "address": worker.address,
        "protocol_version": PROTOCOL_VERSION,
        "pid": os.getpid(),
    }
    print(json.dumps(ready), file=out, flush=True)
    stop.wait()
    log.info("stopping")
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


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not (host == "localhost" or _is_address(host)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an address to listen on, such as 127.0.0.1:0, 0.0.0.0:50051, [::]:50051"
        )
    return host, _port(port)


def _written(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _positive(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads (1 to 4096)")
    return int(text)


def _seconds(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= 7 * 24 * 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (1 to 604800, a week)")
    return int(text)


def _is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def _exit_with_parent() -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    _exit_now(0)


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(status.st_mode) and status.st_mode & 0o077 == 0 and status.st_uid == os.getuid()
    return mine and not any(folder.iterdir())


_plane_folders: list[Path] = []
"""To be removed at the end, however it comes."""


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
