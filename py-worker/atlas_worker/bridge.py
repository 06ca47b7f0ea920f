"""Functions that the orchestrator calls through its local Python bridge, without a worker.

The bridge (``src/interop``) passes texts by value and every other object by reference. So these
functions take paths and return JSON texts.
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
from atlas_worker.matching import Own

if TYPE_CHECKING:
    from atlas_worker.exports import ExportFormat

# The orchestrator explains Ctrl-C; a traceback from here would only be in the way.
signal.signal(signal.SIGINT, signal.SIG_DFL)


def inspect_checkpoint(path: str, key: str = "") -> str:
    """Describe a checkpoint file.

    Args:
        path: The checkpoint.
        key: Name of the entry to describe; empty for the weights.

    Returns:
        A JSON text: ``{"ok": ...}`` with a :class:`checkpoints.Summary`, or the error.
    """
    return _answer(lambda: checkpoints.inspect(Path(path), key).to_json())


def convert_checkpoint(source: str, target: str, to: Format) -> str:
    """Write the tensors of a checkpoint in another format.

    Args:
        source: The checkpoint to read.
        target: The file to write. An existing file is overwritten.
        to: The format of ``target``.

    Returns:
        A JSON text: ``{"ok": ...}`` with the :class:`checkpoints.Summary` of ``target``, or the
        error.
    """
    return _answer(lambda: checkpoints.convert(Path(source), Path(target), to).to_json())


def select_weights(source: str, target: str, own: str, key: str = "") -> str:
    """Write those tensors of a checkpoint that are a network's weights as safetensors.

    Args:
        source: The checkpoint to read.
        target: The file to write. An existing file is overwritten.
        own: The network's tensors as JSON: ``{"name": [is_floating, [shape]]}``.
        key: Name of the entry with the weights; empty for the only one that fits.

    Returns:
        A JSON text: ``{"ok": {"entry", "averages", "ignored"}}``, or the error.
    """
    network = {name: Own(floating, shape) for name, (floating, shape) in json.loads(own).items()}

    def select() -> dict[str, object]:
        choice = checkpoints.select(Path(source), Path(target), network, key)
        entry = choice.entry.removesuffix(".")
        return {"entry": entry, "averages": choice.averages, "ignored": choice.ignored}

    return _answer(select)


def export_predictor(source: str, target: str, to: ExportFormat) -> str:
    """Write the predictor of an Atlas checkpoint for use in other programs.

    Args:
        source: A checkpoint that Atlas wrote.
        target: The file to write. An existing file is overwritten.
        to: The format of ``target``.

    Returns:
        A JSON text: ``{"ok": ...}`` with :class:`exports.Exported`, or the error.
    """
    from atlas_worker import exports  # imported only here, since it loads all architectures

    return _answer(lambda: exports.export(Path(source), Path(target), to).to_json())


def _answer(compute: Callable[[], dict[str, object]]) -> str:
    try:
        return json.dumps({"ok": compute()})
    except CheckpointError as error:
        return json.dumps(
            {
                "error": {
                    "message": error.message,
                    "remedy": error.remedy,
                    "reason": error.reason,
                }
            }
        )
    except (MemoryError, RuntimeError) as error:
        # PyTorch reports a failed allocation on the CPU as a RuntimeError with these words.
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        message = "there is not enough memory to load the checkpoint"
        return json.dumps(
            {
                "error": {
                    "message": message,
                    "remedy": "close other programs, or use a larger machine",
                }
            }
        )
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "")
        return json.dumps(
            {"system": {"code": code, "path": str(error.filename or ""), "message": str(error)}}
        )
