"""The dataset ``files``: the same numbers from every format, or a line that says what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from atlas_worker import blocks  # noqa: F401  declares the dataset
from atlas_worker.datasets import inspection
from atlas_worker.datasets.arrays import ArraysDataset, ArraysParams
from atlas_worker.datasets.axes import known_axes, translate_axes
from atlas_worker.datasets.files import FilesDataset, FilesParams, content_of
from atlas_worker.datasets.readers import open_file
from atlas_worker.errors import InvalidInput

from .file_formats import COLUMNS, fields, flat_sets, sets, write_fields, write_sets

CPU = torch.device("cpu")
FIELD = "dataset.source.params"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("zarr")
    pytest.importorskip("pyarrow")
    out = tmp_path_factory.mktemp("files")
    write_sets(out)
    write_fields(out)
    return out


def made(folder: Path, inputs: str, targets: str = "", **params: Any) -> FilesDataset:
    """Make the dataset of ``FILE:MEMBER,MEMBER``, and read it."""
    dataset = opened(folder, inputs, targets, **params)
    dataset.run_epoch(lambda *_: None)
    return dataset


def opened(folder: Path, inputs: str, targets: str = "", **params: Any) -> FilesDataset:
    split: dict[str, Any] = {}
    for role, text in (("inputs", inputs), ("targets", targets)):
        name, _, members = text.partition(":")
        split[role] = str(folder / name) if name else ""
        split[f"{role}_members"] = tuple(members.split(",")) if members else ()
    if not targets:
        params = {"outputs": 1, **params}
    return FilesDataset(FilesParams(**split, **params), seed=0, device=CPU, tensors={})


def refusal(folder: Path, inputs: str, targets: str = "", **params: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        made(folder, inputs, targets, **params)
    assert "\n" not in caught.value.message
    return caught.value


SETS = [
    *(
        ".npy",
        ".npy, big-endian",
        ".npz",
        ".npz, packed",
        ".npz, packed, turned",
        "HDF5",
        "PyTorch",
    ),
    *("safetensors", "MATLAB 5", "MATLAB 7.3", "Zarr"),
]


@pytest.mark.parametrize("kind", SETS)
def test_sets_are_the_same_to_the_bit_as_sent_arrays(folder: Path, kind: str) -> None:
    x, y = (torch.from_numpy(a) for a in sets())
    sent = ArraysDataset(
        ArraysParams(), seed=0, device=CPU, tensors={"inputs": x.clone(), "targets": y.clone()}
    )
    got = made(folder, *SAME[kind])
    assert torch.equal(got.inputs, sent.inputs)
    assert torch.equal(got.targets, sent.targets)
    assert got.outputs == sent.outputs
    assert got.warnings == sent.warnings


SAME = {
    ".npy": ("x.npy", "y.npy"),
    ".npy, big-endian": ("big-endian.npy", "y.npy"),
    ".npz": ("stored.npz:x", "stored.npz:y"),
    ".npz, packed": ("packed.npz:x", "packed.npz:y"),
    ".npz, packed, turned": ("packed.npz:turned", "packed.npz:y"),
    "HDF5": ("sets.h5:/x", "sets.h5:/labels/y"),
    "PyTorch": ("sets.pt:x", "sets.pt:y"),
    "safetensors": ("sets.safetensors:x", "sets.safetensors:y"),
    "MATLAB 5": ("old.mat:x", "old.mat:y"),
    "MATLAB 7.3": ("new.mat:x", "new.mat:y"),
    "Zarr": ("sets.zarr:x", "sets.zarr:y"),
}


@pytest.mark.parametrize("kind", ["CSV", "text", "records", "Parquet"])
def test_columns_of_tables_are_features(folder: Path, kind: str) -> None:
    x, y = sets()
    got = made(folder, *flat_sets()[kind])
    assert got.inputs.shape == (len(x), 1, x[0].size)
    assert np.array_equal(got.inputs.numpy().reshape(x.shape), x)
    assert np.array_equal(got.targets.numpy()[:, 0], y)


@pytest.mark.parametrize("axes", ["", "time,y,x", "t,lat,lon", "n,y,x"])
@pytest.mark.parametrize("file", ["storms3.nc", "storms4.nc", "storms.zarr", "storms2.zarr"])
def test_variables_are_joined_as_channels(folder: Path, file: str, axes: str) -> None:
    f, g = fields()
    got = made(folder, f"{file}:U,V", f"{file}:RAIN", axes=axes)
    assert np.array_equal(got.inputs.numpy(), f)
    assert np.array_equal(got.targets.numpy()[:, 0], g)


@pytest.mark.parametrize(
    ("axes", "order"), [("n,y,x,c", (0, 2, 3, 1)), ("y,x,channel,sample", (2, 3, 1, 0))]
)
def test_axes_in_any_order_are_put_in_the_usual_one(
    tmp_path: Path, axes: str, order: tuple[int, ...]
) -> None:
    f, _ = fields()
    turned = np.ascontiguousarray(f.transpose(order))
    np.savez_compressed(tmp_path / "a.npz", f=turned)
    with h5py.File(tmp_path / "a.h5", "w") as h:
        h.create_dataset("f", data=turned, chunks=tuple(min(5, n) for n in turned.shape))
    for file in ("a.npz", "a.h5"):
        got = made(tmp_path, f"{file}:f", f"{file}:f", axes=axes)
        assert np.array_equal(got.inputs.numpy(), f)
        assert np.array_equal(got.targets.numpy(), f)


def test_trajectories_in_files_are_those_that_are_sent(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(6, 9, 4)).astype("f4")
    x[2, 5:] = np.nan  # a shorter one
    np.savez(tmp_path / "a.npz", traj=x, energy=(x**2).sum(2))
    sent = ArraysDataset(
        ArraysParams(predict="next", axes="n,t,features"),
        seed=0,
        device=CPU,
        tensors={"inputs": torch.from_numpy(x)},
    )
    for axes in ("n,t,features", "sample,time,feature"):
        params = {"predict": "next", "outputs": 0, "axes": axes}
        got = made(tmp_path, "a.npz:traj", **params)
        assert torch.equal(got.inputs, sent.inputs)
        assert torch.equal(got.targets, sent.targets)
        assert got.scenes is not None
        assert sent.scenes is not None
        assert torch.equal(got.scenes, sent.scenes)
    got = made(tmp_path, "a.npz:traj", "a.npz:energy", axes="n,t,features")
    assert len(got.inputs) == 6 * 9 - 4


def test_names_of_axes_are_translated_and_contradictions_refused(folder: Path) -> None:
    assert known_axes(["Time", "latitude", "longitude"]) == ("n", "y", "x")
    assert known_axes(["batch", "time", "features"]) == ("n", "t", "features")
    assert known_axes(["sample", "dim_1"]) is None
    assert translate_axes("sample,spam", "f") == "n,spam"
    assert refusal(folder, "storms4.nc:U", axes="lat,time,lon").field == f"{FIELD}.axes"
    assert refusal(folder, "storms4.nc:U", axes="time,lat").field == f"{FIELD}.axes"
    assert refusal(folder, "storms4.nc:U", axes="lat,y,time").field == f"{FIELD}.axes"


def test_several_members_whose_layout_is_ambiguous_are_asked_about(tmp_path: Path) -> None:
    a = np.random.default_rng(0).normal(size=(8, 20, 20))
    np.savez(tmp_path / "a.npz", u=a, v=a + 1, w=a[:, 0], p=a[:, :, 0], one=a[:, 0, 0])
    for members in ("u,v", "w,p"):
        error = refusal(tmp_path, f"a.npz:{members}")
        assert error.field == f"{FIELD}.axes"
        assert " or " in error.message
    assert made(tmp_path, "a.npz:u,v", axes="n,y,x").inputs.shape == (8, 2, 20, 20)
    assert made(tmp_path, "a.npz:u,v", axes="n,items,features").inputs.shape == (8, 20, 40)
    assert made(tmp_path, "a.npz:w,p", axes="n,features").inputs.shape == (8, 1, 40)
    assert made(tmp_path, "a.npz:w,p", axes="n,items").inputs.shape == (8, 20, 2)
    assert "axes" in refusal(tmp_path, "a.npz:u,w").message


def test_packed_numbers_are_unpacked_and_missing_ones_counted(tmp_path: Path) -> None:
    import xarray

    values = np.linspace(250, 300, 4 * 20 * 20).reshape(4, 20, 20)
    gaps = values.copy()
    gaps[2, 3, 4] = gaps[3, 0, 0] = np.nan
    packing = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 273.0, "_FillValue": -9999}
    axes = ("time", "lat", "lon")
    data = xarray.Dataset({"T": (axes, values), "G": (axes, gaps)})
    encoding = {"T": packing, "G": packing}
    data.to_netcdf(tmp_path / "a.nc", engine="scipy", encoding=encoding)
    data.to_zarr(tmp_path / "a.zarr", encoding=encoding, consolidated=False)
    data.to_zarr(tmp_path / "b.zarr", encoding=encoding, zarr_format=2)
    with h5py.File(tmp_path / "b.nc", "w") as h:
        for name in ("T", "G"):
            raw = np.where(np.isnan(data[name]), -9999, np.rint((data[name] - 273) / 0.01))
            h[name] = raw.astype("i2")
            for key in ("scale_factor", "add_offset"):
                h[name].attrs[key] = packing[key]
            h[name].attrs["_FillValue"] = np.int16(-9999)
    for file in ("a.nc", "b.nc", "a.zarr", "b.zarr"):
        got = made(tmp_path, f"{file}:T", axes="n,y,x").inputs.numpy()[:, 0]
        assert np.abs(got - values).max() < 0.006
        message = refusal(tmp_path, f"{file}:G", axes="n,y,x").message
        assert "2 numbers that are missing" in message
        assert "2 of 4 samples" in message
        assert "sample 2, y 3, x 4" in message


def test_what_netcdf_fills_gaps_with_is_a_number_in_plain_hdf5(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as h:
        h["x"] = np.array([[-32767, 1], [2, 3]], "i2")
    assert made(tmp_path, "a.h5").inputs.flatten().tolist() == [-32767, 1, 2, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_numbers_that_are_not_finite_are_counted_over_all_parts(tmp_path: Path, bad: float) -> None:
    x = np.ones((100_000, 60))
    x[:, 1] = np.arange(100_000)
    x[70_001, 5] = x[70_001, 6] = x[99_999, 0] = bad
    np.save(tmp_path / "x.npy", x)
    message = refusal(tmp_path, "x.npy").message
    assert "3 numbers" in message
    assert "2 of 100,000 samples" in message
    assert "sample 70001, features 5" in message


def other(folder: Path, write: Callable[[h5py.File], None]) -> None:
    with h5py.File(folder / "a.h5", "w") as h:
        write(h)


@pytest.mark.parametrize(
    ("array", "word"),
    [
        (np.ones((4, 3), "c8"), "complex numbers"),
        (np.full((4, 3), "text"), "text"),
        (np.full((4, 3), b"text"), "text"),
        (np.full((4, 3), "2020-01-01", "M8[s]"), "dates"),
    ],
)
def test_what_is_no_real_number_is_refused(tmp_path: Path, array: Any, word: str) -> None:
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", a=array)
    for file in ("a.npy", "a.npz", "a.npz:a"):
        assert word in refusal(tmp_path, file).message
    if array.dtype.kind == "c":
        torch.save(torch.from_numpy(array), tmp_path / "a.pt")
        with h5py.File(tmp_path / "a.h5", "w") as h:
            h["a"] = array
        for file in ("a.pt", "a.h5"):
            assert word in refusal(tmp_path, file).message


def test_code_in_files_is_never_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    np.save(tmp_path / "a.npy", np.array([Evil()], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([Evil()], object))
    torch.save({"x": torch.ones(3), "y": Evil()}, tmp_path / "a.pt")
    for file, word in (("a.npy", "pickled"), ("a.npz:a", "pickled"), ("a.pt", "execute code")):
        assert word in refusal(tmp_path, file).message
    assert not (tmp_path / "executed").exists()


def test_members_are_named_or_listed(folder: Path) -> None:
    missing = refusal(folder, "sets.h5:/spam").message
    assert "labels/y" in missing
    assert "x" in missing
    several = refusal(folder, "stored.npz")
    assert "2 arrays: x [60, 2, 3], y [60]" in several.message
    assert "stored.npz:x" in several.remedy
    assert "inputs and targets" in refusal(folder, "sets.csv", "sets.csv:y").message
    np.save(folder / "short.npy", sets()[1][:50])
    assert "60 samples" in refusal(folder, "x.npy", "short.npy").message
    assert "50" in refusal(folder, "x.npy", "short.npy").message
    assert refusal(folder, "x.npy", "g.npy").field == f"{FIELD}.targets"
    assert made(folder, "sets.h5:table").inputs.shape == (60, 1, len(COLUMNS) + 1)


def test_numbers_outside_the_file_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    with h5py.File(secret / "b.h5", "w") as h:
        h["x"] = np.arange(12.0).reshape(4, 3)
    (secret / "raw").write_bytes(bytes(96))
    layout = h5py.VirtualLayout((4, 3), "f8")
    layout[:] = h5py.VirtualSource(str(secret / "b.h5"), "x", (4, 3))
    with h5py.File(tmp_path / "a.h5", "w") as h:
        h["link"] = h5py.ExternalLink(str(secret / "b.h5"), "/x")
        h["soft"] = h5py.SoftLink("/link")
        h["ring"] = h5py.SoftLink("/ring")
        h.create_virtual_dataset("virtual", layout)
        h.create_dataset("raw", (4, 3), "f8", external=[(str(secret / "raw"), 0, 96)])
    for name in ("link", "soft"):
        assert "link to another file" in refusal(tmp_path, f"a.h5:{name}").message
    for name in ("virtual", "raw"):
        assert "in other files" in refusal(tmp_path, f"a.h5:{name}").message
    assert "has no 'ring'" in refusal(tmp_path, "a.h5:ring").message


def test_links_in_a_zarr_store_are_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder / "sets.zarr", tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "z").symlink_to(folder / "storms.zarr")
    assert "symbolic link" in refusal(tmp_path, "a.zarr:z/U").message


def test_far_more_declared_than_stored_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    import zarr

    shape = (10_000, 1, 500, 500)
    with h5py.File(tmp_path / "empty.h5", "w") as h:
        h.create_dataset("x", shape, "f4", chunks=(1, 1, 500, 500), compression="gzip")
    zarr.open(str(tmp_path / "empty.zarr"), mode="w").create_array(
        "x", shape=shape, dtype="f4", chunks=(1, 1, 500, 500)
    )
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (300, 1, 500, 500)}
            np.lib.format.write_array_header_2_0(file, header)
            for _ in range(300):
                file.write(bytes(1_000_000))
        with archive.open("y.npy", "w") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
            file.write(bytes(1_000_000))
    with (tmp_path / "cut.npy").open("wb") as file:
        np.lib.format.write_array_header_2_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        file.write(bytes(1_000_000))
    for file in ("empty.h5", "empty.zarr", "bomb.npz:x", "bomb.npz:y", "cut.npy"):
        with pytest.raises(InvalidInput) as caught:  # before anything is read
            opened(tmp_path, file)
        assert "declares" in caught.value.message or "takes" in caught.value.message


def test_damaged_files_are_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    names = {
        "stored.npz": ":x",
        "packed.npz": ":x",
        "sets.h5": ":x",
        "storms3.nc": ":U",
        "storms4.nc": ":U",
        "sets.parquet": "",
        "sets.pt": ":x",
        "sets.safetensors": ":x",
        "old.mat": ":y",
        "new.mat": ":x",
        "x.npy": "",
    }
    for name, member in names.items():
        whole = (folder / name).read_bytes()
        for cut in (0, 4, len(whole) // 3, len(whole) - 9):
            (tmp_path / name).write_bytes(whole[:cut])
            with pytest.raises(InvalidInput, match=re.escape(name)):
                made(tmp_path, f"{name}{member}")
    rng = np.random.default_rng(0)
    for name, member in names.items():
        whole = bytearray((folder / name).read_bytes())
        for _ in range(12):
            changed = bytearray(whole)
            at = int(rng.integers(len(changed) - 40))
            changed[at : at + 40] = rng.integers(0, 256, 40, dtype="u1").tobytes()
            (tmp_path / name).write_bytes(changed)
            with suppress(InvalidInput):  # any other error is a fault
                made(tmp_path, f"{name}{member}")


def test_a_damaged_zarr_store_is_refused_or_told(folder: Path, tmp_path: Path) -> None:
    import shutil

    def store() -> Path:
        shutil.rmtree(tmp_path / "a.zarr", ignore_errors=True)
        shutil.copytree(folder / "sets.zarr", tmp_path / "a.zarr")
        return tmp_path / "a.zarr"

    chunks = sorted(p for p in (store() / "x").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunks[0].write_bytes(chunks[0].read_bytes()[:5])
    assert "damaged" in refusal(tmp_path, "a.zarr:x").message
    (store() / "x" / "zarr.json").write_text("{")
    assert "a.zarr" in refusal(tmp_path, "a.zarr:x").message
    store()
    chunks[0].unlink()
    got = made(tmp_path, "a.zarr:x")
    assert any("blocks of x are not stored" in line for line in got.warnings)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("a,b\n1,2\n3,4\n", (2, 1, 2)),
        ("1,2\n3,4\n", (2, 1, 2)),
        ("a;b\n1;2.5\n3;4\n", (2, 1, 2)),
        ("# a b\n1 2\n3 4\n\n", (2, 1, 2)),
        ("\ufeffa\tb\r\n1\t2\r\n3\t4\r\n", (2, 1, 2)),
        ("1 2\n3 5", (2, 1, 2)),
        ("x\n1\n3\n", (2, 1, 1)),
    ],
)
def test_csv_in_any_dialect(tmp_path: Path, text: str, shape: tuple[int, ...]) -> None:
    (tmp_path / "a.csv").write_text(text, encoding="utf-8", newline="")
    assert made(tmp_path, "a.csv").inputs.shape == shape


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a,b\n1,x\n3,y\n", "text in the column b"),
        ("a,b\n" + "1,2\n" * 200 + "3,oops\n", "row 200 has 'oops'"),
        ("a,b\n1,\n3,4\n", "1 numbers that are missing"),
        ("a,a\n1,2\n3,4\n", "two columns 'a'"),
        ("a;b\n1,5;2,5\n", "decimal commas"),
        ("a,b\n1,2\n1,2,3\n", "damaged"),
    ],
)
def test_csv_that_is_no_table_of_numbers(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert word in refusal(tmp_path, "a.csv").message


def test_a_table_with_text_is_inspected_without_the_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("day,a,b,kind\nMon,1,2,x\nTue,,4,y\nWed,5,1,z\n")
    whole, *_, numbers = inspection.inspect(path, [], "").found
    assert whole.member.problem == "text in the columns day, kind"
    assert numbers.member.columns == ("a", "b")
    assert numbers.summary is not None
    assert (numbers.summary.missing, numbers.summary.first) == (1, "n 1, features 0")
    assert (numbers.summary.rank, numbers.summary.maxima) == (2, [5, 4])
    assert inspection.inspect(path, ["a", "b"], "").found[-1].summary == numbers.summary
    path.write_text("a,b,c\n" + "1,2,x\n" * 200 + "oops,2,x\n")
    assert "row 200 has 'oops'" in inspection.inspect(path, [], "").found[-1].trouble


def test_one_target_for_a_whole_field_is_refused_in_words(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 1, 8, 9)))
    np.save(tmp_path / "y.npy", np.zeros(5))
    found = refusal(tmp_path, "x.npy", "y.npy")
    assert found.message.endswith("[5], one number for each field")
    assert "whole field" in found.remedy


def test_a_group_is_named_once(tmp_path: Path) -> None:
    px, py = np.random.default_rng(0).normal(size=(2, 50))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["events/px"], file["events/py"], file["py"], file["q"] = px, py, px, py
    with open_file(tmp_path / "a.h5") as opened:
        sources = opened.open_all(["/events/px", "-q", "events/py", "-px"])
        assert [(s.member.name, s.negative) for s in sources] == [
            *(("events/px", False), ("q", True), ("events/py", False), ("events/px", True))
        ]
        # What the root has goes first.
        assert [s.member.name for s in opened.open_all(["events/px", "py"])][1] == "py"


def test_trajectories_of_unequal_lengths_are_told_from_sets_with_gaps(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(8, 9, 4))
    x[3, 5:], x[6, 8:] = np.nan, np.nan
    np.save(tmp_path / "x.npy", x)
    (found,) = inspection.inspect(tmp_path / "x.npy", [], "").found
    assert found.layout is not None
    assert found.layout.readings == ["n,t,features"]
    assert "--axes n,t,features" in str(refusal(tmp_path, "x.npy").remedy)
    x[2, 4, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    (found,) = inspection.inspect(tmp_path / "x.npy", [], "").found
    assert found.layout is not None
    assert not found.layout.readings
    assert "repair" in str(refusal(tmp_path, "x.npy").remedy)


def test_large_numbers_go_to_the_disk_and_are_the_same(folder: Path, tmp_path: Path) -> None:
    f, g = fields()
    for _ in range(2):  # the second time from the cache
        got = made(folder, "f.npy", "g.npy", storage="disk", cache=str(tmp_path))
        assert np.array_equal(got.inputs.numpy(), f)
        assert np.array_equal(got.targets.numpy()[:, 0], g)
        assert got.memory_bytes == 0
    assert len(list(tmp_path.iterdir())) == 1


def test_identity_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copy(folder / "x.npy", tmp_path / "moved.npy")
    shutil.copytree(folder / "sets.zarr", tmp_path / "moved.zarr")
    assert content_of(str(tmp_path / "moved.npy")) == content_of(str(folder / "x.npy"))
    assert content_of(str(tmp_path / "moved.zarr")) == content_of(str(folder / "sets.zarr"))
    with (tmp_path / "moved.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    assert content_of(str(tmp_path / "moved.npy")) != content_of(str(folder / "x.npy"))


_LIMITED = """
import resource, sys
import torch, h5py, pandas, numpy
from atlas_worker import blocks
from atlas_worker.datasets.files import FilesDataset, FilesParams, open_arrays
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData:")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + 150 * 2**20, resource.RLIM_INFINITY))
for name in ("big.npz",):
    with open_arrays(FilesParams(inputs=name, outputs=1), ["inputs"]) as arrays:
        total = sum(float(arrays["inputs"].read(i, i + 7).sum()) for i in range(0, 700, 7))
        print(name, total)
