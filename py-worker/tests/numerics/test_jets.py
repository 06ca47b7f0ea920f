"""Jets made by PYTHIA 8 and FastJet: the cuts of the recipe, the files, and the refusals."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

for package in ("pythia8mc", "fastjet", "awkward", "tables"):
    pytest.importorskip(package)
pandas = pytest.importorskip("pandas")

from atlas_worker.generators import common, jets  # noqa: E402


@pytest.fixture(scope="module", params=[True, False], ids=["top", "qcd"])
def block(request: pytest.FixtureRequest) -> tuple[bool, np.ndarray, np.ndarray]:
    """Signal, constituents [24, 200, 4], tops [24, 4]."""
    return request.param, *jets.make_block(jets.Block(request.param, 24, seed=5))


def run(*arguments: str, **options: Any) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, the lines of stdout, stderr."""
    command = [sys.executable, "-m", "atlas_worker.generators.jets", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, **options)
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("jets") / "new"
    code, lines, stderr = run(
        "--jets", "43", "--seed", "7", "--out", str(folder), "--processes", "2"
    )
    assert code == 0, stderr
    return folder, lines


def mass(p: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(p[..., 0] ** 2 - (p[..., 1:] ** 2).sum(-1), 0))


def test_jets_lie_within_the_window(block: tuple[bool, np.ndarray, np.ndarray]) -> None:
    _, constituents, _ = block
    assert constituents.shape == (24, 200, 4)
    assert constituents.dtype == np.float32
    total = constituents.sum(1, dtype=np.float64)  # none of them has more than 200
    pt = np.hypot(total[:, 1], total[:, 2])
    assert ((pt > 550 - 1e-3) & (pt < 650 + 1e-3)).all()
    assert (np.abs(np.arcsinh(total[:, 3] / pt)) < 2 + 1e-6).all()


def test_constituents_are_particles_leading_first_then_zeros(
    block: tuple[bool, np.ndarray, np.ndarray],
) -> None:
    _, constituents, _ = block
    pt = np.hypot(constituents[..., 1], constituents[..., 2])
    assert (np.diff(pt, axis=1) <= 1e-4).all()
    count = (pt > 0).sum(1)
    assert count.min() > 5
    assert count.max() < 200
    for jet, n in zip(constituents, count, strict=True):
        assert (jet[n:] == 0).all()
        p = jet[:n].astype(np.float64)
        assert (
            p[:, 0] ** 2 - (p[:, 1:] ** 2).sum(1) > -1e-5 * p[:, 0] ** 2
        ).all()  # no faster than light
    assert np.isfinite(constituents).all()


def test_the_truth_is_the_top_or_nothing(block: tuple[bool, np.ndarray, np.ndarray]) -> None:
    signal, constituents, top = block
    if not signal:
        assert (top == 0).all()
        return
    assert abs(np.median(mass(top.astype(np.float64))) - 173) < 2
    own = constituents.sum(1, dtype=np.float64)
    assert 150 < np.median(mass(own)) < 200  # the jet weighs what the top weighs
    for jet, t in zip(own, top.astype(np.float64), strict=True):
        assert jets._distance(jet, t) < 0.8


def test_blocks_follow_their_seed() -> None:
    first, again, other = (jets.make_block(jets.Block(False, 2, seed)) for seed in (5, 5, 6))
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], other[0])


