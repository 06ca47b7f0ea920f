"""Files that clients send: written part by part, for their own session alone, and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from atlas_worker.errors import InvalidInput, LimitExceeded, NotFound
from atlas_worker.service.limits import Limits
from atlas_worker.service.uploads import Uploads

A, B = "a" * 32, "b" * 32
TICKET = f"{A}.{'1' * 32}"


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = Uploads(Limits(max_session_upload_bytes=100))
    made.open(A)
    return made


def put(uploads: Uploads, name: str, data: bytes, size: int = -1, offset: int = 0) -> None:
    size = len(data) if size < 0 else size
    more = offset + len(data) < size
    uploads.put(TICKET, name, size, offset, [memoryview(data)], more=more)


def test_parts_make_a_file_which_leaves_with_the_session(uploads: Uploads, tmp_path: Path) -> None:
    put(uploads, "x.npy", b"abc", 5)
    with pytest.raises(NotFound):  # it is not complete
        uploads.path(A, TICKET, "path")
    put(uploads, "x.npy", b"de", 5, 3)
    path = uploads.path(A, TICKET, "path")
    assert path.name == "x.npy"
    assert path.read_bytes() == b"abcde"
    with pytest.raises(NotFound):
        uploads.path(B, TICKET, "path")
    uploads.close(A)
    assert not path.exists()
    with pytest.raises(NotFound):
        put(uploads, "x.npy", b"abc")
    uploads.stop()
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_a_ticket_brings_one_file_or_one_folder(uploads: Uploads) -> None:
    put(uploads, "a.zarr/zarr.json", b"{}")
    put(uploads, "a.zarr/x/0", b"12")
    path = uploads.path(A, TICKET, "path")
    assert sorted(str(p.relative_to(path)) for p in path.rglob("*")) == ["x", "x/0", "zarr.json"]
    with pytest.raises(InvalidInput):
        put(uploads, "b.zarr/x", b"12")


@pytest.mark.parametrize(
    "name", ["", "..", "../x", "a/../../x", "/etc/x", "a//x", "a\0", "a\\b", "C:x", "a" * 300]
)
def test_names_that_lead_out_of_the_folder_are_refused(uploads: Uploads, name: str) -> None:
    with pytest.raises(InvalidInput):
        put(uploads, name, b"abc")


def test_limits_hold_before_anything_is_written(uploads: Uploads, tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded):
        put(uploads, "x", b"a", 101)
    assert not list(tmp_path.rglob("x"))
    put(uploads, "x", b"abc", 5)
    with pytest.raises(InvalidInput):  # not the next part
        put(uploads, "x", b"e", 5, 4)
    with pytest.raises(InvalidInput):  # beyond the end
        put(uploads, "x", b"abcdef", 5)


def test_what_a_killed_worker_left_is_removed(uploads: Uploads, tmp_path: Path) -> None:
    left = tmp_path / "atlas-symmetry" / "uploads" / ("c" * 32)
    left.mkdir(parents=True)
    (left / "lock").touch()
    other = Uploads(Limits())  # a worker that runs
    other.open(B)
    other.put(f"{B}.{'2' * 32}", "y", 1, 0, [memoryview(b"y")], more=False)
    put(uploads, "x", b"x")
    assert not left.exists()
    assert other.path(B, f"{B}.{'2' * 32}", "path").exists()
