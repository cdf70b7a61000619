"""Evaluation of a small score table with maps and masks, against scikit-learn on the same arrays."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

from raydiff import metrics
from raydiff.errors import DataError
from raydiff.evaluation import evaluate as evaluation
from raydiff.evaluation.evaluate import METRICS, Evaluation, evaluate
from raydiff.evaluation.results_table import left_out, results_table
from raydiff.scoring import table
from raydiff.scoring.maps import read_map, write_map

HEIGHT, WIDTH = 25, 33


class Archive:
    """Scored images of some categories, kept as arrays beside what is on disk."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        self.rows: list[dict[str, Any]] = []
        self.images: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, category: str, defect: str | None, count: int, masks: bool = True, maps: bool = True) -> None:
        """Images with `defect`: "good" is normal, None unknown."""
        label = None if defect is None else int(defect != "good")
        for _ in range(count):
            stem = f"{len(self.rows):03d}"
            mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
            if label:
                top, left = self.rng.integers(0, 16, size=2)
                mask[top : top + 5, left : left + 7] = True
            anomaly_map = (self.rng.random(mask.shape) + 0.5 * mask).astype(np.float32)
            row = {
                "uri": str(self.folder / category / f"{stem}.png"),
                "dataset": "drawn",
                "category": category,
                "split": "test",
                "label": label,
                "defect": defect,
                "height": HEIGHT,
                "width": WIDTH,
                "score": float(self.rng.normal() + (label or 0)),
                "method": "lafite",
                "model_id": "m1",
            }
            if label and masks:
                row["mask_uri"] = str(self.folder / f"{stem}_mask.png")
                Image.fromarray(mask).save(row["mask_uri"])
            if maps:
                row["map_uri"] = str(self.folder / "maps" / f"{stem}.tiff")
                write_map(row["map_uri"], anomaly_map)
            if maps and label is not None and (masks or not label):
                self.images.setdefault(category, []).append((anomaly_map, mask))
            self.rows.append(row)

    def write(self) -> str:
        uri = str(self.folder / "scores")
        half = len(self.rows) // 2
        for part, rows in enumerate((self.rows[:half], self.rows[half:])):
            table.write(table.part_uri(uri, f"{part}"), pa.Table.from_pylist(rows, schema=table.SCHEMA))
        return uri

    def labelled(self, category: str) -> tuple[np.ndarray, np.ndarray]:
        """Labels and scores of one category's images."""
        rows = [row for row in self.rows if row["category"] == category and row["label"] is not None]
        return np.array([row["label"] for row in rows]), np.array([row["score"] for row in rows])


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    archive = Archive(tmp_path)
    for category in ("nut", "bolt"):
        archive.add(category, "good", 9)
        archive.add(category, "scratch", 6)
        archive.add(category, "dent", 4)
    return archive


def test_evaluation_is_what_scikit_learn_finds(archive: Archive) -> None:
    uri = archive.write()
    found = evaluate(uri)
    assert (found.method, found.model_id, found.scores_uri) == ("lafite", "m1", uri)
    assert (found.size, found.pixel_metrics, found.images, found.errors) == (None, "exact", 38, 0)
    assert list(found.categories) == ["bolt", "nut"]
    for name, category in found.categories.items():
        labels, scores = archive.labelled(name)
        inside = np.concatenate([mask.ravel() for _, mask in archive.images[name]])
        pixels = np.concatenate([anomaly_map.ravel() for anomaly_map, _ in archive.images[name]])
        assert (category.images, category.anomalous, category.maps) == (19, 10, 19)
        assert category.image_auroc == pytest.approx(roc_auc_score(labels, scores))
        assert category.image_ap == pytest.approx(average_precision_score(labels, scores))
        assert category.image_f1_max == pytest.approx(metrics.f1_max(scores, labels))
        assert category.pixel_auroc == pytest.approx(roc_auc_score(inside, pixels))
        assert category.pixel_ap == pytest.approx(average_precision_score(inside, pixels))
        assert category.pixel_f1_max == pytest.approx(metrics.f1_max(pixels, inside))
        assert category.aupro == pytest.approx(metrics.aupro(archive.images[name]))