def test_files_have_the_layout_of_the_reference(files: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, lines = files
    assert sorted(path.name for path in folder.iterdir()) == ["test.h5", "train.h5", "val.h5"]
    rows = {Path(file["path"]).name: file["rows"] for file in lines[-1]["files"]}
    assert rows == {"train.h5": 27, "val.h5": 8, "test.h5": 8}
    for name, (_, ttv) in jets.SPLITS.items():
        table = pandas.read_hdf(folder / f"{name}.h5", key="table")
        assert list(table.columns) == [*jets.COLUMNS, *jets.TRUTH, "ttv", "is_signal_new"]
        assert table.columns[:5].tolist() == ["E_0", "PX_0", "PY_0", "PZ_0", "E_1"]
        assert set(table.dtypes[:-2]) == {np.dtype("float32")}
        assert set(table.dtypes[-2:]) == {np.dtype("int64")}
        assert len(table) == rows[f"{name}.h5"]
        assert (table["ttv"] == ttv).all()
        assert table["is_signal_new"].sum() == len(table) // 2
        assert table["is_signal_new"].diff().abs().sum() > 1  # mixed
        assert ((table["truthE"] > 0) == (table["is_signal_new"] == 1)).all()


def test_files_can_be_read_by_programs_for_the_reference(
    files: tuple[Path, list[dict[str, Any]]],
) -> None:
    import tables

    with tables.open_file(files[0] / "val.h5") as file:
        group = file.root.table
        assert file.root.table.table.colnames == ["index", "values_block_0", "values_block_1"]
        assert group.table.read(0, 1)["values_block_0"].shape == (1, 804)
        # Without it, pandas before 3 takes the file for one of before 0.10 and fails.
        assert group._v_attrs.pandas_version == "0.15.2"


def test_files_do_not_depend_on_the_number_of_processes(
    files: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    code, _, stderr = run("--jets", "43", "--seed", "7", "--out", str(tmp_path), "--processes", "1")
    assert code == 0, stderr
    for name in jets.SPLITS:
        one, two = (pandas.read_hdf(f / f"{name}.h5", key="table") for f in (tmp_path, files[0]))
        assert one.to_numpy().tobytes() == two.to_numpy().tobytes()


def test_progress_is_all_that_is_printed(files: tuple[Path, list[dict[str, Any]]]) -> None:
    _, lines = files  # each was JSON: no banner
    assert lines[-1]["seed"] == 7
    steps = [line for line in lines[:-1] if line["file"] == "train.h5"]
    assert [steps[0]["done"], steps[-1]["done"]] == [0, 27]
    seconds = [line["seconds"] for line in lines[:-1]]
    assert max(np.diff(seconds)) < 2 * common.HEARTBEAT


def test_existing_files_are_kept(files: tuple[Path, list[dict[str, Any]]]) -> None:
    before = (files[0] / "val.h5").read_bytes()
    code, lines, _ = run("--jets", "10", "--out", str(files[0]))
    assert code == 2
    assert lines[-1]["error"].endswith("has train.h5, val.h5, test.h5 already")
    assert lines[-1]["kind"] == "exists"
    assert "or overwrite them" in lines[-1]["remedy"]
    assert (files[0] / "val.h5").read_bytes() == before


def overwritten(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is in the files of a folder when new ones were made with ``force``."""

    def write(paths: dict[str, Path], *_: object) -> None:
        for path in paths.values():
            path.write_text("new")

    with monkeypatch.context() as patch:
        patch.setattr(jets, "_write_all", write)
        jets.generate(10, 0, folder, 1, force=True)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_are_overwritten_together_or_not_at_all(
    files: tuple[Path, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "val.h5.partial":
            raise OSError(errno.EIO, "broken", str(self))
        return rename(self, target)

    shutil.copy(files[0] / "train.h5", tmp_path)
    before = (tmp_path / "train.h5").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(jets.Refusal, match=r"cannot write .*/val\.h5\.partial: broken"):
            overwritten(tmp_path, monkeypatch)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("train.h5", before)]
    assert overwritten(tmp_path, monkeypatch) == dict.fromkeys(
        ("train.h5", "val.h5", "test.h5"), "new"
    )


@pytest.mark.parametrize("made_by", [None, b"somebody else", "text", "folder"])
def test_what_was_not_made_here_is_not_overwritten(
    made_by: bytes | str | None,
    files: tuple[Path, list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A downloaded file, of the same layout, beside one that was."""
    for name in ("train.h5", "val.h5"):
        shutil.copy(files[0] / name, tmp_path)
    other = tmp_path / "val.h5"
    if isinstance(made_by, str):
        other.unlink()
        other.write_text("mine") if made_by == "text" else other.mkdir()
    else:
        with h5py.File(other, "r+") as file:
            del file.attrs["source"]
            if made_by is not None:
                file.attrs["source"] = made_by
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(
        jets.Refusal, match=r"/val\.h5 was not made by this program, and is not overwritten"
    ):
        overwritten(tmp_path, monkeypatch)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert other.exists()


@pytest.mark.parametrize("count", ["9", "-1", "100000001"])
def test_an_impossible_number_is_refused(count: str, tmp_path: Path) -> None:
    code, lines, _ = run("--jets", count, "--out", str(tmp_path))
    assert (code, len(lines)) == (2, 1)
    assert "cannot be made" in lines[0]["error"]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, lines, _ = run("--jets", "10", "--out", str(tmp_path / "file" / "x"))
    assert (code, lines[0]["kind"]) == (2, "file")
    assert lines[0]["error"].endswith("file/x: not a directory")


def test_a_disk_that_is_too_small_is_refused_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jets, "BYTES_A_JET", 10**15)
    with pytest.raises(jets.Refusal, match=r"10 jets need about 1e\+07 GB, but .* GB free"):
        jets.generate(10, 0, tmp_path, 1)


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")

    def limit() -> None:  # a file that may not grow is what a full disk is to HDF5
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    code, lines, _ = run("--jets", "40", "--out", str(tmp_path), preexec_fn=limit)
    assert code == 2
    assert lines[-1]["error"].startswith(f"cannot write {tmp_path}/train.h5.partial: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "stdin"])
def test_it_stops_at_once_and_leaves_nothing(how: str, tmp_path: Path) -> None:
    import signal

    command = [sys.executable, "-m", "atlas_worker.generators.jets", "--parent-stdin"]
    process = subprocess.Popen(
        [*command, "--jets", "5000", "--out", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.readline()  # the second: its processes are up
    if how == "stdin":
        process.stdin.close()
    else:
        process.send_signal(getattr(signal, how))
    code = process.wait(15)  # on a busy machine; all of them would take far longer
    process.stderr.read()  # ends when the last of its processes has
    assert code == (130 if how == "SIGINT" else 143)
    assert list(tmp_path.iterdir()) == []
    for stream in (process.stdin, process.stdout, process.stderr):
        stream.close()


def test_no_two_blocks_have_one_seed() -> None:
    blocks = [block for blocks in jets.plan(2_000_000, seed=0).values() for block in blocks]
    assert len({block.seed for block in blocks}) == len(blocks) == 8000
    assert sum(block.jets for block in blocks) == 2_000_000
