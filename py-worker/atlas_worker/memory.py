"""Memory that this process may still take."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Return the bytes of memory that this process can still take, as far as that is known.

    It is the least of what the system has available, what a container's limit leaves, and what the
    limits of the process (``ulimit -d``, ``ulimit -v``) leave.
    """
    left = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError, IndexError):  # not Linux
        left.append(1024 * _entry(Path("/proc/meminfo"), "MemAvailable:"))
    with suppress(OSError, ValueError):  # no container
        limit = (_GROUP / "memory.max").read_text().strip()
        if limit != "max":
            used = int((_GROUP / "memory.current").read_text())
            cached = _entry(_GROUP / "memory.stat", "inactive_file")
            left.append(int(limit) - used + cached)
    with suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        for what, name in ((resource.RLIMIT_DATA, "VmData:"), (resource.RLIMIT_AS, "VmSize:")):
            soft, _ = resource.getrlimit(what)
            if soft != resource.RLIM_INFINITY:
                left.append(soft - 1024 * _entry(Path("/proc/self/status"), name))
    return max(0, min(left))


def _entry(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise ValueError(name)
