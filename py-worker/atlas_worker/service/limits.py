"""What a worker will hold and accept. Every limit is checked before the memory it guards is taken."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, counts otherwise. The first five are what ``WorkerService.Describe`` reports."""

    max_inline_bytes: int = 64 * KIB
    max_tensor_bytes: int = 4 * GIB
    max_message_bytes: int = 8 * MIB
    max_sessions: int = 32
    max_session_ticket_bytes: int = 8 * GIB
    max_session_objects: int = 256
    max_session_jobs: int = 256
    """Finished jobs beyond this many are forgotten, oldest first."""
    max_unfinished_jobs: int = 128
    """Jobs that run or wait, over all sessions."""
    max_calls: int = 512
    """Calls at once, those included that wait for a server thread."""
    max_watches: int = 64
    """Streams at once, over all sessions; each occupies a server thread."""
    max_guarded_frame_bytes: int = 128 * KIB
    """Of a frame on a plane that asks for keys: ZeroMQ keeps so much of what a peer sends before it has shown its own."""
    max_handshake_seconds: float = 5.0
    """A peer on a ZeroMQ plane that has not shown its key by then is dropped, and with it what it has sent."""
    max_files: int = 4096
    """Of the process, connections among them: what strangers hold open is bounded by it."""
    max_rank: int = 16
    data_root: Path = Path("/")
    """Files that a client names must lie in it; relative paths start there."""
    trust_code: bool = False
    """Whether code that a client names or sends is executed: programs and modules as predictors."""
    lease_seconds: float = 600.0
    """A session without a call, a watch or an unfinished job for so long is closed: its client ended without a word."""
