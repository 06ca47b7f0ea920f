"""What this machine has: devices, memory, cores, versions; and torch set up for reproducible results."""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from atlas_worker.errors import InvalidInput
from atlas_worker.gen.atlas.v1 import worker_pb2


def available_cores() -> int:
    """Physical cores this process may use: hyper-threads counted once, CPU affinity and container quota respected."""
    try:
        allowed = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    cores = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(str(cpu))
    count = len(cores)
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return count


def make_reproducible(threads: int) -> None:
    """The same seed and number of threads give the same bits on a CPU; on CUDA as far as torch can without refusing."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode would also fill every torch.empty with NaN, a debugging aid that costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def keep_freed_memory() -> None:
    """Have glibc keep freed blocks of up to 1 GiB for the next step instead of returning them to the system each time.

    A training step frees and takes the same tens of megabytes a hundred times; as mappings of their own, each would be faulted in
    page by page again. And have all threads share one heap: of heaps of their own, of which there are eight a core, each keeps what its threads
    freed, so that the memory of a worker that answers many calls would creep up for hours. :func:`return_freed_memory` gives the system what is
    not needed any more. Elsewhere than on glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, top_pad, mmap_threshold, arena_max = -1, -2, -3, -8  # malloc.h
    mallopt(arena_max, 1)
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 1 << 30)
    mallopt(top_pad, 64 << 20)


def return_freed_memory() -> None:
    """Give back to the system what has been freed and is kept."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def bound_files(most: int) -> None:
    """Let the process have ``most`` open files, or as many as it may, whatever its limit was. Elsewhere than on Unix nothing happens."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Devices:
    """The devices that sessions may use. ``choice`` is the worker's ``--device``: "auto" allows every one and prefers
    the first CUDA device; "cpu" hides the others; "cuda" or "cuda:1" must exist (``InvalidInput``) and is preferred."""

    def __init__(self, choice: str = "auto") -> None:
        cuda = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if choice != "cpu" else []
        self.all = [torch.device("cpu"), *cuda]
        self.default = cuda[0] if cuda else self.all[0]
        if choice != "auto":
            self.default = self.find(choice, "--device")

    def find(self, name: str, field: str) -> torch.device:
        """The device meant by "auto" (or nothing), "cpu", "cuda" or "cuda:1"; ``InvalidInput`` names those there are."""
        if name in ("", "auto"):
            return self.default
        if name == "cuda" and self.default.type == "cuda":
            return self.default
        for device in self.all:
            if name in (str(device), device.type):
                return device
        raise InvalidInput(
            f"this worker has no device {name!r}",
            field,
            f"auto, {', '.join(map(str, self.all))}",
            "choose one of them",
        )

    def describe(self) -> list[worker_pb2.Device]:
        return [_describe(device) for device in self.all]


def _describe(device: torch.device) -> worker_pb2.Device:
    free, total = memory(device)
    description = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return worker_pb2.Device(
        name=str(device), description=description, memory_total_bytes=total, memory_free_bytes=free
    )


def memory(device: torch.device) -> tuple[int, int]:
    """Bytes of a device's memory that can be had, and that there are; on a CPU what the system would free for it is counted too."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free, total
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1]), total
    except OSError:  # not Linux
        pass
    return total, total


def check_memory(device: torch.device, asked: int, field: str, remedy: str) -> None:
    """Raise ``InvalidInput`` when ``asked`` bytes cannot be had on a device, before anyone tries."""
    free, _ = memory(device)
    if asked > free:
        raise InvalidInput(
            f"this needs {asked / 2**30:,.1f} GiB of {device}'s memory",
            field,
            f"no more than the {free / 2**30:,.1f} GiB that are free",
            remedy,
        )


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def versions() -> dict[str, str]:
    """Versions of what the numbers and the protocol depend on. Looked up once: that takes longer than all else in an answer."""
    found = {name: version(name) for name in ("numpy", "grpcio", "pyzmq", "protobuf", "safetensors")}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        **found,
    }
