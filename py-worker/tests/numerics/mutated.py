"""Files of every format that Atlas reads, mutated, and what their own libraries read of them.

``python -m tests.numerics.mutated CASES SEED`` (in ``py-worker``) reads so many mutated files, in
processes of their own, and prints a JSON line for each format: how many gave the same values as
NumPy, PyTorch, safetensors or h5py, how many were refused, and each fault with a file that shows
it: other values, an error of another kind, a crash, a hang, or too much memory.

``python -m tests.numerics.mutated --batch FORMAT CASES SEED OUT`` writes mutated files of a format
that TypeScript reads, one after the other (``OUT``), and what they hold (``OUT.jsonl``).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray

from atlas_worker import checkpoints
from atlas_worker.checkpoints import CheckpointError
from atlas_worker.datasets.climatenet import ClimateNet, ClimateNetParams
from atlas_worker.datasets.digits import load_digits
from atlas_worker.datasets.pandas_hdf5 import PandasTable, PandasTableParams
from atlas_worker.errors import WorkerError
from atlas_worker.generators.climatenet import generate

from . import pandas_tables

Values = Mapping[str, NDArray[Any]]
CPU = torch.device("cpu")
REFUSALS = (CheckpointError, WorkerError)
"""What a reader may raise."""
SECONDS = 20
"""Time for one file, after which its reader is said to hang."""
MEMORY_MIB = 512
"""Memory that one small file may take."""


class Unlike(Exception):
    """A reader gave values that the format's own library does not give."""


@dataclass(frozen=True)
class Format:
    """A format, with proper files of it, its reader in the worker, and its own library."""

    share: float
    """Part of all cases."""
    whole: Callable[[int], bytes]
    """A proper file, one of several."""
    words: tuple[bytes, ...]
    """Bytes that mean something in the format."""
    read: Callable[[bytes, Path], Values] | None
    """Our reader; None if it is in TypeScript."""
    expected: Callable[[bytes], Values]
    """What the format's own library reads."""
    remade: Callable[[bytes, random.Random], bytes] | None = None
    """Mutates what lies inside a container."""


def mutate(whole: bytes, rng: random.Random, words: tuple[bytes, ...]) -> bytes:
    """Change a file in one to four places, half of them near its beginning or end."""
    data = bytearray(whole)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        end = len(data)
        at = rng.choice((rng.randrange(end + 1), rng.randrange(min(end, 256) + 1)))
        if rng.random() < 0.1:
            at = max(0, end - at)
        length = rng.choice((1, 1, 2, 4, 8, rng.randrange(64)))
        match rng.randrange(9):
            case 0 if end:
                data[min(at, end - 1)] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + length] = bytes([rng.choice((0, 0xFF, 0x7F, 0x80))]) * length
            case 2:
                data[at : at + length] = rng.randbytes(length)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length]
            case 5:
                data[at : at + (length if rng.random() < 0.5 else 0)] = rng.choice(words)
            case 6:
                digits = [i for i, byte in enumerate(data[:4096]) if 48 <= byte < 58]
                if digits:
                    data[rng.choice(digits)] = rng.randrange(48, 58)
            case 7:
                del data[at:]
            case _:
                data += rng.choice((b"\0" * length, rng.randbytes(length), whole))
    return bytes(data)


def arrays(seed: int) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(seed)
    return {
        "convs.0.weight": rng.normal(size=(3, 2)).astype("f4"),
        "convs.0.bias": rng.normal(size=3).astype(rng.choice(["f4", "f8", "f2"])),
        "n": rng.integers(-9, 9, ()).astype(rng.choice(["i8", "i4", "u1"])),
    }


def npy(seed: int) -> bytes:
    rng = random.Random(seed)
    types = ("<f4", ">f4", "<f8", "<f2", ">i2", "<i8", "<u8", "|u1", "|b1", "<u4", ">f8", "|i1")
    values = np.random.default_rng(seed).normal(size=(2, 3, 2)) * 50
    order = rng.choice("CF")
    file = io.BytesIO()
    array = np.asarray(np.abs(values), rng.choice(types), order=order)  # type: ignore[call-overload]
    np.lib.format.write_array(file, array, (rng.choice((1, 1, 2)), 0))
    if rng.random() < 0.1:
        np.save(file, values)
    return file.getvalue()


def load_npy(data: bytes) -> Values:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("an archive")
    if array.dtype == bool:
        array = array.view("u1") != 0
    return {"": array}


def state(seed: int) -> dict[str, Any]:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays(seed).items()}
    return {"epoch": 3, "model": tensors} if seed % 2 else tensors


