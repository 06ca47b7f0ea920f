"""Images of handwritten digits: MNIST's IDX files, or the digits of scikit-learn."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..errors import FileMissing, InvalidInput, listed
from .base import entries_of
from .checks import count_shared

FIELD = "dataset.source.params.path"
"""Path of the folder in a request, for errors."""
SIDE = 28
"""Width of an image in pixels."""
CLASSES = 10
Split = Literal["train", "test"]
Source = Literal["idx", "sklearn"]
What = Literal["images", "labels"]

SKLEARN_TRAIN = 1437
"""How many of scikit-learn's 1,797 digits are for training: the first four fifths."""

PLACE = re.compile(r"raw|\w*mnist", re.IGNORECASE)
"""Name of a folder in which files are looked for, below the given one."""
NAME = re.compile(
    r"(?:(?P<set>.+)[-_.])?(?P<split>train|t10k|test)[-_.](?P<what>images|labels)"
    r"[-_.](?:idx\d?(?:[-_.]u?byte)?|u?byte)(?:\.(?:gz|gzip|xz|bz2|zst|zip))?",
    re.IGNORECASE,
)
"""Name of an IDX file, with or without the name of its data set in front."""
WANTED = "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
WANTED += "t10k-labels-idx1-ubyte, or the same with .gz"
DIMS: dict[What, int] = {"images": 3, "labels": 1}
TYPES = {
    8: "bytes",
    9: "signed bytes",
    11: "16-bit whole numbers",
    12: "32-bit whole numbers",
    13: "32-bit floating-point numbers",
    14: "64-bit floating-point numbers",
}
"""Types of entries, by the third byte of an IDX file."""
GZIP = b"\x1f\x8b"
OTHERS = {
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"PK\x03\x04": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    GZIP: "gzip twice",
}
"""Other compressed formats, by the first bytes of a file."""
MAPPED = 2**28
"""Files of at least so many bytes are mapped into memory, not read."""


@dataclass(frozen=True)
class Digits:
    """Images with labels, and what the user should know about them."""

    images: Tensor
    """``[M, 28, 28]`` uint8 on the CPU."""
    labels: Tensor
    """``[M]`` uint8 on the CPU."""
    warnings: tuple[str, ...] = ()


def load_digits(source: Source, folder: str, split: Split) -> Digits:
    """Load images and their labels.

    Args:
        source: MNIST's IDX files, or scikit-learn's digits.
        folder: Folder with the IDX files, see :func:`find_idx`.
        split: The training or the test digits.

    Returns:
        The digits. Training digits come with a warning if test digits are among them.

    Raises:
        FileMissing: The folder, or a file, is missing. The error lists what is there.
        InvalidInput: The files are ambiguous, damaged, or not like MNIST's.
    """
    if source == "sklearn":
        return _from_sklearn(split)
    if not folder:
        raise InvalidInput("no folder is given", FIELD, "a folder with MNIST's IDX files")
    try:
        found = find_idx(Path(folder))
    except OSError as error:
        raise InvalidInput(
            f"{error.filename or folder} cannot be listed ({error.strerror})",
            FIELD,
            "a readable folder",
        ) from None
    images, of = _only(found[split]["images"], 3)
    labels, to = _only(found[split]["labels"], 1)
    _check(images, of, labels, to)
    warnings = []
    if "emnist" in of.name.lower():
        warnings.append(f"{of.name}: EMNIST stores images transposed, and they are used as stored")
    if (labels == labels[0]).all():
        warnings.append(f"all {len(labels):,} labels in {to} are {labels[0]}")
    if split == "train":
        others, at = _only(found["test"]["images"], 3)
        if same := count_shared(torch.from_numpy(images), torch.from_numpy(others)):
            warnings.append(
                f"{same:,} of {len(others):,} test images in {at} are training images too: "
                "scores on them say little"
            )
    return Digits(torch.from_numpy(images), torch.from_numpy(labels), tuple(warnings))


