"""Input that ends the process it is given to costs itself and nothing else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from raydiff.errors import StorageUnavailable
from raydiff.images.guarded import each


def careful(path: str) -> str:
    """Answers, but dies of some names; each visit is noted."""
    with open(path, "a") as file:
        file.write("x")
    if "deadly" in path:
        os.kill(os.getpid(), signal.SIGKILL)
    if "flaky" in path and Path(path).stat().st_size < 3:
        os._exit(1)
    if "gone" in path:
        raise StorageUnavailable("not now")
    return f"read {Path(path).name}"


def test_what_kills_is_tried_and_told_and_the_rest_is_read(tmp_path):
    names = ["a", "deadly", "b", "flaky", "c"]
    found = each(careful, [str(tmp_path / name) for name in names], attempts=3, killed="killed")
    assert found == ["read a", "killed", "read b", "read flaky", "read c"]
    assert {name: (tmp_path / name).stat().st_size for name in names} == {
        "a": 1,
        "deadly": 3,
        "b": 1,
        "flaky": 3,
        "c": 1,
    }


def test_an_error_is_an_error(tmp_path):
    with pytest.raises(StorageUnavailable, match="not now"):
        each(careful, [str(tmp_path / "gone")], attempts=3, killed="killed")
    assert each(careful, [], attempts=3, killed="killed") == []
