"""What masks say, and that a store that is away does not speak for them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from raydiff import storage
from raydiff.errors import StorageUnavailable
from raydiff.images import masks


def test_marks_of_black_marked_and_damaged_masks(tmp_path):
    for name, value in (("black", 0), ("marked", 7)):
        Image.fromarray(np.full((4, 4), value, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "damaged.png").write_bytes(b"x")
    assert masks.marks([str(tmp_path / f"{name}.png") for name in ("black", "marked", "damaged")]) == [
        False,
        True,
        None,
    ]


def test_a_store_that_is_away_is_no_damaged_mask(monkeypatch):
    def away(uri):
        raise StorageUnavailable(f"{uri}: 503")

    monkeypatch.setattr(storage, "read_bytes", away)
    monkeypatch.setattr(masks, "patiently", lambda call, *arguments: call(*arguments))
    with pytest.raises(StorageUnavailable):
        masks.marks(["memory://a.png"])
