"""The main job on every combination of what a folder may hold: it ends with a report, or before training in a sentence.

The default suite takes a few; `make test-combinations` takes all.
"""

from __future__ import annotations

import itertools
import runpy
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import made_images, with_defect
from main_job import ROOT, tiny
from PIL import Image
from typer.testing import CliRunner

import raydiff
from raydiff import progress, storage
from raydiff.errors import DataError
from raydiff.evaluation.evaluate import Evaluation
from raydiff.run_folder import RunFolder
from raydiff.scoring import table

pytestmark = pytest.mark.ray

CATEGORIES = ("bolt", "cloth")
SIZE = 40
DEFECTIVE = 3  # test images of each kind and category
# What there is to test on: folders, masks of the defective images, and how they are spoilt.
TESTS = {
    "nothing": (),
    "all": ("good", "spot", "masks"),
    "no masks": ("good", "spot"),
    "some masks": ("good", "spot", "some masks"),
    "all masks bad": ("good", "spot", "masks", "bad masks"),
    "defects": ("spot", "masks"),
    "normals": ("good",),
    "unreadable": ("good", "spot", "masks", "unreadable"),
    "no labels": ("good", "spot", "table"),
}
NORMALS = {"1": (1, 1), "3": (3, 3), "8": (8, 8), "8 and 3": (8, 3), "8 and 0": (8, 0), "0": (0, 0)}
FEW = [  # for the default suite
    ("nothing", "8 and 3", False, False),
    ("all masks bad", "8", True, True),
    ("all", "8 and 3", False, True),
    ("defects", "0", False, False),
]
ALL = list(itertools.product(TESTS, NORMALS, (False, True), (False, True)))


def write(folder: Path, test: str, normals: str, equal: bool) -> str:
    """A data set of two categories; what --data names."""
    kinds = TESTS[test]
    folder.mkdir()
    for number, (category, count) in enumerate(zip(CATEGORIES, NORMALS[normals], strict=True)):
        images = made_images(count + 2 * DEFECTIVE, SIZE, seed=number)
        if equal:
            images[:] = images[:1]
        save(folder / category / "train/good", images[:count])
        good, bad = images[count : count + DEFECTIVE], with_defect(images[count + DEFECTIVE :])
        save(folder / category / "test/good", good if "good" in kinds else ())
        save(folder / category / "test/spot", bad if "spot" in kinds else ())
        side = SIZE // 2 if "bad masks" in kinds else SIZE
        mask = np.zeros((side, side, 3), np.uint8)
        mask[side // 4 : side // 2, side // 4 : side // 2] = 255
        masks = DEFECTIVE if "masks" in kinds else 1 if "some masks" in kinds else 0
        save(folder / category / "ground_truth/spot", [mask] * masks)
    if "unreadable" in kinds:
        for file in folder.glob("*/test/*/*.png"):
            file.write_bytes(b"no image")
    if "table" not in kinds:
        return str(folder)
    lines = [
        f"{path},{path.parts[-4]},{path.parts[-3]},{'0' if 'train' in path.parts else ''}"
        for path in sorted(folder.glob("*/*/*/*.png"))
    ]
    (folder / "images.csv").write_text("\n".join(["uri,category,split,label", *lines]))
    return str(folder / "images.csv")


def save(folder: Path, images) -> None:
    if len(images):
        folder.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")


def train_all(*arguments: str) -> str:
    """What the main job prints, run in this process on the Ray that all tests share."""
    app = typer.Typer()
    app.command()(runpy.run_path(str(ROOT / "jobs/train_all.py"))["main"])
    with progress.console.capture() as printed:
        CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    return printed.get()


def check(folder: Path, test: str, normals: str, equal: bool, per_category: bool) -> None:
    data = write(folder / "data", test, normals, equal)
    out = RunFolder(str(folder / "run"))
    arguments = ["--data", data, "--out", out.uri, "--methods", "nearest_patch", "--preset", "demo", "--pseudo-images"]
    arguments += ["4", "--false-alarm-rate", "0.3", *tiny("nearest_patch"), *["--per-category"] * per_category]
    enough = normals in ("8", "8 and 0") or (normals == "8 and 3" and not per_category)
    if not enough:
        with pytest.raises(DataError, match=r"too few normal images|no normal image|holds no images"):
            train_all(*arguments)
        assert not storage.exists(out.work)
        assert not list((folder / "run").glob("**/models"))
        return
    printed = train_all(*arguments)
    assert ("models" in {folder.name for folder in Path(out.uri).iterdir()}) == (not per_category)
    fitted = [name for name, count in zip(CATEGORIES, NORMALS[normals], strict=True) if count]
    runs = [RunFolder(out.category(name)) for name in fitted] if per_category else [out]
    for run in runs:
        check_ended(run, printed, test, 1 if per_category else 2)
    if per_category:
        models = [raydiff.load(run.model("nearest_patch"), "cpu") for run in runs]
        assert [list(model.card["training_images"]) for model in models] == [[name] for name in fitted]
        assert len({model.id for model in models}) == len(fitted)
    if test not in ("nothing", "unreadable"):
        results = printed[printed.index("┃ category") :]
        assert all(word in results for word in (*(fitted if per_category else CATEGORIES), "mean"))


def check_ended(run: RunFolder, printed: str, test: str, categories: int) -> None:
    """A run that ended well, with all that can be said of its images."""
    page = Path(run.report).read_text()
    assert f"report: {run.report}" in printed
    model_uri = run.model("nearest_patch")
    model_id = storage.read_json(f"{model_uri}/model.json")["id"]
    if test == "nothing":
        assert "There are no images to test on" in page
        for text in (page, printed):
            assert f"python jobs/score_archive.py --model {model_uri} --data ARCHIVE --out SCORES" in text
        assert "score histogram" in page
        return
    kinds = TESTS[test]
    rows = table.read(run.scores("nearest_patch", model_id)).to_pylist()
    assert len(rows) == categories * DEFECTIVE * (("good" in kinds) + ("spot" in kinds))
    assert all(bool(row["error"]) == ("unreadable" in kinds) for row in rows)
    found = Evaluation.model_validate(storage.read_json(run.evaluation("nearest_patch", model_id)))
    bad = categories * DEFECTIVE if "bad masks" in kinds else 0
    assert found.unusable_masks == bad
    assert ("Left out of the pixel metrics" in page) == bool(bad)
    assert ("all 6 are 0.5 times as large" in printed) == bool(bad)
    labelled = {"good", "spot"} <= set(kinds) and not {"unreadable", "table"} & set(kinds)
    assert (found.mean["image_auroc"] is not None) == labelled
    masked = {"masks", "some masks"} & set(kinds) and not {"unreadable", "bad masks"} & set(kinds)
    assert (found.mean["aupro"] is not None) == bool(masked)


@pytest.mark.parametrize(("test", "normals", "equal", "per_category"), FEW)
def test_a_few_combinations(local_ray, tmp_path, test, normals, equal, per_category):
    check(tmp_path, test, normals, equal, per_category)


@pytest.mark.combinations
@pytest.mark.parametrize(("test", "normals", "equal", "per_category"), [one for one in ALL if one not in FEW])
def test_all_combinations(local_ray, tmp_path, test, normals, equal, per_category):
    check(tmp_path, test, normals, equal, per_category)