def test_a_folder_of_masks_is_as_one_that_unites_them(archive: Archive) -> None:
    expected = evaluate(archive.write())
    for row in archive.rows:
        if not row.get("mask_uri"):
            continue
        mask = np.array(Image.open(row["mask_uri"]))
        folder = Path(row["mask_uri"].removesuffix("_mask.png"))
        folder.mkdir()
        for name, columns in (("000", slice(None, 12)), ("001", slice(8, None))):  # they overlap
            part = np.zeros_like(mask)
            part[:, columns] = mask[:, columns]
            Image.fromarray(part).save(folder / f"{name}.png")
        row["mask_uri"] = f"{folder}/"
    assert evaluate(archive.write()) == expected


def test_each_defect_stands_against_all_normals(archive: Archive) -> None:
    archive.rows[-1]["defect"] = None  # an anomaly of unknown kind
    category = evaluate(archive.write()).categories["bolt"]
    rows = [row for row in archive.rows if row["category"] == "bolt" and row["defect"] in ("good", "scratch")]
    expected = roc_auc_score([row["label"] for row in rows], [row["score"] for row in rows])
    assert category.defects["scratch"].image_auroc == pytest.approx(expected)
    assert {name: defect.images for name, defect in category.defects.items()} == {"dent": 3, "scratch": 6}


def test_mean_weighs_categories_the_same_and_worst_names_one(archive: Archive) -> None:
    archive.add("nut", "good", 20)
    for index, row in enumerate(archive.rows):
        row["is_anomalous"] = index % (2 if row["category"] == "nut" else 5) == 0
    found = evaluate(archive.write())
    bolt, nut = found.categories["bolt"], found.categories["nut"]
    for metric in METRICS:
        values = {"bolt": getattr(bolt, metric), "nut": getattr(nut, metric)}
        assert found.mean[metric] == pytest.approx(sum(values.values()) / 2)
        pick = max if metric == "false_alarm_rate" else min
        worst = found.worst[metric]
        assert worst is not None
        assert (worst.category, worst.value) == pick(values.items(), key=lambda item: item[1])
    assert nut.false_alarm_rate == pytest.approx(15 / 29)
    assert bolt.recall == pytest.approx(2 / 10)


def test_without_a_threshold_there_are_no_rates(archive: Archive) -> None:
    found = evaluate(archive.write())
    assert found.categories["nut"].false_alarm_rate is None
    assert found.categories["nut"].recall is None
    assert found.mean["recall"] is None
    assert found.worst["recall"] is None


def test_rows_with_an_error_and_of_the_train_split_are_left_out(archive: Archive) -> None:
    expected = evaluate(archive.write())
    broken = {**archive.rows[0], "score": None, "map_uri": None, "error": "the file is empty"}
    trained = {**archive.rows[0], "split": "train", "score": 99.0}
    archive.rows += [broken, broken, trained]
    found = evaluate(archive.write())
    assert found.errors == 2
    assert found.model_copy(update={"errors": 0}) == expected


def test_what_has_no_mask_or_no_label_is_left_out_of_pixel_metrics(archive: Archive) -> None:
    expected = evaluate(archive.write()).categories["bolt"]
    archive.add("bolt", "crack", 3, masks=False)
    archive.add("bolt", "good", 2, maps=False)
    archive.add("bolt", None, 4)
    found = evaluate(archive.write()).categories["bolt"]
    labels, scores = archive.labelled("bolt")
    assert (found.images, found.anomalous, found.maps) == (28, 13, 19)
    assert found.image_auroc == pytest.approx(roc_auc_score(labels, scores))
    for metric in ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"):
        assert getattr(found, metric) == getattr(expected, metric)


def test_what_cannot_be_computed_is_none_and_leaves_the_mean(archive: Archive) -> None:
    expected = evaluate(archive.write())
    archive.add("unlabelled", None, 3)
    archive.add("normals only", "good", 3)
    archive.add("no masks", "crack", 2, masks=False)
    found = evaluate(archive.write())
    for name in ("unlabelled", "normals only", "no masks"):
        assert all(getattr(found.categories[name], metric) is None for metric in METRICS)
    assert found.categories["no masks"].defects["crack"].image_auroc is None
    assert (found.mean, found.worst) == (expected.mean, expected.worst)


