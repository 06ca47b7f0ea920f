"""What the orchestrator calls through its local Python bridge (src/interop), with no worker running.

Paths in, a JSON text out: the bridge passes texts by value, and every other object by reference.
"""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from atlas_worker import checkpoints
from atlas_worker.checkpoints import CheckpointError, Format

if TYPE_CHECKING:
    from atlas_worker.exports import ExportFormat

signal.signal(
    signal.SIGINT, signal.SIG_DFL
)  # Ctrl-C is the orchestrator's to explain, without a traceback of ours


def inspect_checkpoint(path: str) -> str:
    """The ``Summary`` of a checkpoint, or what is wrong with it."""
    return _answer(lambda: checkpoints.inspect(Path(path)).to_json())


def convert_checkpoint(source: str, target: str, to: Format) -> str:
    """Write ``source`` as ``target`` in the format ``to``; the ``Summary`` of what was written, or what is wrong."""
    return _answer(lambda: checkpoints.convert(Path(source), Path(target), to).to_json())


def export_predictor(source: str, target: str, to: ExportFormat) -> str:
    """Write the predictor of a checkpoint of ours as ``target`` in the format ``to``; what was ``Exported``, or what is wrong."""
    from atlas_worker import exports  # only now: it loads all architectures

    return _answer(lambda: exports.export(Path(source), Path(target), to).to_json())


def _answer(compute: Callable[[], dict[str, object]]) -> str:
    try:
        return json.dumps({"ok": compute()})
    except CheckpointError as error:
        return json.dumps({"error": {"message": error.message, "remedy": error.remedy}})
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):  # PyTorch's words
            raise
        message = "there is not enough memory to load the checkpoint"
        return json.dumps(
            {"error": {"message": message, "remedy": "close other programs, or use a larger machine"}}
        )
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "")
        return json.dumps(
            {"system": {"code": code, "path": str(error.filename or ""), "message": str(error)}}
        )
