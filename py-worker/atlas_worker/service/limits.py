"""Limits of a worker. Each one is checked before the memory that it limits is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, counts otherwise. ``WorkerService.Describe`` reports the first five."""

    max_inline_bytes: int = 64 * KIB
    """Elements of a tensor inside a message."""
    max_tensor_bytes: int = 4 * GIB
    """Elements of any tensor."""
    max_message_bytes: int = 8 * MIB
    """A gRPC message."""
    max_sessions: int = 32
    """Open sessions."""
    max_session_ticket_bytes: int = 8 * GIB
    """Buffers of one session on the tensor plane."""
    max_session_upload_bytes: int = 512 * GIB
    """Files that a session's client sent, on the disk."""
    max_session_objects: int = 256
    """Objects of one session."""
    max_session_jobs: int = 256
    """Jobs of one session. Beyond it, the oldest finished jobs are forgotten."""
    max_unfinished_jobs: int = 128
    """Jobs of all sessions that run or wait."""
    max_calls: int = 512
    """Calls at a time, including those that wait for a server thread."""
    max_watches: int = 64
    """Watched jobs of all sessions; each watch occupies a server thread."""
    max_guarded_frame_bytes: int = 128 * KIB
    """A frame on an encrypted plane, which ZeroMQ stores for a peer that has shown no key yet."""
    max_handshake_seconds: float = 5.0
    """Time for a peer on a ZeroMQ plane to show its key, before it is dropped."""
    max_files: int = 4096
    """Open files of the process, connections included. It limits what strangers can hold open."""
    max_rank: int = 16
    """Dimensions of a tensor."""
    data_root: Path = Path("/")
    """Folder that files named by a client must lie in. Relative paths start here."""
    trust_code: bool = False
    """Whether the worker executes code that a client names or sends: programs and modules."""
    lease_seconds: float = 600.0
    """Time without a call, a watch or an unfinished job after which a session is closed."""
