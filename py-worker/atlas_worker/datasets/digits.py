"""Images of handwritten digits: MNIST's IDX files, or the digits of scikit-learn."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..errors import FileMissing, InvalidInput

FIELD = "dataset.source.params.path"
"""Path of the folder in a request, for errors."""
SIDE = 28
"""Width of an image in pixels."""
CLASSES = 10
Split = Literal["train", "test"]
Source = Literal["idx", "sklearn"]

_NAMES: dict[Split, str] = {"train": "train", "test": "t10k"}
SKLEARN_TRAIN = 1437
"""How many of scikit-learn's 1,797 digits are for training: the first four fifths."""


def load_digits(source: Source, folder: str, split: Split) -> tuple[Tensor, Tensor]:
    """Load images and their labels.

    Args:
        source: MNIST's IDX files, or scikit-learn's digits.
        folder: Folder with the IDX files.
        split: The training or the test digits.

    Returns:
        Images ``[M, 28, 28]`` and labels ``[M]``, both uint8 on the CPU.

    Raises:
        InvalidInput: The files are missing, damaged, or not MNIST's.
    """
    return _from_sklearn(split) if source == "sklearn" else _from_idx(folder, split)


def _from_idx(folder: str, split: Split) -> tuple[Tensor, Tensor]:
    if not folder:
        raise InvalidInput("no folder is given", FIELD, "a folder with MNIST's IDX files")
    images, of = read_idx(Path(folder), f"{_NAMES[split]}-images-idx3-ubyte", 3)
    labels, to = read_idx(Path(folder), f"{_NAMES[split]}-labels-idx1-ubyte", 1)
    if images.shape[1:] != (SIDE, SIDE):
        raise InvalidInput(
            f"the images of {of} have {images.shape[1]}x{images.shape[2]} pixels",
            FIELD,
            f"{SIDE}x{SIDE} pixels",
        )
    if len(images) != len(labels) or not len(images):
        raise InvalidInput(
            f"{of} has {len(images)} images, {to} has {len(labels)} labels",
            FIELD,
            "equal numbers of images and labels, at least one",
            "take both files from one place",
        )
    if labels.max() >= CLASSES:
        raise InvalidInput(
            f"{to} has the label {labels.max()}", FIELD, f"whole numbers from 0 to {CLASSES - 1}"
        )
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.copy())


def read_idx(folder: Path, name: str, dims: int) -> tuple[NDArray[np.uint8], Path]:
    """Read an IDX file of unsigned bytes, gzipped (``.gz``) or not.

    The format is: two zero bytes, 8 for unsigned bytes, the number of dimensions, the size of each
    dimension as four bytes with the most significant first, then the entries.

    Args:
        folder: Folder of the file.
        name: Name of the file, without ``.gz``.
        dims: Expected number of dimensions.

    Returns:
        The array, and the file's path.

    Raises:
        FileMissing: There is no such file.
        InvalidInput: The file is damaged or another one. The error gives its MD5 sum.
    """
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
    if path is None:
        raise FileMissing(
            f"there is no file {folder / name}.gz",
            FIELD,
            "a folder with MNIST's IDX files",
            "check the path",
        )
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror})", FIELD, "a readable file"
        ) from None
    try:
        data = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise _wrong(path, raw, f"is damaged, or no gzip file ({error})") from None
    if data[:4] != bytes([0, 0, 8, dims]):
        raise _wrong(
            path, raw, f"is no IDX file of bytes in {dims} dimension{'s' if dims > 1 else ''}"
        )
    shape = (
        tuple(np.frombuffer(data, ">u4", dims, 4).tolist()) if len(data) >= 4 + 4 * dims else None
    )
    if shape is None or len(data) - 4 - 4 * dims != np.prod(shape, dtype=object):
        raise _wrong(path, raw, "is truncated, or has another size than its header says")
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dims).reshape(shape), path


def _wrong(path: Path, raw: bytes, what: str) -> InvalidInput:
    return InvalidInput(
        f"{path} {what}; its MD5 sum is {hashlib.md5(raw, usedforsecurity=False).hexdigest()}",
        FIELD,
        "an undamaged IDX file",
        "delete it and download it again",
    )


def _from_sklearn(split: Split) -> tuple[Tensor, Tensor]:
    """8x8 images, enlarged to the size of MNIST's: 20x20 pixels in the middle of 28x28."""
    from sklearn.datasets import load_digits

    data = load_digits()
    part = slice(None, SKLEARN_TRAIN) if split == "train" else slice(SKLEARN_TRAIN, None)
    small = torch.from_numpy(data.images[part]).float()[:, None] * (255 / 16)
    large = functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = functional.pad(large, (4, 4, 4, 4)).round().clamp(0, 255).to(torch.uint8)[:, 0]
    return images, torch.from_numpy(data.target[part]).to(torch.uint8)
