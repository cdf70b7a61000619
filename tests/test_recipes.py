"""Recipes of the papers: what they claim and ask for, and each of them run, shrunk, on a tree of its data's shape.

Running them takes most of a minute each, which `make test-combinations` does.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from conftest import TINY, made_images, with_defect, write_mvtec
from PIL import Image
from test_benchmark import result
from typer.testing import CliRunner

from raydiff import cli, cluster, methods, progress, recipes
from raydiff.benchmark import suite
from raydiff.errors import SettingsError
from raydiff.evaluation.evaluate import METRICS
from raydiff.recipes.comparison import compared
from raydiff.recipes.recipe import MEAN
from raydiff.recipes.registry import function

every_recipe = pytest.mark.parametrize("name", recipes.names())
SIZE = 40


@every_recipe
def test_what_it_says_is_what_it_holds(name):
    said, recipe = function(name).__doc__, recipes.get(name)
    assert f"raydiff recipe {name} --data " in said
    assert re.search(rf"Measured: {recipe.measured}\b", " ".join(said.split()))
    for metric, value in recipe.published.get(MEAN, {}).items():
        assert metric in METRICS
        assert f"{value:.3f}".removeprefix("0") in said
    assert recipe.published or "not known to us" in said


@every_recipe
def test_it_is_the_papers_preset_and_can_be_changed(name):
    recipe = recipes.get(name)
    (contender,) = recipe.spec("/data").contenders.values()
    wanted = methods.recipe(recipe.method, "paper", recipe.settings)
    assert contender.recipe() == wanted
    (other,) = recipe.spec("/data", "demo", {"train_steps": 7}, seeds=(1, 2)).contenders.values()
    assert other.recipe().train_steps == 7
    with pytest.raises(SettingsError, match="did you mean 'train_steps'"):
        recipe.spec("/data", "demo", {"train_stpes": 7}).check()


@pytest.mark.parametrize(("name", "categories"), [("lafite_mvtec", 15), ("lafite_mpdd", 6)])
def test_the_published_means_are_those_of_the_categories(name, categories):
    published = recipes.get(name).published
    assert len(published) == categories + 1
    for metric, mean in published[MEAN].items():
        # both are rounded to three digits
        assert fmean(values[metric] for key, values in published.items() if key != MEAN) == pytest.approx(
            mean, abs=1e-3
        )


def test_published_and_measured_stand_side_by_side():
    recipe = recipes.get("lafite_mpdd")
    results = [result("lafite", "tubes", seed, image_auroc=0.9 + 0.02 * seed, pixel_auroc=0.8) for seed in (0, 1)] + [
        result("lafite", "own", seed, image_auroc=0.7, pixel_auroc=None) for seed in (0, 1)
    ]
    table = compared(recipe, results, "preset demo")
    rows = {row[0]: row[1:] for row in table.rows}
    assert list(rows)[-1] == MEAN
    assert rows["tubes"] == ["0.948", "0.910 ± 0.014", "0.992", "0.800 ± 0.000"]
    assert rows["own"] == ["–", "0.700 ± 0.000", "–", "–"]
    assert rows["connector"] == ["0.967", "–", "0.991", "–"]
    assert rows[MEAN][:2] == ["0.965", "0.805 ± 0.007"]
    assert "other settings than the recipe's (preset demo), so this compares nothing" in table.note
    assert "other settings" not in compared(recipe, results).note


def command(*words: str):
    with progress.console.capture() as printed:
        outcome = CliRunner().invoke(cli.app, ["recipe", *words], catch_exceptions=False)
    return outcome, printed.get()


def test_the_command_names_recipes_and_tells_of_one():
    assert [line.partition(":")[0] for line in command()[1].splitlines()] == recipes.names()
    assert "raydiff recipe glad_visa --data VISA --out OUT" in command("glad_visa")[1]
    document = json.loads(command("lafite_mpdd", "--json")[0].stdout)
    assert document["published"]["mean"]["image_auroc"] == 0.965


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lafite_mpd"], r"there is no recipe 'lafite_mpd'; did you mean 'lafite_mpdd'\?"),
        (["xyz"], r"there are diffusion_ad_dagm, "),
        (["lafite_mpdd", "--data", "/data"], r"needs --out"),
        (
            ["lafite_mpdd", "--data", "/d", "--out", "/o", "--seeds", "0,a"],
            r"--seeds '0,a' is no list of whole numbers",
        ),
    ],
)
def test_what_cannot_be_run_is_refused(words, said):
    with pytest.raises(SettingsError, match=said):
        command(*words)


def image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def visa(root: Path) -> Path:
    """VisA's shape: JPEGs below Data, and its split."""
    lines = ["object,split,label,image,mask"]
    for number, category in enumerate(("candle", "pcb1")):
        images = made_images(14, SIZE, seed=number)
        for index, pixels in enumerate(images[:12]):
            place = f"{category}/Data/Images/Normal/{index:04d}.JPG"
            image(root / place, pixels)
            lines.append(f"{category},{'train' if index < 9 else 'test'},normal,{place},")
        for index, pixels in enumerate(with_defect(images[12:])):
            place, mask = (f"{category}/Data/{kind}/Anomaly/{index:03d}" for kind in ("Images", "Masks"))
            image(root / f"{place}.JPG", pixels)
            image(root / f"{mask}.png", marked())
            lines.append(f"{category},test,anomaly,{place}.JPG,{mask}.png")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(lines) + "\n")
    return root


