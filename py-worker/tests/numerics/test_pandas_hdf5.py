"""Tables as pandas writes them: read in any order of columns, in chunks, or refused in one line."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from atlas_worker.datasets import pandas_hdf5
from atlas_worker.datasets.pandas_hdf5 import PandasTable, PandasTableParams
from atlas_worker.errors import InvalidInput, NotReady
from atlas_worker.rng import random_stream

from .pandas_tables import columns, write

CPU = torch.device("cpu")
ITEMS = 3
PATH, KEY = "dataset.source.params.path", "dataset.source.params.key"
LABEL = "dataset.source.params.label"
NUMERICS = settings.get_profile("numerics")


def content(rows: int, items: int = ITEMS) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Every entry another number, so that none can be mistaken for another."""
    values = np.arange(rows * 4 * items, dtype=np.float32).reshape(rows, 4 * items) / 8 - 3
    return values, np.arange(rows, dtype=np.int64) * 7 % 3 % 2


def make(path: Path | str, items: int = ITEMS, **params: Any) -> PandasTable:
    return PandasTable(
        PandasTableParams(path=str(path), items=items, **params), seed=0, device=CPU, tensors={}
    )


def read(path: Path | str, **params: Any) -> PandasTable:
    dataset = make(path, **params)
    dataset.run_epoch(lambda *_: None)
    return dataset


def refused(path: Path | str, field: str = PATH, **params: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        read(path, **params)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)
    if field == PATH and path:
        assert str(path) in caught.value.message
    return caught.value


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "t.h5", *content(50))


def check(dataset: PandasTable, rows: int, items: int = ITEMS, of: int = ITEMS) -> None:
    values, labels = content(rows, of)
    assert dataset.inputs.dtype == dataset.targets.dtype == torch.float32
    expected = torch.from_numpy(values).view(-1, of, 4)[:, :items]
    assert torch.equal(dataset.inputs, expected[: len(dataset.inputs)])
    assert torch.equal(
        dataset.targets, torch.from_numpy(labels)[: len(dataset.targets), None].float()
    )


def test_values_and_labels(table: Path) -> None:
    dataset = read(table)
    assert dataset.inputs.shape == (50, ITEMS, 4)
    check(dataset, 50)
    assert dataset.outputs == 2
    assert dataset.memory_bytes == 4 * (dataset.inputs.numel() + dataset.targets.numel())


def test_fewer_items_and_other_components(table: Path) -> None:
    check(read(table, items=2), 50, items=2)
    x = read(table, components="PZ, E").inputs
    assert torch.equal(x, read(table).inputs[..., [3, 0]])
    assert torch.equal(read(table, label="ttv", classes=6).targets, torch.full((50, 1), 5.0))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_the_file_does_not_matter(tmp_path: Path, seed: int) -> None:
    values, labels = content(20)
    order = np.random.default_rng(seed).permutation(4 * ITEMS)
    assert list(order) != sorted(order)
    names = [columns(ITEMS)[i] for i in order]
    check(read(write(tmp_path / "t.h5", values[:, order], labels, names)), 20)


