"""Arrays cached on disk: whole or not there, whatever happens to those who write them."""

from __future__ import annotations

import os
import resource
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from atlas_worker.datasets.cache import Cache, user_folder
from atlas_worker.errors import InvalidInput

SHAPES = (((3, 5), torch.float32), ((3, 1, 7), torch.uint8), ((3, 2), torch.float64))


def cache_in(folder: Path, facts: int = 0, shapes: tuple = SHAPES) -> Cache:
    return Cache(folder, {"facts": facts}, {"of": "numbers"}, shapes)


def numbers(shapes: tuple = SHAPES) -> list[Tensor]:
    seed = torch.Generator().manual_seed(0)
    return [torch.randint(256, shape, generator=seed).to(dtype) for shape, dtype in shapes]


def make(cache: Cache, between: Callable[[], object] = lambda: None) -> tuple[Tensor, ...]:
    """``between`` is called once a part is written."""
    with cache.writing() as writer:
        for i in (2, 0, 1):
            writer.put(i, [array[i] for array in numbers()])
            if i == 2:
                between()
    return writer.arrays


def same(arrays: tuple[Tensor, ...] | None) -> bool:
    return arrays is not None and all(map(torch.equal, arrays, numbers()))


def refused(cache: Cache, between: Callable[[], object] = lambda: None) -> str:
    with pytest.raises(InvalidInput) as caught:
        make(cache, between)
    assert caught.value.field == "dataset.source.params.cache"
    assert "do without one" in caught.value.remedy
    assert str(cache.folder) in caught.value.message
    return caught.value.message


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cache = cache_in(tmp_path / "new" / "folder")
    assert cache.load() is None
    assert same(make(cache))
    assert same(cache.load())
    assert list(cache.folder.iterdir()) == [cache.path]
    assert cache.path.stat().st_size == cache.size
    assert cache.path.read_bytes().splitlines()[0].startswith(b'{"of": "numbers"')


def test_writing_into_what_is_mapped_is_seen_by_nobody_else(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    mine = make(cache)
    mine[0].zero_()
    assert same(cache.load())
    assert float(mine[0].abs().sum()) == 0


def test_what_is_mapped_outlives_the_file(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    arrays = make(cache)
    cache.path.unlink()
    assert same(arrays)


def test_other_content_is_another_file(tmp_path: Path) -> None:
    shapes = ((3, 5), torch.float32), ((3, 7, 1), torch.uint8), ((3, 2), torch.float64)
    paths = {
        c.path for c in (cache_in(tmp_path), cache_in(tmp_path, 1), cache_in(tmp_path, 0, shapes))
    }
    assert len(paths) == 3
    assert cache_in(tmp_path).path in paths


@pytest.mark.parametrize("damage", ["truncated", "longer", "head", "empty"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    cache = cache_in(tmp_path)
    make(cache)
    content = cache.path.read_bytes()
    changed = {
        "truncated": content[:-1],
        "longer": content + b"0",
        "head": content.replace(b"numbers", b"NUMBERS", 1),
        "empty": b"",
    }
    cache.path.write_bytes(changed[damage])
    assert cache.load() is None
    assert same(make(cache))
    assert same(cache.load())


def test_nothing_is_left_of_one_that_was_stopped(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)

    def stop() -> None:
        assert len(list(tmp_path.iterdir())) == 1
        assert cache.load() is None
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(cache, stop)
    assert list(tmp_path.iterdir()) == []


def test_two_at_once(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    others: list[tuple[Tensor, ...]] = []
    assert same(make(cache, lambda: others.append(make(cache))))
    assert same(others[0])
    assert same(cache.load())
    assert list(tmp_path.iterdir()) == [cache.path]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    cache, other = cache_in(tmp_path), cache_in(tmp_path, 1)
    with other.writing():
        (living,) = tmp_path.iterdir()
        dead = living.with_name(living.name.replace(living.name[:32], "0" * 32))
        shutil.copy(living, dead)
        (tmp_path / "mine.partial").touch()
        make(cache)
        assert sorted(tmp_path.iterdir()) == sorted([cache.path, living, tmp_path / "mine.partial"])


def test_a_disk_with_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    assert "has only 1e-08 GB free" in refused(cache_in(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path) -> None:
    """A limit on the size of files is met as the end of a disk is."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (0, before[1]))
        assert "file too large" in refused(cache_in(tmp_path), full)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "not a directory" in refused(cache_in(tmp_path / "file" / "folder"))
    cache = cache_in(tmp_path)
    cache.path.mkdir()
    assert cache.load() is None
    assert "is a directory" in refused(cache)
    assert sorted(tmp_path.iterdir()) == sorted([cache.path, tmp_path / "file"])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system decides")
def test_one_larger_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of holes, which take no room on the disk."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**60))
    cache = cache_in(tmp_path, 0, (((2 * total,), torch.uint8),))
    with cache.writing() as writer:
        pass
    assert int(writer.arrays[0][-1]) == 0
    assert cache.load() is not None


def test_the_users_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/far")
    assert user_folder("x") == Path("/far/atlas-symmetry/x")
    monkeypatch.setenv("HOME", "/home/me")
    for none in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", none)
        assert user_folder("x") == Path("/home/me/.cache/atlas-symmetry/x")