params = FilesParams(inputs="big.h5", outputs=1)
dataset = FilesDataset(params, seed=0, device=torch.device("cpu"), tensors={})
dataset.run_epoch(lambda *_: None)
print(list(dataset.inputs.shape), float(dataset.inputs[-1, 0, -1, -1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_files_larger_than_the_memory_are_read(tmp_path: Path) -> None:
    x = np.zeros((700, 1, 256, 256), "f4")  # 184 MB
    x[:, 0, -1] = np.arange(256)
    np.savez(tmp_path / "big.npz", x=x)
    with h5py.File(tmp_path / "big.h5", "w") as h:
        h.create_dataset("x", data=x, chunks=(1, 1, 256, 256))
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    args = [sys.executable, "-c", _LIMITED]
    done = subprocess.run(args, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    total = float(x.sum(dtype="f8"))
    told = f"big.npz {total}\n[700, 1, 256, 256] 255.0\n"
    assert done.stdout == told, done.stderr


def test_formats_are_told_by_content(folder: Path, tmp_path: Path) -> None:
    import shutil

    for name, kind in (("x.npy", ".npy"), ("sets.h5", "HDF5"), ("sets.parquet", "Parquet")):
        shutil.copy(folder / name, tmp_path / "other.data")
        with open_file(tmp_path / "other.data") as file:
            assert file.kind == kind
    (tmp_path / "page.h5").write_text("<!doctype html><title>404</title>")
    assert "web page" in refusal(tmp_path, "page.h5").message
    (tmp_path / "a.xyz").write_text("1 2 3")
    assert "format" in refusal(tmp_path, "a.xyz").message
    (tmp_path / "dir").mkdir()
    assert "folder" in refusal(tmp_path, "dir").message
    assert "no file" in refusal(tmp_path, "absent.h5").message