def dagm(root: Path) -> Path:
    """DAGM's shape: masks of the defective images in Label."""
    for number, category in enumerate(("Class1", "Class2")):
        images = made_images(14, SIZE, seed=number)
        for index in range(9):
            image(root / category / f"Train/{index + 1:04d}.PNG", images[index])
        for index in range(3):
            image(root / category / f"Test/{index + 1:04d}.PNG", images[9 + index])
        for index, pixels in enumerate(with_defect(images[12:]), 4):
            image(root / category / f"Test/{index:04d}.PNG", pixels)
            image(root / category / f"Test/Label/{index:04d}_label.PNG", marked())
    return root


def marked() -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[SIZE // 4 : SIZE // 2, SIZE // 4 : SIZE // 2] = 255
    return mask


def tree(name: str, root: Path) -> Path:
    """A small data set of the shape of the one that a recipe is for."""
    if "visa" in name:
        return visa(root)
    if "dagm" in name:
        return dagm(root)
    categories = ("bracket_black", "tubes") if "mpdd" in name else ("bottle", "tile")
    return write_mvtec(root, train=9, test=3, size=SIZE, categories=categories)


def shrunk(recipe) -> list[str]:
    """Options with which a recipe takes seconds."""
    tiny = [f"--set={key}={json.dumps(value)}" for key, value in {**TINY[recipe.method], "train_steps": 2}.items()]
    return ["--preset", "demo", *tiny, "--pseudo-images", "2", "--false-alarm-rate", "0.3"]


def test_the_command_measures_what_the_recipe_says(tmp_path, monkeypatch):
    """What is measured is made up here; test_it_runs_from_end_to_end measures."""
    asked = []

    def measured(spec, out):
        asked.append((spec, out))
        return [result("lafite", "tubes", seed, image_auroc=0.75) for seed in spec.seeds]

    monkeypatch.setattr(suite, "run", measured)
    monkeypatch.setattr(cluster, "connect", lambda address: None)
    recipe, data, out = recipes.get("lafite_mpdd"), tree("lafite_mpdd", tmp_path / "data"), tmp_path / "out"
    out.mkdir()
    options = ["--seeds", "3,4", *shrunk(recipe)]
    outcome, said = command("lafite_mpdd", "--data", str(data), "--out", str(out), "--json", *options)
    ((spec, where),) = asked
    assert (spec.data["data"].uri, where, spec.seeds, spec.size) == (str(data), str(out), (3, 4), 224)
    assert spec.contenders["lafite"].recipe() == methods.recipe("lafite", "demo", {**TINY["lafite"], "train_steps": 2})
    assert recipe.title in said
    assert json.loads(outcome.stdout)["changed"][0] == "preset demo"
    check_written(recipe, out, "lafite_mpdd")


def check_written(recipe, out: Path, name: str) -> None:
    text = (out / f"{name}.md").read_text()
    assert text.startswith(f"## {recipe.title}\n")
    assert "preset demo" in text
    mean = next(line for line in text.splitlines() if line.startswith("| mean |"))
    assert re.search(r"\d\.\d{3}", mean)
    assert (out / f"{name}.html").stat().st_size > 1000


@pytest.mark.ray
@pytest.mark.combinations
@every_recipe
def test_it_runs_from_end_to_end(local_ray, name, tmp_path):
    recipe = recipes.get(name)
    data = tree(name, tmp_path / "data")
    _, said = command(name, "--data", str(data), "--out", str(tmp_path / "out"), *shrunk(recipe))
    assert recipe.title in said
    check_written(recipe, tmp_path / "out", name)
    models = {path.parents[1].name for path in (tmp_path / "out/runs").rglob("models/*") if path.is_dir()}
    assert len(models) == (2 if recipe.per_category else 1)