def find_idx(folder: Path) -> dict[Split, dict[What, list[Path]]]:
    """Find the IDX files of one data set below a folder.

    The files are in the folder, or below it in ``raw``, ``MNIST`` or ``MNIST/raw``, also of a name
    like FashionMNIST. Upper and lower case do not matter. A name is like
    ``train-images-idx3-ubyte``, with ``-``, ``_`` or ``.`` between its parts, perhaps with the name
    of the data set in front and ``.gz`` behind.

    Args:
        folder: The folder.

    Returns:
        The files that hold the images and the labels of each split. Several files must have the
        same content, see :func:`read_idx`.

    Raises:
        FileMissing: The folder does not exist, or has no complete set of files.
        InvalidInput: The folder has several sets of files.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileMissing(f"the folder {folder} {what}", FIELD, "a folder with MNIST's IDX files")
    sets: dict[tuple[Path, str], dict[Split, dict[What, list[Path]]]] = {}
    for place in _places(folder):
        for path in sorted(place.iterdir()):
            named = NAME.fullmatch(path.name)
            if named is None or not path.is_file():
                continue
            split: Split = "train" if named["split"].lower() == "train" else "test"
            own = sets.setdefault(
                (place, (named["set"] or "").lower()),
                {"train": {"images": [], "labels": []}, "test": {"images": [], "labels": []}},
            )
            own[split][cast(What, named["what"].lower())].append(path)
    whole = [own for own in sets.values() if not _lacking(own)]
    if len(whole) > 1 and not all(_alike(whole[0], other) for other in whole[1:]):
        raise InvalidInput(
            f"{folder} has several sets of digits: "
            + " and ".join(str(own["train"]["images"][0]) for own in whole),
            FIELD,
            "a folder with one set",
            "move the others to another folder",
        )
    if whole:
        return whole[0]
    if sets:
        (place, _), own = max(sets.items(), key=lambda item: -len(_lacking(item[1])))
        there = [p.name for s in own.values() for paths in s.values() for p in paths]
        raise FileMissing(
            f"{place} has {listed(there)}, but no {' and no '.join(_lacking(own))}",
            FIELD,
            f"all four of {WANTED}",
            "put the missing files beside the others",
        )
    raise FileMissing(
        f"{folder} has no digits; it holds {listed(entries_of(folder))}",
        FIELD,
        f"files named {WANTED}",
        "rename the files, or choose the folder that has them",
    )


def _places(folder: Path) -> Iterator[Path]:
    """The folders to look into: the given one, ``raw``, ``MNIST`` and ``MNIST/raw``."""
    yield folder
    for path in sorted(folder.iterdir()):
        if PLACE.fullmatch(path.name) and path.is_dir():
            yield path
            if path.name.lower() != "raw":
                yield from (p for p in sorted(path.iterdir()) if p.name.lower() == "raw")


def _lacking(own: dict[Split, dict[What, list[Path]]]) -> list[str]:
    return [
        f"{'training' if split == 'train' else 'test'} {what}"
        for split, parts in own.items()
        for what, paths in parts.items()
        if not paths
    ]


def _alike(
    one: dict[Split, dict[What, list[Path]]], other: dict[Split, dict[What, list[Path]]]
) -> bool:
    """Whether two sets have the same content."""
    return all(
        np.array_equal(read_idx(one[s][w][0], DIMS[w]), read_idx(other[s][w][0], DIMS[w]))
        for s, w in itertools.product(one, DIMS)
    )


def _only(paths: list[Path], dims: int) -> tuple[NDArray[np.uint8], Path]:
    """Read the one file, or files with the same content, such as a packed and an unpacked one."""
    first = read_idx(paths[0], dims)
    for other in paths[1:]:
        if not np.array_equal(first, read_idx(other, dims)):
            raise InvalidInput(
                f"{paths[0]} and {other.name} differ",
                FIELD,
                "one of them, or two with the same content",
                "remove the one that is not meant",
            )
    return first, paths[0]


def _check(images: NDArray[np.uint8], of: Path, labels: NDArray[np.uint8], to: Path) -> None:
    if images.shape[1:] != (SIDE, SIDE):
        raise InvalidInput(
            f"the images of {of} have {images.shape[1]}x{images.shape[2]} pixels",
            FIELD,
            f"{SIDE}x{SIDE} pixels",
            "cut or enlarge the images, and write the file again",
        )
    if len(images) != len(labels) or not len(images):
        raise InvalidInput(
            f"{of} has {len(images)} images, {to} has {len(labels)} labels",
            FIELD,
            "equal numbers of images and labels, at least one",
            "take both files from one place",
        )
    if labels.max() >= CLASSES:
        at = int((labels >= CLASSES).argmax())
        raise InvalidInput(
            f"{to} has the label {labels[at]} (image {at})",
            FIELD,
            f"whole numbers from 0 to {CLASSES - 1}",
            "leave out the images of other classes",
        )
    if not images.any():
        raise InvalidInput(
            f"all pixels of {of} are 0", FIELD, "images of digits, 255 for the brightest pixels"
        )


def read_idx(path: Path, dims: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzipped or not, whatever its name says.

    The format is: two zero bytes, 8 for unsigned bytes, the number of dimensions, the size of each
    dimension as four bytes with the most significant first, then the entries. A large file that is
    not gzipped is mapped into memory.

    Args:
        path: Path of the file.
        dims: Expected number of dimensions.

    Returns:
        The array. A change of it does not change the file.

    Raises:
        InvalidInput: The file is damaged, of another format, or holds other entries. For a damaged
            file the error gives its MD5 sum.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if packed else file
            return _read(stream, path, dims, packed)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(path, f"is damaged ({error})") from None
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror or error})", FIELD, "a readable file"
        ) from None


def _read(stream: IO[bytes], path: Path, dims: int, packed: bool) -> NDArray[np.uint8]:
    size, begin = path.stat().st_size, 4 + 4 * dims
    head = stream.read(begin)
    if other := next((name for mark, name in OTHERS.items() if head.startswith(mark)), None):
        raise InvalidInput(
            f"{path} is packed with {other}", FIELD, "an IDX file, gzipped or not", "unpack it"
        )
    if head[:2] != b"\0\0" or len(head) < 4 or head[2] not in TYPES:
        raise _damaged(path, "is no IDX file" if len(head) >= 4 else "is truncated")
    if head[2] != 8:
        raise InvalidInput(
            f"{path} holds {TYPES[head[2]]}", FIELD, "bytes from 0 to 255", "write it as bytes"
        )
    if head[3] != dims:
        raise InvalidInput(
            f"{path} has {head[3]} dimension{'s' if head[3] != 1 else ''}",
            FIELD,
            "images [N, 28, 28]" if dims == 3 else "labels [N]",
            "check whether images and labels are swapped",
        )
    wrong = "is truncated, or has another size than its header says"
    if len(head) < begin:
        raise _damaged(path, wrong)
    shape = tuple(int(n) for n in np.frombuffer(head, ">u4", dims, 4))
    count = math.prod(shape)
    if not packed:
        if size != begin + count:
            raise _damaged(path, wrong)
        if count >= MAPPED:
            return np.memmap(path, np.uint8, "c", begin, shape)
    elif count > 1032 * size:  # the most that deflate can pack
        raise _damaged(path, wrong)
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count and (part := stream.read(min(count - done, 2**24))):
        view[done : done + len(part)] = part
        done += len(part)
    if done < count or stream.read(1):
        raise _damaged(path, wrong)
    return np.frombuffer(data, np.uint8).reshape(shape)


def _damaged(path: Path, what: str) -> InvalidInput:
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(2**20):
            md5.update(part)
    return InvalidInput(
        f"{path} {what}; its MD5 sum is {md5.hexdigest()}",
        FIELD,
        "an undamaged IDX file",
        "compare the sum with that of the source, and get the file again",
    )


def _from_sklearn(split: Split) -> Digits:
    """8x8 images, enlarged to the size of MNIST's: 20x20 pixels in the middle of 28x28."""
    from sklearn.datasets import load_digits

    data = load_digits()
    part = slice(None, SKLEARN_TRAIN) if split == "train" else slice(SKLEARN_TRAIN, None)
    small = torch.from_numpy(data.images[part]).float()[:, None] * (255 / 16)
    large = functional.interpolate(small, size=(20, 20), mode="bilinear", align_corners=False)
    images = functional.pad(large, (4, 4, 4, 4)).round().clamp(0, 255).to(torch.uint8)[:, 0]
    return Digits(images, torch.from_numpy(data.target[part]).to(torch.uint8))
