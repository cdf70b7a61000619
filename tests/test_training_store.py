"""The store of training examples: what is written is read back, and workers share it fairly."""

import uuid

import pytest
import torch

from raydiff import storage
from raydiff.errors import DataError, StorageError
from raydiff.training.store import INDEX, ExampleStore, finish, is_finished, part_uri, write_part

COUNTS = {0: 3, 1: 2, 2: 0, 3: 4, 4: 1}


@pytest.fixture(params=["path", "file", "memory"])
def uri(request, tmp_path):
    return {
        "path": str(tmp_path / "store"),
        "file": f"file://{tmp_path}/store",
        "memory": f"memory://{uuid.uuid4().hex}/store",
    }[request.param]


def examples(part, count):
    """Rows that say which they are."""
    return torch.tensor([[100.0 * part + row, 0.5] for row in range(count)]).reshape(count, 2).half()


def names(part, count):
    return [f"{part} {row}" for row in range(count)]


def written(uri, counts=COUNTS, errors=None):
    for part, count in counts.items():
        write_part(uri, part, examples(part, count), names(part, count))
    finish(uri, counts, errors or {}, {"key": {"image_size": 32}})
    return torch.cat([examples(part, count) for part, count in counts.items()])


def test_a_store_is_read_back_in_order(uri):
    wanted = written(uri, errors={"a.png": "broken"})
    store = ExampleStore(uri)
    assert len(store) == 10
    batches = list(store.batches())
    assert [len(batch) for batch in batches] == [3, 2, 4, 1]  # a part at a time, empty ones left out
    torch.testing.assert_close(torch.cat(batches), wanted, rtol=0, atol=0)
    assert batches[0].dtype == torch.float16
    assert store.categories == [name for part, count in COUNTS.items() for name in names(part, count)]
    assert store.errors == {"a.png": "broken"}
    assert storage.read_json(storage.join(uri, INDEX))["key"] == {"image_size": 32}


def test_examples_are_taken_by_position(uri):
    wanted = written(uri)
    store = ExampleStore(uri)
    order = [9, 0, 4, 4, 5]
    torch.testing.assert_close(store.take(order), wanted[order], rtol=0, atol=0)


def test_a_store_is_finished_by_its_index(uri):
    write_part(uri, 0, examples(0, 2), names(0, 2))
    assert not is_finished(uri)
    finish(uri, {0: 2}, {}, {})
    assert is_finished(uri)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_the_shares_of_the_workers_are_disjoint_and_cover_all(tmp_path, world):
    wanted = written(str(tmp_path))
    shares = [ExampleStore(str(tmp_path), rank, world) for rank in range(world)]
    rows = torch.cat([share.take(list(range(len(share)))) for share in shares])
    assert sorted(rows[:, 0].tolist()) == sorted(wanted[:, 0].tolist())
    assert all(len(share) for share in shares)


def test_with_fewer_parts_than_workers_all_read_all(tmp_path):
    wanted = written(str(tmp_path))  # four parts that hold something
    for rank in range(5):
        store = ExampleStore(str(tmp_path), rank, 5)
        torch.testing.assert_close(store.take(list(range(10))), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("counts", [{}, {0: 0, 1: 0}])
def test_an_empty_store_is_refused(tmp_path, counts):
    written_to = str(tmp_path)
    for part in counts:
        write_part(written_to, part, examples(part, 0), [])
    finish(written_to, counts, {"a.png": "broken"}, {})
    with pytest.raises(DataError, match="holds no usable training image"):
        ExampleStore(written_to)


def test_a_store_without_an_index_is_refused(uri):
    write_part(uri, 0, examples(0, 2), names(0, 2))
    with pytest.raises(StorageError, match=r"index\.json is not there"):
        ExampleStore(uri)


def test_views_that_are_not_contiguous_are_written_whole(uri):
    grid = torch.arange(12.0).reshape(3, 4).T
    write_part(uri, 0, grid, ["bolt"] * len(grid))
    finish(uri, {0: 4}, {}, {})
    torch.testing.assert_close(ExampleStore(uri).take([0, 1, 2, 3]), grid, rtol=0, atol=0)


def test_copies_of_remote_parts_leave_nothing_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    uri = f"memory://{uuid.uuid4().hex}/store"
    wanted = written(uri)
    store = ExampleStore(uri)
    assert list(tmp_path.iterdir()) == []
    torch.testing.assert_close(store.take(list(range(10))), wanted, rtol=0, atol=0)


def test_parts_sort_by_name_as_by_number():
    names = [part_uri("s", part) for part in (0, 9, 10, 99_999, 100_000)]
    assert names == sorted(names)
