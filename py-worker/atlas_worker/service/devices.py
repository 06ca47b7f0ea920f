"""The machine's devices, memory, cores and versions; and torch set up for reproducible results."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch

from atlas_worker.errors import InvalidInput
from atlas_worker.gen.atlas.v1 import worker_pb2
from atlas_worker.memory import free_memory


def available_cores() -> int:
    """Count the physical cores that this process may use.

    Hyper-threads count once. CPU affinity and a container's quota are respected.
    """
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
    """Set torch up so that a seed and a number of threads give the same bits on a CPU.

    On CUDA this holds as far as torch can without refusing operations.

    Args:
        threads: Threads of torch's CPU work.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    # Sets the same as torch.use_deterministic_algorithms, which also loads the compiler (1 s).
    torch.set_deterministic_debug_mode("warn")
    # Deterministic mode would also fill every torch.empty with NaN, which is slow.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def keep_freed_memory() -> None:
    """Make glibc keep freed blocks of up to 1 GiB, instead of returning them to the system.

    A training step frees and allocates the same tens of megabytes a hundred times. As separate
    mappings, these would be faulted in page by page each time.

    All threads also share one heap. By default there are eight heaps for each core, and each keeps
    what its threads freed: the memory of a worker that answers many calls would grow for hours.

    :func:`return_freed_memory` returns memory that is no longer needed. Without glibc this function
    does nothing.
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
    """Return freed memory to the system."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    with suppress(AttributeError, OSError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def bound_files(most: int) -> None:
    """Set the limit on open files. On systems other than Unix this does nothing.

    Args:
        most: Largest number of open files. The process may have a lower hard limit, which stays.
    """
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Devices:
    """The devices that sessions may use.

    Args:
        choice: "auto" allows all devices and prefers CUDA devices. "cpu" hides the others.
            "cuda" or "cuda:1" must exist, and is preferred.

    Raises:
        InvalidInput: The chosen device does not exist.
    """

    def __init__(self, choice: str = "auto") -> None:
        cuda = (
            [torch.device("cuda", i) for i in range(torch.cuda.device_count())]
            if choice != "cpu"
            else []
        )
        self.all = [torch.device("cpu"), *cuda]
        self.preferred = cuda or self.all
        if choice != "auto":
            self.preferred = self.find(choice, "device")

    def find(self, name: str, field: str) -> list[torch.device]:
        """Find the devices that a name allows.

        Args:
            name: "auto" (or empty), "cpu", "cuda" or "cuda:1".
            field: Dotted path of the name in the request, for the error.

        Returns:
            The preferred devices for "auto" and for their type; else the one of that name, or all
            of that type.

        Raises:
            InvalidInput: The device does not exist. The error lists the devices that do.
        """
        if name in ("", "auto", self.preferred[0].type):
            return self.preferred
        if found := [device for device in self.all if name in (str(device), device.type)]:
            return found
        raise InvalidInput(
            f"this worker has no device {name!r}",
            field,
            f"auto, {', '.join(map(str, self.all))}",
            "choose one of them",
        )


def describe(device: torch.device, sessions: int, waiting: int) -> worker_pb2.Device:
    """Describe a device as a message.

    Args:
        device: The device.
        sessions: Its open sessions.
        waiting: Pieces of work that wait or run on it.
    """
    free, total = memory(device)
    description = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return worker_pb2.Device(
        name=str(device),
        description=description,
        memory_total_bytes=total,
        memory_free_bytes=free,
        sessions=sessions,
        waiting=waiting,
    )


def memory(device: torch.device) -> tuple[int, int]:
    """Return the available and the total bytes of a device's memory.

    On a CPU, memory that the system would free counts as available.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return free, total
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(total, free_memory()), total


def check_memory(device: torch.device, asked: int, field: str, remedy: str) -> None:
    """Raise an error before memory is allocated that is not available.

    Args:
        device: The device.
        asked: Bytes to allocate.
        field: Dotted path of what needs the memory, for the error.
        remedy: What needs less memory, for the error.

    Raises:
        InvalidInput: The device has fewer bytes available.
    """
    free, _ = memory(device)
    if asked > free:
        raise InvalidInput(
            f"this needs {asked / 2**30:,.1f} GiB of {device}'s memory",
            field,
            f"at most the {free / 2**30:,.1f} GiB that are free",
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
def machine() -> worker_pb2.Machine:
    """Describe the processor and the libraries that the last digits of results depend on."""
    capability = torch.backends.cpu.get_cpu_capability()
    return worker_pb2.Machine(
        processor=f"{_cpu_name()} ({capability})",
        cores=available_cores(),
        blas=", ".join(_linear_algebra(torch.__config__.show())),
    )


def _linear_algebra(configuration: str) -> list[str]:
    """Find the libraries of linear algebra in the lines of ``torch.__config__.show()``."""
    wanted = {
        "MKL": r"Math Kernel Library Version ([\d.]+)",
        "oneDNN": r"MKL-DNN v([\d.]+)",
        "OpenBLAS": r"OpenBLAS ([\d.]+)",
        "cuBLAS": r"CUDA Runtime ([\d.]+)",
    }
    found = {name: re.search(pattern, configuration) for name, pattern in wanted.items()}
    named = [f"{name} {match[1]}" for name, match in found.items() if match]
    if found["MKL"] or found["OpenBLAS"]:
        return named
    return [*re.findall(r"BLAS_INFO=(\w+)", configuration), *named]


@cache
def versions() -> dict[str, str]:
    """Return the versions that numbers and protocol depend on. Cached, as the lookup is slow."""
    found = {
        name: version(name) for name in ("numpy", "grpcio", "pyzmq", "protobuf", "safetensors")
    }
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        **found,
    }
