"""ClimateNet's files are read or refused in one line; a generated world's labels fit its fields."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from atlas_worker.catalogue import find, schema
from atlas_worker.datasets.climatenet import NORMAL, ClimateNet, ClimateNetParams, time_of
from atlas_worker.errors import Cancelled, InvalidInput, NotReady
from atlas_worker.generators import climatenet
from atlas_worker.generators.common import put_in_place

CPU = torch.device("cpu")
PATH = "dataset.source.params.path"
H, W = 8, 12
FIRST, SECOND = "data-2010-06-10-01-1_0.nc", "data-2010-06-10-01-1_5.nc"


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own folder of caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "atlas-symmetry" / "climatenet"


def planes(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    fields = {
        name: (mean + std * rng.standard_normal((1, H, W))).astype(np.float32)
        for name, (mean, std) in NORMAL.items()
    }
    labels = rng.integers(0, 3, (H, W))
    return {**fields, "LABELS": labels, "lat": np.linspace(-90, 90, H), "lon": np.arange(W) * 30.0}


def write(path: Path, seed: int = 0, **instead: np.ndarray | None) -> Path:
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in {**planes(seed), **instead}.items():
            if values is not None:
                packed = {"compression": "gzip"} if values.ndim > 1 else {}
                file.create_dataset(name, data=values, **packed)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate((FIRST, SECOND)):
        write(tmp_path / "set" / name, seed)
    (tmp_path / "set" / "readme.txt").touch()
    return tmp_path / "set"


def make(path: Path | str, **params: Any) -> ClimateNet:
    return ClimateNet(ClimateNetParams(path=str(path), **params), seed=0, device=CPU, tensors={})


def read(path: Path | str, **params: Any) -> ClimateNet:
    dataset = make(path, **params)
    dataset.run_epoch(lambda *_: None)
    return dataset


def refused(path: Path, file: Path | None = None, field: str = PATH, **params: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(path, **params)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)
    assert str(file or "") in caught.value.message
    return caught.value.message


def test_fields_and_labels(folder: Path) -> None:
    told: list[tuple[int, int]] = []
    dataset = make(folder)
    assert dataset.run_epoch(lambda i, n, _: told.append((i, n))) == {"samples": 2}
    assert told == [(1, 2), (2, 2)]
    assert (dataset.outputs, dataset.background) == (3, 0)
    assert dataset.inputs.shape == dataset.shape == (2, 4, H, W)
    assert (dataset.inputs.dtype, dataset.targets.dtype) == (torch.float32, torch.uint8)
    assert dataset.targets.shape == (2, 1, H, W)
    assert dataset.memory_bytes == 0  # on the disk
    for i in range(2):
        expected = {
            name: values[..., ::-1, :] for name, values in planes(i).items() if values.ndim > 1
        }
        assert np.array_equal(dataset.targets[i, 0].numpy(), expected["LABELS"])
        for channel, name in enumerate(("TMQ", "U850", "V850", "PSL")):
            mean, std = NORMAL[name]
            own = dataset.inputs[i, channel].double().numpy() * std + mean
            np.testing.assert_allclose(own, expected[name][0], rtol=0, atol=1e-6 * std)


def test_winds_are_vectors_along_rows_and_columns(folder: Path) -> None:
    plain = read(folder)
    turned = read(folder, winds="vectors")
    speed = float(np.sqrt(np.mean([np.square(NORMAL[name]).sum() for name in ("U850", "V850")])))
    own = [plain.inputs[:, i].double() * NORMAL[name][1] + NORMAL[name][0]
           for i, name in ((2, "V850"), (1, "U850"))]  # fmt: skip
    # Rows run south: the first part is the southward wind.
    expected = torch.stack([-own[0], own[1]], 1) / speed
    assert torch.allclose(turned.inputs[:, 1:3].double(), expected, atol=1e-6)
    assert torch.equal(turned.inputs[:, [0, 3]], plain.inputs[:, [0, 3]])
    assert torch.equal(read(folder).inputs, plain.inputs)  # another cache
    message = refused(
        folder, field="dataset.source.params.variables", variables="V850,U850", winds="vectors"
    )
    assert "V850" in message


def test_other_variables_fewer_files_and_a_stride(folder: Path) -> None:
    whole = read(folder, variables=",".join(NORMAL))
    assert whole.inputs.shape == (2, 16, H, W)
    assert float(whole.inputs.mean()) == pytest.approx(0, abs=0.1)
    assert float(whole.inputs.std()) == pytest.approx(1, abs=0.1)
    some = read(folder, variables="PSL, T500", files=1, stride=5, storage="memory")
    names = list(NORMAL)
    expected = whole.inputs[:1, [names.index("PSL"), names.index("T500")], ::5, ::5]
    assert some.shape == (1, 2, 2, 3)
    assert torch.equal(some.inputs, expected)
    assert torch.equal(some.targets, whole.targets[:1, :, ::5, ::5])
    assert some.memory_bytes == 4 * some.inputs.numel() + some.targets.numel()


def test_variables_without_time_and_labels_with_it(folder: Path) -> None:
    expected = read(folder).inputs
    flat = {name: planes(0)[name][0] for name in NORMAL}
    write(folder / FIRST, 0, **flat, LABELS=planes(0)["LABELS"][None].astype(np.float32))
    assert torch.equal(read(folder).inputs, expected)


def test_rows_run_south_whatever_the_files_say(folder: Path) -> None:
    """The variable is the latitude itself: rows are where the coordinates say."""
    lat, lon = np.linspace(-90, 90, H), np.arange(W) * 30.0
    for stride in (1, 3):
        north_first = []
        for turn in (1, -1):
            for name in (FIRST, SECOND):
                rows = np.repeat(lat[::turn, None], W, 1).astype(np.float32)
                labels = (np.arange(H)[::turn, None] + np.arange(W)) % 3
                write(folder / name, TMQ=rows[None], LABELS=labels, lat=lat[::turn])
            dataset = make(folder, variables="TMQ", stride=stride)
            assert dataset.coordinates is not None
            latitudes, longitudes = dataset.coordinates
            assert torch.equal(latitudes, torch.from_numpy(lat[::-1][::stride].copy()))
            assert torch.equal(longitudes, torch.from_numpy(lon[::stride].copy()))
            dataset.run_epoch(lambda *_: None)
            mean, std = NORMAL["TMQ"]
            own = dataset.inputs[0, 0].double() * std + mean
            torch.testing.assert_close(own, latitudes[:, None].expand_as(own), rtol=0, atol=1e-4)
            north_first.append(dataset.targets)
        assert torch.equal(*north_first)


def test_a_file_that_does_not_tell_its_orientation(folder: Path) -> None:
    for name in ("lat", "lon"):
        path = write(folder / SECOND, 1, **{name: None})
        assert f"does not tell its {name}" in refused(folder, path)


def test_coordinates_that_are_none(folder: Path) -> None:
    path, lat = folder / FIRST, planes(0)["lat"]
    assert "has 7 values of lat" in refused(folder, write(path, lat=lat[:-1]))
    assert "not all finite" in refused(folder, write(path, lon=np.full(W, np.nan)))
    assert "neither ascend nor descend" in refused(folder, write(path, lat=np.roll(lat, 1)))


def test_scenes_and_classes(folder: Path) -> None:
    for name in ("data-2009-01-01-01-1_3.nc", "data-2010-06-11-01-1_0.nc"):
        write(folder / name)
    dataset = make(folder)
    assert dataset.scenes is not None
    assert dataset.scenes.tolist() == [0, 1, 1, 2]
    assert dataset.classes == ("background", "tropical cyclone", "atmospheric river")
    assert len(dataset.classes) == dataset.outputs


def test_a_later_run_reads_the_cache(
    folder: Path, cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(folder)
    (path,) = cached.iterdir()
    monkeypatch.setattr("atlas_worker.datasets.climatenet.read_file", None)
    told: list[tuple[int, int]] = []
    later = make(folder)
    later.run_epoch(lambda i, n, _: told.append((i, n)))
    assert told == [(1, 2), (2, 2)]
    assert torch.equal(later.inputs, whole.inputs)
    assert torch.equal(later.targets, whole.targets)
    for other in ({"stride": 2}, {"files": 1}, {"variables": "TMQ"}, {"storage": "memory"}):
        with pytest.raises(TypeError):
            read(folder, **other)
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cached.parents[1]))
    path.write_bytes(path.read_bytes()[:-1])
    assert torch.equal(read(folder).inputs, whole.inputs)
    os.utime(folder / FIRST, (0, 0))
    assert torch.equal(read(folder).inputs, whole.inputs)
    assert len(list(cached.iterdir())) == 2


def test_a_cache_of_ones_own_or_none(folder: Path, cached: Path, tmp_path: Path) -> None:
    disk, memory = read(folder, cache=str(tmp_path / "mine")), read(folder, storage="memory")
    assert torch.equal(disk.inputs, memory.inputs)
    assert torch.equal(disk.targets, memory.targets)
    assert memory.memory_bytes == 4 * memory.inputs.numel() + memory.targets.numel()
    assert len(list((tmp_path / "mine").iterdir())) == 1
    assert not cached.exists()
    # What a client names must lie in the worker's data root.
    block = find("dataset", "climatenet", "")
    assert schema(block)["params"]["properties"]["cache"]["format"] == "path"


def test_on_a_gpu_with_room_the_data_are_held_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, need = read(folder, storage="memory"), 2 * H * W * (4 * 4 + 1)
    for free, expected in ((2 * need, need), (2 * need, need), (2 * need - 1, 0)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 10 * need))
        params = ClimateNetParams(str(folder))
        dataset = ClimateNet(params, seed=0, device=torch.device("cuda"), tensors={})
        assert dataset.memory_bytes == expected
        monkeypatch.setattr(dataset, "_device", CPU)
        dataset.run_epoch(lambda *_: None)  # reads the files first, then the cache
        assert torch.equal(dataset.inputs, whole.inputs)
        assert torch.equal(dataset.targets, whole.targets)


@pytest.mark.parametrize("storage", ["disk", "memory"])
def test_a_run_that_is_stopped_leaves_nothing(folder: Path, cached: Path, storage: str) -> None:
    def stop(i: int, n: int, metrics: Mapping[str, float]) -> None:
        raise Cancelled

    before = threading.active_count()
    dataset = make(folder, storage=storage)
    with pytest.raises(Cancelled):
        dataset.run_epoch(stop)
    assert threading.active_count() == before
    assert dataset.epoch == 0
    assert not cached.exists() or not list(cached.iterdir())


def test_files_that_change_while_they_are_read(folder: Path, cached: Path) -> None:
    dataset = make(folder)
    with pytest.raises(InvalidInput, match="changed while they were read"):
        dataset.run_epoch(lambda *_: os.utime(folder / SECOND, (0, 0)))
    assert list(cached.iterdir()) == []


def test_experts_share_a_time() -> None:
    assert time_of(Path("a") / FIRST) == time_of(Path("b") / SECOND) == "data-2010-06-10-01-1"


def test_where_there_are_no_files(tmp_path: Path) -> None:
    assert "there is no folder" in refused(tmp_path / "none", tmp_path / "none")
    assert "no files of ClimateNet" in refused(tmp_path, tmp_path)
    (tmp_path / "other.nc").touch()
    assert "no files of ClimateNet" in refused(tmp_path, tmp_path)
    with pytest.raises(InvalidInput, match="no folder is given"):
        make("")


def test_a_file_that_is_not_whole(folder: Path) -> None:
    whole = (folder / SECOND).read_bytes()
    for text, what in ((b"", "empty"), (b"CDF\x01" + bytes(5000), "has no LABELS")):
        (folder / SECOND).write_bytes(text)
        assert what in refused(folder, folder / SECOND)
    (folder / SECOND).write_bytes(whole[: len(whole) // 2])
    assert "truncated" in refused(folder, folder / SECOND)


def test_a_file_damaged_within(folder: Path) -> None:
    path = folder / SECOND
    with h5py.File(path) as file:
        chunk = file["V850"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    assert "V850 cannot be read" in refused(folder, path)
    assert len(read(folder, variables="TMQ").inputs) == 2


def test_what_a_file_lacks(folder: Path) -> None:
    path = write(folder / SECOND, 1, V850=None)
    assert refused(folder, path).endswith("lacks the variable V850")
    assert len(read(folder, variables="TMQ").inputs) == 2
    assert refused(folder, write(path, 1, LABELS=None)).endswith("has no LABELS")
    assert "does not hold numbers" in refused(folder, write(path, 1, TMQ=np.full((1, H, W), b"x")))
    assert "has the shape (2, 8, 12)" in refused(folder, write(path, 1, TMQ=np.zeros((2, H, W))))


def test_another_grid(folder: Path) -> None:
    smaller = {name: v[..., :-1] for name, v in planes(1).items() if name != "lat"}
    path = write(folder / SECOND, 1, **smaller)
    assert f"a grid of 8 × 11, but {folder / FIRST} has one of 8 × 12" in refused(folder, path)
    assert "but PSL is 8 × 11" in refused(folder, write(path, 1, PSL=smaller["PSL"]))
    assert "other values of lat" in refused(folder, write(path, 1, lat=planes(1)["lat"] / 2))
    write(path, 1, lat=planes(1)["lat"][::-1])
    turned = read(folder).inputs[1]
    write(path, 1)
    assert torch.equal(turned.flip(1), read(folder).inputs[1])


def test_values_that_are_none(folder: Path) -> None:
    for bad in (np.nan, np.inf):
        values = planes(1)["PSL"]
        values[0, 5, 2] = bad
        path = write(folder / SECOND, 1, PSL=values)
        assert f"PSL is {bad} in row 5, column 2" in refused(folder, path)
        assert len(read(folder, variables="TMQ").inputs) == 2
        assert len(read(folder, files=1).inputs) == 1


def test_values_that_are_missing(folder: Path) -> None:
    expected = read(folder).inputs
    for attribute in ("_FillValue", "missing_value"):
        path = write(folder / SECOND, 1)
        with h5py.File(path, "r+") as file:
            for name in (*NORMAL, "LABELS"):
                file[name].attrs[attribute] = np.array([1e20], np.float32)
        assert torch.equal(read(folder).inputs, expected)
        with h5py.File(path, "r+") as file:
            file["U850"][0, 1, 2] = 1e20
        told = f"U850 is 1.0000000200408773e+20 in row 1, column 2, which is its {attribute}"
        assert told in refused(folder, path)


def test_labels_that_are_no_class(folder: Path) -> None:
    for bad in (3, -1, 0.5, 256, np.nan):
        values = planes(1)["LABELS"].astype(np.float64)
        values[3, 4] = bad
        path = write(folder / SECOND, 1, LABELS=values)
        assert "in row 3, column 4" in refused(folder, path, stride=2)


def test_parameters_that_cannot_be(folder: Path) -> None:
    where = "dataset.source.params."
    assert "unknown variable 'X'" in refused(folder, field=where + "variables", variables="TMQ,X")
    assert "named twice" in refused(folder, field=where + "variables", variables="TMQ,TMQ")
    assert "has 2 files, but 3 were asked for" in refused(folder, field=where + "files", files=3)
    with pytest.raises(InvalidInput):
        ClimateNet(ClimateNetParams(str(folder)), seed=0, device=CPU, tensors={"x": torch.ones(1)})


def test_state_and_back(folder: Path) -> None:
    whole, fresh = read(folder), make(folder)
    with pytest.raises(NotReady):
        _ = fresh.inputs
    fresh.load_state(*whole.state())
    assert torch.equal(fresh.inputs, whole.inputs)
    assert fresh.state() == whole.state()
    with pytest.raises(InvalidInput):
        make(folder, files=1).load_state(*whole.state())


# A generated world, on a grid of about a degree.

COARSE = (192, 288)


@pytest.fixture(scope="module")
def worlds() -> list[climatenet.World]:
    return [climatenet.make_world(3, number, COARSE) for number in range(8)]


def test_statistics_are_near_those_of_climatenet(worlds: list[climatenet.World]) -> None:
    for name, (mean, std) in NORMAL.items():
        values = np.stack([world.fields[name] for world in worlds])
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        values = values.astype(np.float64)
        assert abs(values.mean() - mean) < std, name
        assert std / 2 < values.std() < 2 * std, name


def test_winds_follow_pressure(worlds: list[climatenet.World]) -> None:
    """In the middle latitudes, geostrophically: high pressure is to the right in the north."""
    for world in worlds[:3]:
        sphere, fields = world.sphere, world.fields
        for side in (-1, 1):
            rows = (sphere.lat * side > 35) & (sphere.lat * side < 55)
            for wind, force in (
                ("V850", sphere.east(fields["PSL"])),
                ("U850", -sphere.north(fields["PSL"])),
            ):
                pair = np.corrcoef(fields[wind][rows].ravel(), force[rows].ravel())
                assert pair[0, 1] * side > 0.8


def test_cyclones_turn_as_lows_do_and_have_warm_cores(worlds: list[climatenet.World]) -> None:
    seen = {-1: 0, 1: 0}
    for world in worlds:
        sphere, fields = world.sphere, world.fields
        spin = sphere.vorticity(fields["U850"], fields["V850"])
        warmth = fields["T500"] - sphere.around(fields["T500"], 10)
        depth = sphere.around(fields["PSL"], 10) - fields["PSL"]
        for labels in world.labels:
            for side in (-1, 1):
                inside = (labels == 1) & (sphere.rows * side > 0)
                if not inside.any():
                    continue
                seen[side] += 1
                core = inside & (depth > np.quantile(depth[inside], 0.9))
                assert (spin[core] * side).mean() > 2e-5
                assert warmth[core].mean() > 1
                assert depth[core].mean() > 300
            where = np.abs(sphere.lat)[(labels == 1).any(1)]
            assert where.size == 0 or (where.min() > 2 and where.max() < 45)
    assert min(seen.values()) >= 4


def test_rivers_are_moister_than_their_surroundings_and_flow_polewards(
    worlds: list[climatenet.World],
) -> None:
    moister = polewards = seen = 0
    for world in worlds:
        sphere, fields = world.sphere, world.fields
        for labels in world.labels:
            river = labels == 2
            for i in np.flatnonzero(river.any(1)):
                row, moist = river[i], fields["TMQ"][i]
                moister += moist[row].mean() > moist[~row].mean()
                polewards += (fields["V850"][i, row] * sphere.lat[i]).mean() > 0
                seen += 1
    assert seen > 100
    assert min(moister, polewards) > 0.95 * seen


def test_both_classes_are_there_and_rare(worlds: list[climatenet.World]) -> None:
    labels = np.stack([labels for world in worlds for labels in world.labels])
    assert 2e-3 < (labels == 1).mean() < 0.02
    assert 2e-2 < (labels == 2).mean() < 0.1
    assert set(np.unique(labels)) == {0, 1, 2}


def test_experts_differ_but_overlap(worlds: list[climatenet.World]) -> None:
    assert len({len(world.labels) for world in worlds}) > 1
    pairs = [(a, b) for world in worlds for a, b in itertools.combinations(world.labels, 2)]
    assert len(pairs) > 3
    for one, other in pairs:
        assert not np.array_equal(one, other)
    for kind in (1, 2):
        both = sum(((a == kind) & (b == kind)).sum() for a, b in pairs)
        either = sum(((a == kind) | (b == kind)).sum() for a, b in pairs)
        assert 0.3 < both / either < 0.85


def test_labels_follow_from_the_fields(worlds: list[climatenet.World]) -> None:
    """Turned about the axis, and mirrored at the equator: the labels are, too."""
    world, expert = worlds[0], climatenet.Expert()
    before = climatenet.label(world.sphere, world.fields, [expert])[0]
    turned = {name: np.roll(field, 48, 1) for name, field in world.fields.items()}
    assert (
        climatenet.label(world.sphere, turned, [expert])[0] == np.roll(before, 48, 1)
    ).mean() > 0.999
    mirrored = {name: field[::-1] for name, field in world.fields.items()}
    mirrored["V850"] = -mirrored["V850"]
    assert (climatenet.label(world.sphere, mirrored, [expert])[0] == before[::-1]).mean() > 0.999


def test_no_fields_no_labels(worlds: list[climatenet.World]) -> None:
    still = {name: np.zeros_like(field) for name, field in worlds[0].fields.items()}
    assert not climatenet.label(worlds[0].sphere, still, [climatenet.Expert()])[0].any()


def test_a_world_follows_its_seed_and_number() -> None:
    grid = (48, 72)
    one, same, later, other = (
        climatenet.make_world(*at, grid) for at in ((0, 0), (0, 0), (0, 1), (1, 0))
    )
    assert np.array_equal(one.fields["PSL"], same.fields["PSL"])
    assert not np.array_equal(one.fields["PSL"], later.fields["PSL"])
    assert not np.array_equal(one.fields["PSL"], other.fields["PSL"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("climate") / "new"
    return out, climatenet.generate(5, 3, out, 1, shape=(48, 72))


def test_the_loader_reads_what_is_generated(made: tuple[Path, dict[str, Any]]) -> None:
    out, told = made
    assert sorted(path.name for path in out.iterdir()) == ["test", "train"]
    assert {Path(file["path"]).name: file["rows"] for file in told["files"]} == {
        "train": 4,
        "test": 1,
    }
    for file in told["files"]:
        paths = sorted(Path(file["path"]).iterdir())
        assert len({time_of(path) for path in paths}) == file["rows"]
        assert sum(path.stat().st_size for path in paths) == file["bytes"]
        dataset = read(file["path"], variables=",".join(NORMAL))
        assert dataset.shape == (len(paths), 16, 48, 72)
    number = 4  # the test set's: as made here, rounded
    world = climatenet.make_world(3, number, (48, 72))
    assert len(paths) == len(world.labels)
    for i, labels in enumerate(world.labels):
        assert np.array_equal(dataset.targets[i, 0].numpy(), labels[::-1])
    for channel, (name, (mean, std)) in enumerate(NORMAL.items()):
        own = dataset.inputs[0, channel].double().numpy()[::-1] * std + mean
        np.testing.assert_allclose(own, world.fields[name], rtol=2**-12, atol=1e-6 * std)


def test_files_are_netcdf(made: tuple[Path, dict[str, Any]]) -> None:
    """Dimensions that are scales, with units: what NetCDF-4 is in HDF5."""
    with h5py.File(next((made[0] / "train").iterdir())) as file:
        assert sorted(file) == sorted([*NORMAL, "LABELS", "time", "lat", "lon"])
        assert file["LABELS"].shape == (48, 72)
        for name in NORMAL:
            assert file[name].shape == (1, 48, 72)
            assert [dim[0].name for dim in file[name].dims] == ["/time", "/lat", "/lon"]
            assert file[name].attrs["units"].decode() == climatenet.UNITS[name]


def test_existing_folders_are_kept(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(climatenet.Refusal, match="has train, test already"):
        climatenet.generate(2, 0, made[0], 1)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.txt").touch()
    with pytest.raises(climatenet.Refusal, match=r"mine.txt was not made by this program"):
        climatenet.generate(2, 0, tmp_path, 1, force=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["train", "mine.txt"]


def test_a_downloaded_climatenet_is_not_overwritten(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """One file that is not marked is enough, of the right name and layout or not HDF5 at all."""
    shutil.copytree(made[0], tmp_path / "data")
    published = write(tmp_path / "data" / "test" / SECOND)
    for _ in range(2):
        before = contents(tmp_path / "data")
        with pytest.raises(climatenet.Refusal, match=f"test/{SECOND} was not made by this program"):
            climatenet.generate(2, 0, tmp_path / "data", 1, force=True, shape=(48, 72))
        assert contents(tmp_path / "data") == before
        published.write_bytes(b"cut off")


def contents(folder: Path) -> dict[str, bytes | None]:
    paths = folder.rglob("*")
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in paths}


def test_generated_weather_is_overwritten_when_the_new_is_whole(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    shutil.copytree(made[0], out)
    before = contents(out)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "test.partial":
            raise OSError(errno.EIO, "broken", str(self))
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(climatenet.Refusal, match=r"cannot write .*test\.partial: broken"):
            climatenet.generate(2, 0, out, 1, force=True, shape=(48, 72))
    assert contents(out) == before
    told = climatenet.generate(2, 0, out, 1, force=True, shape=(48, 72))
    assert sorted(path.name for path in out.iterdir()) == ["test", "train"]
    assert [len({time_of(path) for path in Path(f["path"]).iterdir()}) for f in told["files"]] == [
        1,
        1,
    ]


@pytest.mark.parametrize("last", range(1, 6))
def test_whenever_it_is_stopped_all_have_the_names_they_had(
    last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a rename, by a signal: two things are moved aside, and three new ones moved in."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").touch()
    (tmp_path / "b").write_text("old")
    (tmp_path / "new a").mkdir()
    for name in "bc":
        (tmp_path / f"new {name}").write_text("new")
    before = contents(tmp_path)
    rename, renamed = Path.rename, itertools.count(1)

    def stop(self: Path, target: Path) -> None:
        rename(self, target)
        if next(renamed) == last:
            raise SystemExit(143)

    made = {tmp_path / name: tmp_path / f"new {name}" for name in "abc"}
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(SystemExit):
            put_in_place(made)
    assert contents(tmp_path) == before
    put_in_place(made)
    assert contents(tmp_path) == {"a": None, "b": b"new", "c": b"new"}


def test_a_folder_is_not_taken_for_a_file_that_may_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "new").touch()
    with pytest.raises(IsADirectoryError):
        put_in_place({tmp_path / "a": tmp_path / "new"})
    assert contents(tmp_path) == {"a": None, "new": b""}


def test_what_the_generator_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for times in (1, 10_001):
        with pytest.raises(climatenet.Refusal, match="cannot be made"):
            climatenet.generate(times, 0, tmp_path, 1)
    with pytest.raises(climatenet.Refusal, match="the seed is -1"):
        climatenet.generate(2, -1, tmp_path, 1)
    (tmp_path / "file").touch()
    with pytest.raises(climatenet.Refusal, match="not a directory"):
        climatenet.generate(2, 0, tmp_path / "file" / "x", 1)
    monkeypatch.setattr(climatenet, "BYTES_A_TIME", 10**15)
    with pytest.raises(
        climatenet.Refusal, match=r"2 times need about 2e\+06 GB, but .* has only .* GB free"
    ):
        climatenet.generate(2, 0, tmp_path, 1)


def test_the_program_says_what_is_wrong(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "atlas_worker.generators.climatenet",
        "--files",
        "1",
        "--out",
        str(tmp_path),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"] == "1 times cannot be made"