@pytest.mark.parametrize("limit", [0, 5 * HEIGHT * WIDTH])
def test_many_pixels_are_binned_and_say_so(archive: Archive, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.add("bolt", "scratch", 20)
    uri = archive.write()
    exact = evaluate(uri)
    monkeypatch.setattr(evaluation, "EXACT_PIXELS", limit)
    binned = evaluate(uri)
    assert (exact.pixel_metrics, binned.pixel_metrics) == ("exact", "binned")
    assert binned.categories["bolt"].pixel_auroc != exact.categories["bolt"].pixel_auroc
    for metric, tolerance in {"pixel_auroc": 1e-3, "aupro": 1e-3, "pixel_f1_max": 2e-3, "pixel_ap": 5e-3}.items():
        assert binned.mean[metric] == pytest.approx(exact.mean[metric], abs=tolerance)
    assert binned.mean["image_auroc"] == exact.mean["image_auroc"]


def test_size_resizes_maps_smoothly_and_masks_to_the_nearest(archive: Archive) -> None:
    found = evaluate(archive.write(), size=12)
    small = []
    for anomaly_map, mask in archive.images["nut"]:
        resized = Image.fromarray(anomaly_map).resize((12, 12), Image.Resampling.BILINEAR)
        rows, columns = (np.arange(12) + 0.5) * HEIGHT / 12, (np.arange(12) + 0.5) * WIDTH / 12
        small.append((np.asarray(resized), mask[np.ix_(rows.astype(int), columns.astype(int))]))
    assert found.size == 12
    assert found.categories["nut"].aupro == pytest.approx(metrics.aupro(small))


def spoil(archive: Archive, how: str) -> dict:
    """Make the mask of one defective image unusable; the image's row."""
    row = next(row for row in archive.rows if row.get("mask_uri"))
    if how == "another size":
        Image.new("1", (WIDTH // 2, HEIGHT // 2)).save(row["mask_uri"])
    elif how == "all black":
        Image.new("1", (WIDTH, HEIGHT)).save(row["mask_uri"])
    elif how == "empty":
        Path(row["mask_uri"]).write_bytes(b"")
    else:
        Path(row["mask_uri"]).unlink()
    return row


@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("another size", "the mask is 16 x 12 pixels, its image 33 x 25"),
        ("all black", "the mask is all black: it marks no defect"),
        ("empty", "the file is empty"),
        ("gone", "is not there"),
    ],
)
def test_an_image_whose_mask_cannot_be_used_leaves_the_pixel_metrics(archive, how, reason, size) -> None:
    row = spoil(archive, how)
    found = evaluate(archive.write(), size=size)
    assert found.unusable_masks == 1
    assert (found.unusable[0].uri, found.unusable[0].category) == (row["mask_uri"], row["category"])
    assert reason in found.unusable[0].reason
    told = left_out([found, found])
    assert "1 images" in told[0]
    assert row["mask_uri"] in told[1]
    archive.rows = [one | {"mask_uri": None} if one is row else one for one in archive.rows]
    without = evaluate(archive.write(), size=size)
    assert without.unusable_masks == 0
    assert left_out([without]) == []
    assert found.categories == without.categories  # as if it had no mask: its image's score counts still


def test_a_map_that_holds_nan_is_named(archive: Archive) -> None:
    row = next(row for row in archive.rows if row.get("mask_uri"))
    write_map(row["map_uri"], np.full((HEIGHT, WIDTH), np.nan))
    with pytest.raises(DataError, match=r"\.tiff: an anomaly map holds NaN"):
        evaluate(archive.write())


def test_tables_that_cannot_be_evaluated(archive: Archive) -> None:
    archive.rows[3]["model_id"] = "m2"
    with pytest.raises(DataError, match=r"mixes scores of 2 values of model_id"):
        evaluate(archive.write())
    archive.rows[3] |= {"model_id": "m1", "score": None}
    with pytest.raises(DataError, match=r"003\.png has neither a score nor an error"):
        evaluate(archive.write())
    archive.rows = [row | {"error": "the file is empty"} for row in archive.rows]
    nothing = evaluate(archive.write())
    assert (nothing.images, nothing.errors, nothing.categories) == (0, 38, {})
    assert set(nothing.mean.values()) == set(nothing.worst.values()) == {None}
    archive.rows = [row | {"split": "train"} for row in archive.rows]
    with pytest.raises(DataError, match=r"no image whose split is 'test'"):
        evaluate(archive.write())


def test_evaluation_goes_through_json(archive: Archive) -> None:
    archive.add("unlabelled", None, 1)
    found = evaluate(archive.write())
    text = json.dumps(found.model_dump(mode="json"), allow_nan=False)
    assert Evaluation(**json.loads(text)) == found
    assert json.loads(text)["categories"]["unlabelled"]["aupro"] is None


def test_map_files_hold_the_same_numbers_uncompressed(tmp_path: Path) -> None:
    anomaly_map = np.random.default_rng(0).normal(size=(300, 401)) * 1e4
    uri = str(tmp_path / "maps" / "a.tiff")
    write_map(uri, anomaly_map)
    read = read_map(uri)
    assert (read.dtype, read.shape) == (np.float32, (300, 401))
    np.testing.assert_array_equal(read, anomaly_map.astype(np.float32))
    with Image.open(uri) as image:
        assert (image.mode, image.tag_v2[259], image.n_frames) == ("F", 1, 1)
        np.testing.assert_array_equal(np.asarray(image), read)
    read[0, 0] = 1  # the caller's own


def test_a_map_may_have_more_pixels_than_pillow_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "a.tiff")
    write_map(uri, np.ones((30, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_map(uri).sum() == 1200


def test_files_that_are_no_maps_are_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "a.tiff")
    write_map(uri, np.ones((30, 40)))
    whole = Path(uri).read_bytes()
    grey, pages = Image.new("L", (4, 4)), io.BytesIO()
    Image.new("F", (4, 4)).save(pages, "TIFF", save_all=True, append_images=[Image.new("F", (4, 4))])
    squeezed, bytes_of_grey = io.BytesIO(), io.BytesIO()
    Image.new("F", (4, 4)).save(squeezed, "TIFF", compression="tiff_lzw")
    grey.save(bytes_of_grey, "TIFF")
    others = [b"", b"no picture", whole[:-10], pages.getvalue(), squeezed.getvalue(), bytes_of_grey.getvalue()]
    for data in others:
        Path(uri).write_bytes(data)
        with pytest.raises(DataError, match=r"a\.tiff is not a readable anomaly map"):
            read_map(uri)


def test_results_table_shows_all_methods_within_100_columns(archive: Archive) -> None:
    archive.add("a category with a name that is very long indeed", None, 1)
    found = evaluate(archive.write())
    alarmed = found.categories["nut"].model_copy(update={"recall": 0.875, "false_alarm_rate": 0.05})
    found = found.model_copy(update={"categories": found.categories | {"nut": alarmed}})
    other = found.model_copy(update={"categories": {"nut": alarmed}})
    shown = results_table([("lafite", found), ("nearest_patch with a long name", other)])
    console = Console(file=io.StringIO(), width=100)
    console.print(shown)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(" lafite " in line for line in lines) == 4
    assert sum("nearest_patch with a" in line for line in lines) == 2
    nut = next(line for line in lines if " nut " in line and " lafite " in line)
    assert f"{found.categories['nut'].image_auroc:.3f}" in nut
    assert f"{found.categories['nut'].aupro:.3f}" in nut
    mean = next(line for line in lines if " mean " in line)
    assert f"{found.mean['pixel_auroc']:.3f}" in mean
    assert "5.0%" in nut
    assert "87.5%" in nut
    assert next(line for line in lines if "a category with" in line).count("–") == 6


def test_results_of_a_model_per_category_are_shown_together(archive: Archive) -> None:
    found = evaluate(archive.write())
    apart = [found.model_copy(update={"categories": {name: each}}) for name, each in found.categories.items()]
    assert len(apart) > 1
    shown = []
    for evaluations in ([found], apart):
        console = Console(file=io.StringIO(), width=100)
        console.print(results_table([("lafite", evaluation) for evaluation in evaluations]))
        shown.append(console.file.getvalue())
    assert shown[0] == shown[1]