def saved(seed: int, *, zipped: bool) -> bytes:
    file = io.BytesIO()
    torch.save(state(seed), file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def repacked(data: bytes, rng: random.Random) -> bytes:
    """Mutate the pickle in an archive, and pack it again."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("data.pkl"):
                content = mutate(content, rng, PICKLE)
            new.writestr(name, content)
    return out.getvalue()


def numbers(content: object) -> dict[str, NDArray[Any]]:
    """All tensors in what a checkpoint holds."""
    found: dict[str, NDArray[Any]] = {}
    pending = [("", content)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, torch.Tensor):
            dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
            found[name] = dense.contiguous().reshape(-1).view(torch.uint8).numpy()
        elif isinstance(value, Mapping):
            pending += [(f"{name}.{key}", item) for key, item in value.items()]
        elif isinstance(value, (list, tuple)):
            pending += [(f"{name}.{i}", item) for i, item in enumerate(value)]
    return found


def load_torch(data: bytes) -> Values:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return numbers(torch.load(io.BytesIO(data), weights_only=True, map_location="cpu"))


def read_checkpoint(data: bytes, folder: Path) -> Values:
    path = folder / "a.pt"
    path.write_bytes(data)
    checkpoint = checkpoints.load(path)
    tensors, _ = checkpoints.every_tensor(checkpoint.content)
    return numbers({name.rsplit(".", 1)[-1]: t for name, t in tensors.items()}) and numbers(
        checkpoint.content
    )


def load_safetensors(data: bytes) -> Values:
    return numbers(safetensors.torch.load(data))


def load_safetensors_widened(data: bytes) -> Values:
    tensors = safetensors.torch.load(data)
    return {name: widened(t) for name, t in tensors.items()}


def widened(tensor: torch.Tensor) -> NDArray[Any]:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def images(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 28, 28), np.uint8)
    return b"\0\0\x08\x03" + np.array(pixels.shape, ">u4").tobytes() + pixels.tobytes()


def load_idx(data: bytes) -> Values:
    if data[:4] != b"\0\0\x08\x03":
        raise ValueError("no IDX file")
    shape = np.frombuffer(data, ">u4", 3, 4)
    return {"": np.frombuffer(data, np.uint8, offset=16).reshape(shape)}


def load_packed_idx(data: bytes) -> Values:
    return load_idx(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)


def digits_reader(suffix: str) -> Callable[[bytes, Path], Values]:
    def read(data: bytes, folder: Path) -> Values:
        if not any(folder.iterdir()):
            for split in ("train", "t10k"):
                labels = b"\0\0\x08\x01\0\0\0\x03\x01\x02\x03"
                (folder / f"{split}-labels-idx1-ubyte").write_bytes(labels)
            (folder / "t10k-images-idx3-ubyte").write_bytes(images(0))
        (folder / f"train-images-idx3-ubyte{suffix}").write_bytes(data)
        found = load_digits("idx", str(folder), "train")
        return {
            "": getattr(found, "images", found[0] if isinstance(found, tuple) else None).numpy()
        }

    return read


@contextmanager
def stored(data: bytes) -> Iterator[Path]:
    """A file with these bytes. HDF5 reads one in memory by other rules."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


@lru_cache(8)
def table(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.h5")
        values = rng.normal(size=(6, 8)).astype("f4")
        pandas_tables.write(path, values, rng.integers(0, 2, 6), chunk=4)
        return path.read_bytes()


def read_table(data: bytes, folder: Path) -> Values:
    path = folder / "a.h5"
    path.write_bytes(data)
    source = PandasTable(PandasTableParams(str(path), items=2), seed=0, device=CPU, tensors={})
    x, y = source.make(lambda *_: None)
    return {"x": x.numpy().reshape(len(x), -1), "y": y.numpy()[:, 0]}


def load_table(data: bytes) -> Values:
    with stored(data) as path, h5py.File(path) as file:
        (group,) = [group for group in file.values() if "table" in group]  # of any name
        rows = group["table"][()]
    x = rows["values_block_0"].astype("f4")
    y = rows["values_block_1"][:, 1].astype("f4")
    return {"x": x, "y": y}


@lru_cache(2)
def weather(seed: int) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        with redirect_stdout(io.StringIO()):  # it tells its progress
            generate(4, seed, Path(folder), 1, shape=(48, 72))
        original = next(Path(folder).rglob("*.nc"))
        path = Path(folder, "b.nc")
        with h5py.File(original) as old, h5py.File(path, "w") as new:
            for name in ("time", "lat", "lon", "TMQ", "LABELS"):
                if name in old:
                    old.copy(name, new)
        return path.read_bytes()


def read_weather(data: bytes, folder: Path) -> Values:
    inside = folder / "train"
    inside.mkdir(exist_ok=True)
    (inside / "data-2000-01-01-01-1_0.nc").write_bytes(data)
    params = ClimateNetParams(str(inside), variables="TMQ", storage="memory")
    x, y = ClimateNet(params, seed=0, device=CPU, tensors={}).make(lambda *_: None)
    return {"x": x.numpy()[0, 0], "y": y.numpy()[0, 0].astype("i8")}


def load_weather(data: bytes) -> Values:
    from atlas_worker.datasets.climatenet import NORMAL

    mean, deviation = NORMAL["TMQ"][:2]
    with stored(data) as path, h5py.File(path) as file:
        values = np.asarray(file["TMQ"][0], "f4")
        return {"x": (values - mean) / deviation, "y": np.asarray(file["LABELS"][()], "i8")}


PICKLE = (b"q\0", b"R", b"}", b"(", b"u.", b"ctorch\nTensor\n", b"cos\nsystem\n", b"\x85", b"Q")
NPY = (
    b"'>f8'",
    b"'|O'",
    b"True",
    b"(",
    b"3,",
    b"-1",
    b"9999999999",
    b"'descr'",
    b"\x93NUMPY",
    b"L",
)
SAFE = (b'"F64"', b'"BF16"', b"[0,", b"99999999999", b'"shape"', b"{", b"}", b"-1", b"__metadata__")
HDF5 = (b"\x89HDF\r\n\x1a\n", b"TREE", b"HEAP", b"SNOD", b"\xff" * 8, b"\0" * 8, b"GCOL", b"OHDR")

FORMATS: dict[str, Format] = {
    "npy": Format(0.26, npy, NPY, None, load_npy),
    "safetensors": Format(
        0.16,
        lambda seed: safetensors.numpy.save(arrays(seed)),
        SAFE,
        None,
        load_safetensors_widened,
    ),
    "safetensors, by the worker": Format(
        0.06,
        lambda seed: safetensors.numpy.save(arrays(seed)),
        SAFE,
        read_checkpoint,
        load_safetensors,
    ),
    "PyTorch, zip": Format(
        0.14,
        lambda seed: saved(seed, zipped=True),
        (b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", *PICKLE),
        read_checkpoint,
        load_torch,
        repacked,
    ),
    "PyTorch, legacy": Format(
        0.1, lambda seed: saved(seed, zipped=False), PICKLE, read_checkpoint, load_torch
    ),
    "IDX": Format(0.1, images, (b"\0\0\x08\x03", b"\xff" * 4), digits_reader(""), load_idx),
    "IDX, gzip": Format(
        0.06,
        lambda seed: gzip.compress(images(seed), mtime=0),
        (b"\x1f\x8b", b"\xff" * 4),
        digits_reader(".gz"),
        load_packed_idx,
        lambda data, rng: gzip.compress(mutate(gzip.decompress(data), rng, (b"\0\0\x08\x01",))),
    ),
    "HDF5 table": Format(0.08, table, HDF5, read_table, load_table),
    "NetCDF": Format(0.04, weather, HDF5, read_weather, load_weather),
}


def case(format: Format, seed: int) -> bytes:
    """Make the mutated file of a seed."""
    rng = random.Random(seed)
    whole = format.whole(rng.randrange(8 if format.share > 0.05 else 1))
    if format.remade and rng.random() < 0.5:
        return format.remade(whole, rng)
    return mutate(whole, rng, format.words)


def expected(format: Format, data: bytes) -> Values | None:
    """What the format's own library reads; None if it refuses."""
    try:
        return format.expected(data)
    except (Exception, SystemError):
        return None


def check(format: Format, data: bytes, folder: Path) -> str:
    """Read one file.

    Returns:
        "same" or "refused".

    Raises:
        Unlike: The values differ from those of the format's own library.
        Exception: The reader raised what is no refusal.
    """
    assert format.read is not None
    try:
        got = format.read(data, folder)
    except REFUSALS as error:
        message = getattr(error, "message", "")
        if not message or "\n" in message:
            raise Unlike(f"refused with the message {message!r}") from error
        return "refused"
    want = expected(format, data)
    if want is None:
        raise Unlike("it was read, but its own library refuses it")
    for name, value in want.items():
        mine = got.get(name)
        if mine is None or mine.shape != value.shape or not alike(mine, value):
            raise Unlike(f"other values of {name!r}")
    return "same"


def alike(a: NDArray[Any], b: NDArray[Any]) -> bool:
    for flipped in (b, b[::-1]) if b.ndim == 2 and b.shape == (48, 72) else (b,):
        if a.dtype.kind != "f":
            same = bool((a == flipped).all())
        else:
            same = bool(np.allclose(a, flipped, 1e-5, 1e-6, equal_nan=True))
        if same:
            return True
    return False


def digest(values: Values) -> list[Any]:
    """Names, shapes and numbers, as TypeScript writes them too. Integers stay exact."""
    told = []
    for name, value in sorted(values.items()):
        if value.dtype.kind == "f":
            wide = value.astype("<f8")
            wide[np.isnan(wide)] = np.nan
            texts = hashlib.md5(wide.tobytes(), usedforsecurity=False).hexdigest()
        else:
            joined = ",".join(str(int(x)) for x in value.reshape(-1))
            texts = hashlib.md5(joined.encode(), usedforsecurity=False).hexdigest()
        told.append([name, list(value.shape), texts])
    return told


def write_batch(name: str, cases: int, seed: int, out: Path) -> None:
    format = FORMATS[name]
    with out.open("wb") as files, Path(f"{out}.jsonl").open("w") as lines:
        for i in range(cases):
            data = case(format, seed + i)
            files.write(data)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                want = expected(format, data)
                told = None if want is None else digest(want)
            lines.write(json.dumps({"bytes": len(data), "holds": told}) + "\n")


def work(name: str, seeds: range, at: Any, pipe: Any) -> None:
    """Read the files of these seeds; say before each which one it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    format = FORMATS[name]
    with tempfile.TemporaryDirectory(prefix="atlas-mutated-") as folder:
        for seed in seeds:
            at.value = seed
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            fault = ""
            try:
                how = check(format, case(format, seed), Path(folder))
            except BaseException as error:
                how = "fault"
                kind = "" if isinstance(error, Unlike) else f"{type(error).__name__}: "
                fault = f"{kind}{error}".splitlines()[0][:160]
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            if peak - before > MEMORY_MIB * 1024:
                how, fault = "fault", f"it took {(peak - before) // 1024} MiB"
            pipe.send((seed, how, fault, peak / 1024))
    pipe.close()


def run(name: str, seeds: range) -> dict[str, Any]:
    """Read mutated files of one format, each in a process that may crash or hang."""
    fork = multiprocessing.get_context("fork")
    FORMATS[name].whole(0)  # once, for all processes
    tally: Counter[str] = Counter()
    faults: dict[str, int] = {}
    peak, start = 0.0, time.perf_counter()
    while seeds:
        mine, theirs = fork.Pipe(duplex=False)
        at = fork.Value("q", -1)
        process = fork.Process(target=work, args=(name, seeds, at, theirs))
        process.start()
        theirs.close()
        done = seeds.start
        try:
            while done < seeds.stop and mine.poll(SECONDS):
                seed, how, fault, used = mine.recv()
                peak = max(peak, used)
                done = seed + 1
                tally[how] += 1
                if fault:
                    faults.setdefault(fault, seed)
        except EOFError:
            pass
        if done < seeds.stop:
            hangs = process.is_alive()
            if hangs:
                process.kill()
            process.join()
            tally["fault"] += 1
            what = "hangs" if hangs else f"crashes (exit code {process.exitcode})"
            if crashes_alone(name, done):
                what = f"its own library {what}"
                tally["fault"] -= 1
                tally["crash of its library"] += 1
            else:
                faults.setdefault(what, done)
            done += 1
        process.join()
        seeds = range(done, seeds.stop)
    seconds = time.perf_counter() - start
    return {"format": name, **tally, "faults": faults, "seconds": seconds, "peak_mib": peak}


def crashes_alone(name: str, seed: int) -> bool:
    """Whether the format's own library crashes or hangs with a file, without our reader."""
    fork = multiprocessing.get_context("fork")
    format = FORMATS[name]
    process = fork.Process(target=lambda: expected(format, case(format, seed)))
    process.start()
    process.join(SECONDS)
    alone = process.exitcode != 0
    if process.is_alive():
        process.kill()
    return alone


def main() -> None:
    if sys.argv[1] == "--batch":
        name, cases, seed, out = sys.argv[2:]
        write_batch(name, int(cases), int(seed), Path(out))
        return
    cases, first = int(sys.argv[1]), int(sys.argv[2])
    os.environ["OMP_NUM_THREADS"] = "1"
    for name, format in FORMATS.items():
        if format.read is not None:
            count = max(1, round(cases * format.share))
            print(json.dumps(run(name, range(first, first + count))), flush=True)


if __name__ == "__main__":
    main()
