"""Relative paths inside Ray's copy of a job's working directory, where results would be lost."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import calibrated_model, write_mvtec

from raydiff import cli, cluster, storage
from raydiff.errors import StorageError

ROOT = Path(__file__).parents[1]
TRAINING = ["--backbone-weights", "random"]
# What each is called with; OUT, DATA and MODEL are absolute but for the one that is tried.
CALLS = {
    "raydiff index": (["--data", "DATA", "--out", "OUT"], ["OUT", "DATA"]),
    "raydiff index --score": (["--data", "DATA", "--out", "OUT", "--score", "MORE"], ["MORE"]),
    "raydiff index --pack": (["--data", "DATA", "--out", "OUT"], ["OUT", "DATA"]),
    "raydiff train": (["--out", "OUT", "--method", "lafite", *TRAINING], ["OUT"]),
    "raydiff tune": (["--out", "OUT"], ["OUT"]),
    "raydiff calibrate": (["--out", "OUT", "--model", "lafite"], ["OUT"]),
    "raydiff score": (["--out", "OUT", "--model", "lafite"], ["OUT"]),
    "raydiff evaluate": (["--out", "OUT", "--model", "lafite"], ["OUT"]),
    "raydiff report": (["--out", "OUT"], ["OUT"]),
    "raydiff report of scores": (["--scores", "OUT"], ["OUT"]),
    "raydiff demo-images": (["--out", "OUT"], ["OUT"]),
    "train_all": (["--data", "DATA", "--out", "OUT", "--methods", "nearest_patch", *TRAINING], ["OUT", "DATA"]),
    "train_all --dry-run": (
        ["--data", "DATA", "--out", "OUT", "--methods", "nearest_patch", *TRAINING],
        ["OUT", "DATA"],
    ),
    "score_archive": (["--model", "MODEL", "--data", "DATA", "--out", "OUT"], ["OUT", "DATA", "MODEL"]),
    "score_archive --dry-run": (["--model", "MODEL", "--data", "DATA", "--out", "OUT"], ["OUT", "DATA", "MODEL"]),
    "tune": (["--out", "OUT"], ["OUT"]),
    "evaluate": (["--out", "OUT", "--model", "lafite"], ["OUT"]),
    "benchmark": (["--model", "MODEL", "--data", "DATA", "--out", "OUT"], ["OUT", "DATA", "MODEL"]),
    "benchmark_training": (["--data", "DATA", "--out", "OUT", "--method", "lafite", *TRAINING], ["OUT", "DATA"]),
}


@pytest.fixture
def copy(tmp_path, monkeypatch) -> Path:
    """A job's working directory as Ray unpacks it, and this process in it."""
    folder = tmp_path / "session/runtime_resources/working_dir_files/_ray_pkg_0123456789abcdef"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def brought(tmp_path_factory):
    root = tmp_path_factory.mktemp("brought")
    write_mvtec(root / "images", train=2, test=1)
    return {
        "DATA": str(root / "images"),
        "MORE": str(root / "images"),
        "MODEL": calibrated_model(root / "model", "bolt"),
    }


@pytest.mark.parametrize(("call", "relative"), [(call, name) for call, (_, names) in CALLS.items() for name in names])
def test_every_step_and_job_refuses_a_relative_path_before_it_begins(
    copy, brought, tmp_path, monkeypatch, capsys, call, relative
):
    (copy / "mine").mkdir()  # it is there, shipped with the code
    places = brought | {"OUT": str(tmp_path / "out")} | {relative: "mine"}
    words = call.split()
    command = ["raydiff", words[1]] if words[0] == "raydiff" else [f"{words[0]}.py"]
    given = [places.get(word, word) for word in CALLS[call][0]]
    flags = [word for word in words if word.startswith("--") and word != "--score"]
    monkeypatch.setattr(sys, "argv", [*command, *given, *flags])
    monkeypatch.setattr(cluster, "connect", lambda *asked: pytest.fail("a cluster was joined"))
    with pytest.raises(SystemExit) as ended:
        cli.main() if words[0] == "raydiff" else runpy.run_path(str(ROOT / f"jobs/{words[0]}.py"), run_name="__main__")
    said = capsys.readouterr().err
    assert ended.value.code == 1, said
    assert said.startswith("error: mine is a relative path, and inside a Ray job")
    assert "as in /data/mine) or a URI (as in s3://bucket/mine)" in said
    assert said.count("\n") == 1
    assert not list((copy / "mine").iterdir())
    assert not Path(tmp_path / "out").exists()


def test_elsewhere_a_relative_path_is_what_it_was(tmp_path, monkeypatch):
    for folder in ("plain", "working_dir_files", "runtime_resources"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        storage.probe("runs/x")
        assert storage.absolute("runs/x") == str(tmp_path / folder / "runs/x")


def test_absolute_paths_and_uris_are_fine_in_a_job_and_shipped_files_can_be_read(copy):
    (copy / "weights.pth").write_bytes(b"1")
    assert storage.absolute("/data/x") == "/data/x"
    assert storage.absolute("file:///data/x") == "/data/x"
    assert storage.absolute("memory://bucket/x") == "memory://bucket/x"
    with storage.local_copy("weights.pth") as path:
        assert Path(path).read_bytes() == b"1"
    with pytest.raises(StorageError, match=re.escape("/data/run)")):
        storage.absolute("a/run")
