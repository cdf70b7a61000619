"""The GPU check, run on a CPU with tiny sizes, where nothing may be imported that a bare machine with torch lacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_mvtec
from gpu_parts import REFUSED
from PIL import Image

from raydiff import methods
from raydiff.errors import DataError
from raydiff.gpu_check import packing, parts, results

ROOT = Path(__file__).parents[1]
BLOCKER = f"import sys\nsys.modules.update(dict.fromkeys({REFUSED}))\n"  # None: not there, to import and to look for
# The command, then parts that go wrong, in one process: what theirs are forked from is loaded once.
DRIVER = """
import runpy, sys
from pathlib import Path
from raydiff.gpu_check.parts import Job, Part, run
if __name__ == "__main__":
    wrong = Path(sys.argv.pop(1))
    status = runpy.run_path("jobs/gpu_check.py")["main"]()
    run(Job("cpu"), wrong, [
        Part("first", "gpu_parts:fine", 60), Part("raises", "gpu_parts:raises", 60),
        Part("hangs", "gpu_parts:hangs", 6), Part("crashes", "gpu_parts:crashes", 60),
        Part("fine", "gpu_parts:fine", 60), Part("late", "gpu_parts:fine", 1),
    ])
    sys.exit(status)
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment whose processes find none of the refused packages."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BLOCKER)
    path = os.pathsep.join(map(str, (folder, ROOT, ROOT / "tests")))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def told(arguments, environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def folder(bare, tmp_path_factory):
    """Where a whole tiny check has left its results, in `out`, and one of parts that go wrong, in `wrong`."""
    folder = tmp_path_factory.mktemp("check")
    write_mvtec(folder / "data", train=6, test=4)
    driver = folder / "driver.py"
    driver.write_text(DRIVER)
    options = ["--device", "cpu", "--tiny", "--data", folder / "data", "--out", folder / "out"]
    done = told([driver, folder / "wrong", *options], bare)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def checked(folder):
    """The lines of a whole tiny check, and its table."""
    lines = [json.loads(line) for line in (folder / "out" / results.LINES).read_text().splitlines()]
    return lines, (folder / "out" / results.TABLE).read_text()


def test_every_part_is_done_and_named_in_the_table(checked):
    lines, table = checked
    ends = {line["part"]: line["ended"] for line in lines if "ended" in line}
    assert ends == {part.name: "done" for part in parts.PARTS}
    for part in parts.PARTS:
        assert f"| {part.name} | done |" in table
        assert f"## {part.name}\n" in table


def test_every_correctness_row_passes_for_every_method(checked):
    rows = [line for line in checked[0] if line["part"].startswith("correctness") and "ended" not in line]
    assert all(row["passed"] is True for row in rows)
    for name in methods.names():
        assert {"scores, float32", "scores, bf16", "in other batches"} <= {
            row["what"].removeprefix(f"{name}: ") for row in rows if row["part"] == "correctness: methods"
        }


def test_accuracy_says_what_was_trained_and_found(checked):
    rows = {line["what"]: line for line in checked[0] if line["part"] == "accuracy: lafite" and "what" in line}
    assert rows["lafite: training"]["steps"] > 0
    assert {f"{name}: {category}" for name in ("lafite", "nearest_patch") for category in ("bolt", "cloth")} < set(rows)
    assert all(0 <= rows["lafite: bolt"][metric] <= 1 for metric in ("image_auroc", "aupro"))


def test_a_part_that_goes_wrong_leaves_the_others_and_what_it_had_found(folder):
    lines = results.read(folder / "wrong")
    ends = {line["part"]: (line["ended"], line["error"]) for line in lines if "ended" in line}
    assert ends == {
        "first": ("done", ""),
        "raises": ("failed", "DataError: no such thing"),
        "hangs": ("cut off", "it was not done after 6 s"),
        "crashes": ("failed", "its process ended with code 7 and without a word"),
        "fine": ("done", ""),
        "late": ("left out", "no time was left of the 530 s for all parts"),
    }
    found = {line["part"]: line for line in lines if "what" in line}
    assert found["fine"]["names"] == []
    assert {part: found[part]["value"] for part in ("raises", "hangs", "crashes")} == {
        "raises": 1.5,
        "hangs": 2,
        "crashes": 3,
    }


def test_without_a_gpu_it_says_so_and_ends(bare, tmp_path):
    hidden = {**bare, "CUDA_VISIBLE_DEVICES": ""}
    done = told(["jobs/gpu_check.py", "--out", tmp_path / "out"], hidden)
    assert done.returncode == 1
    assert "torch sees no GPU on this machine" in done.stderr
    assert "Traceback" not in done.stderr


def test_packed_images_are_small_and_keep_their_masks(tmp_path):
    write_mvtec(tmp_path / "mvtec", train=5, test=3, size=300, categories=("bolt",))
    (tmp_path / "some.safetensors").write_bytes(b"weights")
    given = [f"resnet18={tmp_path / 'some.safetensors'}"]
    said = packing.pack(str(tmp_path / "mvtec"), given, tmp_path / "gpu", per_folder=2)
    assert "6 images, 1 files of weights" in said
    assert (tmp_path / "gpu/weights/resnet18.safetensors").read_bytes() == b"weights"
    with Image.open(tmp_path / "gpu/data/bolt/test/spot/000.jpg") as image:
        assert image.size == (256, 256)
    with Image.open(tmp_path / "gpu/data/bolt/ground_truth/spot/000_mask.png") as mask:
        assert mask.size == (256, 256)


def test_what_is_too_large_to_be_carried_is_refused(tmp_path, monkeypatch):
    write_mvtec(tmp_path / "mvtec", train=2, test=1, categories=("bolt",))
    monkeypatch.setattr(packing, "LARGEST_MIB", 0.001)
    with pytest.raises(DataError, match=r"more than the 0\.001 that can be carried; give --per-folder"):
        packing.pack(str(tmp_path / "mvtec"), [], tmp_path / "gpu")


def test_packing_replaces_what_it_made_and_nothing_else(tmp_path):
    data = str(write_mvtec(tmp_path / "mvtec", train=2, test=1, categories=("bolt",)))
    mine = tmp_path / "mine/data/kept.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("kept")
    with pytest.raises(DataError, match="was not packed by this command"):
        packing.pack(data, [], tmp_path / "mine")
    assert mine.read_text() == "kept"
    with pytest.raises(DataError, match="where its copy would go"):
        packing.pack(data, [], tmp_path)
    for _ in range(2):
        packing.pack(data, [], tmp_path / "gpu")
    assert len(list((tmp_path / "gpu/data").rglob("*.jpg"))) == 4