@pytest.mark.parametrize("chunk", [1, 7, 25, 50, 1000])
def test_chunks_make_no_difference(
    table: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(pandas_hdf5, "ROWS", chunk)
    told: list[tuple[int, int]] = []
    dataset = make(table)
    assert dataset.run_epoch(lambda i, n, _: told.append((i, n))) == {"samples": 50}
    check(dataset, 50)
    chunks = -(-50 // chunk)
    assert told == [(i + 1, chunks) for i in range(chunks)]


@pytest.mark.parametrize("samples", [1, 13, 49, 50])
def test_the_first_samples_alone(
    table: Path, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    monkeypatch.setattr(pandas_hdf5, "ROWS", 12)
    dataset = read(table, samples=samples)
    assert len(dataset.inputs) == len(dataset.targets) == samples
    check(dataset, 50)


@pytest.mark.parametrize("samples", [1, 2, 13, 49])
@pytest.mark.parametrize("rows", [7, 16, 1000])
def test_rows_drawn_from_the_whole_table(
    table: Path, monkeypatch: pytest.MonkeyPatch, samples: int, rows: int
) -> None:
    monkeypatch.setattr(pandas_hdf5, "ROWS", rows)
    everything = read(table)
    drawn = read(table, samples=samples, order="drawn")
    again = read(table, samples=samples, order="drawn")
    assert torch.equal(drawn.inputs, again.inputs)
    wanted = torch.randperm(50, generator=random_stream(0))[:samples]
    assert torch.equal(drawn.inputs, everything.inputs[wanted])
    assert torch.equal(drawn.targets, everything.targets[wanted])


def test_a_table_in_order_gives_both_classes(tmp_path: Path) -> None:
    values, _ = content(300)
    path = write(tmp_path / "t.h5", values, np.arange(300) // 150)
    first, drawn = read(path, samples=100), read(path, samples=100, order="drawn")
    assert first.targets.unique().tolist() == [0]
    assert any("class 0" in said for said in first.warnings)
    assert 0.3 < float(drawn.targets.mean()) < 0.7
    assert drawn.warnings == ()
    whole = read(path, samples=300, order="drawn")
    assert torch.equal(whole.inputs, read(path).inputs)


def test_what_is_wrong_beyond_the_samples_is_not_looked_at(tmp_path: Path) -> None:
    values, labels = content(30)
    values[20, 0], labels[25] = np.nan, 9
    path = write(tmp_path / "t.h5", values, labels)
    assert len(read(path, samples=20).inputs) == 20
    refused(path, samples=21)


def test_memory_is_the_result_and_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of 400 columns, of which 12 are wanted: memory never holds all rows or columns."""
    monkeypatch.setattr(pandas_hdf5, "ROWS", 100)
    rows, items = 4000, 100
    path = write(tmp_path / "t.h5", *content(rows, items), chunk=100)
    chunk = 100 * (4 * 4 * items + 24)
    whole = rows * 4 * 4 * items
    tracemalloc.start()
    dataset = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    check(dataset, rows, of=items)
    assert peak > chunk, "numpy's memory is not traced here"
    assert peak < 4 * chunk + 200_000 < whole / 5


def test_where_there_is_no_file(tmp_path: Path) -> None:
    assert "no file is given" in refused("").message
    assert "there is no file" in refused(tmp_path / "none.h5").message
    assert "there is no file" in refused(tmp_path).message


def test_a_file_that_is_not_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "t.h5"
    for text in (b"", b"E_0,PX_0\n1,2\n", bytes(5000)):
        path.write_bytes(text)
        assert "not an HDF5 file" in refused(path).message


@pytest.mark.parametrize("share", [0.99, 0.5, 0.1])
def test_a_truncated_file(table: Path, share: float) -> None:
    whole = table.read_bytes()
    table.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated" in refused(table).message


def test_a_file_damaged_within(tmp_path: Path) -> None:
    """Overwritten bytes of a compressed chunk make its rows unreadable, and only those."""
    path = write(tmp_path / "t.h5", *content(400))
    with h5py.File(path) as file:
        chunk = file["table/table"].id.get_chunk_info(3)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    error = refused(path)
    assert "damaged" in error.message
    assert len(read(path, samples=48).inputs) == 48


def test_another_key(tmp_path: Path) -> None:
    path = write(tmp_path / "t.h5", *content(5), key="a/jets")
    check(read(path), 5)  # as pandas.read_hdf does
    assert any("'a/jets'" in said for said in read(path).warnings)
    check(read(path, key="a/jets"), 5)
    assert read(path, key="a/jets").warnings == ()
    assert "a/jets" in refused(path, KEY, key="jet").message
    with h5py.File(path, "a") as file:
        file.copy("a/jets", "b")
    assert "its tables are a/jets, b" in refused(path, KEY).message
    with h5py.File(path, "w") as file:
        file["table"] = np.zeros(3)  # not a group
    assert "it holds table" in refused(path, KEY).message
    with h5py.File(path, "w") as file:
        file.create_group("table")["block0_values"] = np.zeros(3)  # format="fixed"
    assert "format='fixed'" in refused(path, KEY).message
    assert "format='table'" in refused(path, KEY, key="other").remedy
    with h5py.File(path, "w"):
        pass
    assert "it holds nothing" in refused(path, KEY).message


@pytest.mark.parametrize("key", ["", "/", ".", "..", "table/table", "a\0b"])
def test_keys_that_are_none(table: Path, key: str) -> None:
    refused(table, KEY, key=key)


def test_columns_that_are_missing(table: Path) -> None:
    error = refused(table, items=5)
    assert "lacks the columns E_3, PX_3, PY_3, PZ_3 and 4 more" in error.message
    assert "fewer items" in error.remedy
    assert "it has E_0, PX_0, PY_0" in error.message
    assert "lacks the column is_top" in refused(table, LABEL, label="is_top").message
    assert "lacks the columns M_0, M_1, M_2" in refused(table, components="E,M").message
    refused(table, components="")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_entry_that_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    values, labels = content(50)
    values[37, columns(ITEMS).index("PY_1")] = bad
    path = write(tmp_path / "t.h5", values, labels)
    for rows in (10, 1000):
        monkeypatch.setattr(pandas_hdf5, "ROWS", rows)
        error = refused(path)
        assert f"row 37 has {bad} in column PY_1" in error.message
    assert len(read(path, items=1).inputs) == 50, "the column is not wanted"


@pytest.mark.parametrize(
    ("bad", "said"), [(2, "2"), (-1, "-1"), (0.5, "0.5"), (np.nan, "nan"), (np.inf, "inf")]
)
def test_a_label_that_is_no_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: float, said: str
) -> None:
    monkeypatch.setattr(pandas_hdf5, "ROWS", 16)
    values, labels = content(50)
    as_float = labels.astype(np.float64)
    as_float[33] = bad
    path = write(tmp_path / "t.h5", values, as_float)
    assert f"row 33 has the label {said} in column is_signal_new" in refused(path).message
    if bad == 2:
        assert read(path, classes=3).outputs == 3


def test_labels_that_are_text(tmp_path: Path) -> None:
    path = write(tmp_path / "t.h5", content(5)[0], np.array([[b"1", b"1"]] * 5))
    with pytest.raises(InvalidInput, match="is_signal_new does not hold numbers"):
        make(path)  # already before it is read
    refused(path)


def test_no_rows_and_more_samples_than_rows(tmp_path: Path, table: Path) -> None:
    assert "has no rows" in refused(write(tmp_path / "e.h5", *content(0))).message
    assert (
        "has 50 rows, but 51 were asked for"
        in refused(table, "dataset.source.params.samples", samples=51).message
    )


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_column_names_that_are_a_program_are_not_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    evil = pickle.dumps([*columns(ITEMS), Payload(mark)], protocol)
    # As the file keeps it: NULs at the end of a string are lost, those within are not.
    path = write(tmp_path / "t.h5", *content(5), kind=evil)
    assert "cannot be read" in refused(path).message
    assert not mark.exists()
    pickle.load(io.BytesIO(evil))
    assert mark.exists(), "the payload is none: the test cannot fail"


GOOD = pickle.dumps(columns(1), 0)
OPCODES = [
    *(b"(", b"l", b"d", b"}", b"]", b"K\x01", b"s", b"a", b"b", b"R", b"o", b"0", b"t"),
    *(b"cos\nsystem\n", b"Vx\n", b"L9\n", b"\x8f", b"\x90", b"\x93", b"\x81", b"u", b"e"),
    *(b"Px\n", b"h\x05"),
]


@settings(NUMERICS, max_examples=150)
@given(
    st.one_of(
        st.binary(min_size=1, max_size=40),
        st.tuples(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=6)).map(
            lambda t: GOOD[: t[0]] + t[1] + GOOD[t[0] :]
        ),
        st.lists(st.sampled_from(OPCODES), max_size=8).map(lambda parts: b"".join(parts) + b"."),
    )
)
@example(b"}]K\x01s.")
@example(b"\x8f(]\x90.")
@example(b"K\x01]b.")
@example(b"(K\x01\x81.")
@example(b"]]\x81.")
@example(b"K\x01a.")
@example(b"Pfile\n.")
@example(b"h\x05.")
@example(b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f.")
@example(b"B\xff\xff\xff\x7f.")
@example(b"F1e\n.")
@example(b"r\xff\xff\xff\xff.")
@example(b"K\x01r\xff\xff\xff\x7f.")
@example(b"(ldK\x01K\x02sp0\n.")
@example(b"((lK\x01d.")
@example(b"((lI1\nd.")
@example(b"(" * 5000 + b"t" * 5000 + b".")
def test_whatever_the_names_are_they_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.h5"
    write(path, *content(2, 1), kind=kind)
    with contextlib.suppress(InvalidInput):
        make(path, items=1)


def test_not_ready_until_read_and_no_tensors(table: Path) -> None:
    dataset = make(table)
    assert (dataset.epoch, dataset.total_epochs) == (0, 1)
    with pytest.raises(NotReady):
        _ = dataset.inputs
    with pytest.raises(InvalidInput) as caught:
        PandasTable(PandasTableParams(str(table)), seed=0, device=CPU, tensors={"x": torch.ones(1)})
    assert caught.value.field == "dataset.tensors"


def test_state_and_back(table: Path) -> None:
    whole, fresh = read(table), make(table)
    before = fresh.state()
    fresh.load_state(*whole.state())
    assert fresh.epoch == 1
    assert torch.equal(fresh.inputs, whole.inputs)
    assert torch.equal(fresh.targets, whole.targets)
    assert fresh.state() == whole.state()
    fresh.load_state(*before)
    assert fresh.epoch == 0
    with pytest.raises(InvalidInput):
        make(table, samples=20).load_state(*whole.state())
    with pytest.raises(InvalidInput):
        fresh.load_state({}, {"kind": "arrays", "epoch": "1"})


@pytest.mark.parametrize(
    "options",
    [{}, {"complib": "blosc", "complevel": 5}, {"data_columns": ["E_1", "is_signal_new"]}],
)
def test_tables_that_pandas_wrote(tmp_path: Path, options: dict[str, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    values, labels = content(300)
    frame = pandas.DataFrame(values, columns=columns(ITEMS))
    frame["ttv"], frame["is_signal_new"] = 1, labels
    path = tmp_path / "t.h5"
    frame.to_hdf(path, key="table", mode="w", format="table", **options)
    check(read(path), 300)
    frame.to_hdf(path, key="table", mode="w", format="fixed")
    refused(path, KEY)


def test_what_is_written_here_is_pandas_layout(tmp_path: Path) -> None:
    """The files of these tests differ from pandas' own in nothing that is read."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    values, labels = content(20)
    ours, theirs = write(tmp_path / "a.h5", values, labels), tmp_path / "b.h5"
    frame = pandas.DataFrame(values, columns=columns(ITEMS))
    frame["ttv"], frame["is_signal_new"] = 5, labels
    frame.to_hdf(theirs, key="table", mode="w", format="table")
    with h5py.File(ours) as a, h5py.File(theirs) as b:
        one, other = a["table/table"], b["table/table"]
        assert one.dtype == other.dtype
        for block in ("values_block_0", "values_block_1"):
            kinds = [pickle.loads(t.attrs[f"{block}_kind"]) for t in (one, other)]
            assert kinds[0] == kinds[1]
            assert np.array_equal(one[:][block], other[:][block])
