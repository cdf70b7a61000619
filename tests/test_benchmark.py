"""The measuring stick's arithmetic: over categories and seeds, trivial statistics, protocols; what is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pytest
from conftest import write_mvtec
from PIL import Image
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from raydiff import storage
from raydiff.benchmark import cell, suite, tables, trivial
from raydiff.benchmark.protocol import Protocol, differences, images_digest, versions
from raydiff.benchmark.spec import Spec
from raydiff.benchmark.summary import Figure, champion_lines, lines, pseudo_lines
from raydiff.errors import DataError, SettingsError
from raydiff.evaluation.evaluate import METRICS
from raydiff.images import table
from raydiff.images.holdout import roles
from raydiff.images.survey import find_images
from raydiff.run_folder import RunFolder

# LafitE's table of MVTec AD by category (image AUROC, pixel AUROC), and the deviations that the paper gives for it.
LAFITE = {
    "bottle": (100, 98.4),
    "cable": (97.2, 97.3),
    "capsule": (96.8, 98.9),
    "hazelnut": (100, 98.4),
    "metal_nut": (99.8, 96.8),
    "pill": (98.0, 96.7),
    "screw": (95.4, 99.5),
    "toothbrush": (92.9, 98.8),
    "transistor": (99.6, 97.4),
    "zipper": (99.4, 98.3),
    "carpet": (99.8, 98.7),
    "grid": (99.9, 98.5),
    "leather": (100, 99.2),
    "tile": (100, 93.2),
    "wood": (98.7, 94.3),
}


def protocol(**changes) -> Protocol:
    fields = {
        "images": "0" * 16,
        "models": "one for all categories",
        "image_size": 32,
        "view": "{}",
        "evaluation_size": None,
        "image_score": "largest mean over 16 x 16 pixels",
        "threshold": "none",
        "tuned": "nothing",
        "seed": 0,
        "device": "cpu",
        "versions": versions(),
    }
    return Protocol(**{**fields, **changes})


def result(contender: str, category: str, seed: int = 0, **values):
    """A contender's result in a category; metrics that are not given are None."""
    given = protocol(**values.pop("protocol", {}))
    return {
        **dict.fromkeys(METRICS),
        "data": "mvtec",
        "contender": contender,
        "method": "lafite",
        "model_id": f"{contender}{seed}",
        "seed": seed,
        "category": category,
        "protocol": given.digest,
        "protocol_fields": given.model_dump(mode="json"),
        **values,
    }


def tuning(pseudo_score: float, correlation: float | None = None, price: float | None = None, saw: bool = False):
    return {
        "saw_made_anomalies": saw,
        "pseudo_score": pseudo_score,
        "trials": 4,
        "rank_correlation": correlation,
        "price": price,
    }


def test_the_deviation_between_categories_is_lafites():
    results = [result("lafite", name, image_auroc=image, pixel_auroc=pixel) for name, (image, pixel) in LAFITE.items()]
    (line,) = lines(results, ["image_auroc", "pixel_auroc"])
    assert line.mean["image_auroc"].mean == pytest.approx(98.5, abs=0.05)
    assert line.mean["pixel_auroc"].mean == pytest.approx(97.6, abs=0.05)
    assert line.apart["image_auroc"].mean == pytest.approx(2.04, abs=0.005)
    assert line.apart["pixel_auroc"].mean == pytest.approx(1.73, abs=0.005)
    assert line.worst["image_auroc"] == ("toothbrush", 92.9)


def test_seeds_are_averaged_after_categories():
    values = np.random.default_rng(0).random((3, 4))
    results = [
        result("lafite", f"c{category}", seed, aupro=values[seed, category])
        for seed in range(3)
        for category in range(4)
    ]
    (line,) = lines(results, ["aupro", "image_ap"])
    means = [sum(row) / 4 for row in values]
    assert line.mean["aupro"] == pytest.approx((sum(means) / 3, np.std(means, ddof=1), 3))
    apart = [float(np.sqrt(np.mean((row - row.mean()) ** 2))) for row in values]
    assert line.apart["aupro"] == pytest.approx((np.mean(apart), np.std(apart, ddof=1), 3))
    worst = min(range(4), key=lambda category: values[:, category].mean())
    assert line.worst["aupro"] == (f"c{worst}", pytest.approx(values[:, worst].mean()))
    assert line.mean["image_ap"] is None
    assert line.worst["image_ap"] is None


def test_of_one_seed_and_one_category_no_deviation_is_told():
    (line,) = lines([result("lafite", "bolt", aupro=0.5)], ["aupro"])
    assert line.mean["aupro"] == Figure(0.5, None, 1)
    assert line.mean["aupro"].text() == "0.500"
    assert line.apart["aupro"] is None


def test_a_rate_of_false_alarms_is_worst_where_it_is_highest():
    results = [result("lafite", name, false_alarm_rate=rate) for name, rate in (("a", 0.1), ("b", 0.3), ("c", 0.2))]
    assert lines(results, ["false_alarm_rate"])[0].worst["false_alarm_rate"] == ("b", 0.3)


def test_a_tuning_counts_once_whatever_its_categories():
    results = [
        result("lafite", category, seed, pseudo=tuning(0.9, correlation, price))
        for seed, correlation, price in ((0, 0.5, 0.01), (1, 0.9, 0.03))
        for category in ("a", "b", "c")
    ]
    (line,) = pseudo_lines(results)
    assert line["trials"] == 8
    assert line["correlation"] == pytest.approx((0.7, np.std([0.5, 0.9], ddof=1), 2))
    assert line["price"] == pytest.approx((0.02, np.std([0.01, 0.03], ddof=1), 2))


def test_what_the_choice_of_a_contender_costs():
    found = {"a": (0.95, 0.80), "b": (0.90, 0.86), "c": (0.85, 0.70), "d": (0.99, 0.60)}  # pseudo, test
    results = [
        result(name, "bolt", image_auroc=test + 0.1, aupro=test - 0.1, pseudo=tuning(score, saw=name == "d"))
        for name, (score, test) in found.items()
    ]
    (line,) = champion_lines(results)
    assert (line["chosen"], line["best"]) == ("a", "b")  # d was trained on made anomalies
    assert line["price"] == pytest.approx(0.06)
    assert line["correlation"] == pytest.approx(spearmanr(*zip(*found.values(), strict=True)).statistic)


def test_each_category_is_a_choice_where_each_has_a_model():
    own = {"models": "one a category"}
    results = [
        result(name, category, image_auroc=test, pseudo=tuning(score), model_id=f"{name}{category}", protocol=own)
        for name, category, score, test in (
            ("a", "x", 0.9, 0.9),
            ("b", "x", 0.8, 0.8),
            ("a", "y", 0.7, 0.6),
            ("b", "y", 0.6, 0.9),
        )
    ]
    prices = {line["category"]: (line["chosen"], line["price"]) for line in champion_lines(results)}
    assert prices == {"x": ("a", 0.0), "y": ("a", pytest.approx(0.3))}


def test_the_same_images_have_one_digest_wherever_they_lie(tmp_path):
    first = write_mvtec(tmp_path / "here", train=8, test=2)
    second = tmp_path / "there/deeper"
    shutil.copytree(first, second)

    def digest(root):
        images = find_images(str(root))
        return images_digest(images, roles(images), str(root))

    assert digest(first) == digest(second)
    (second / "bolt/train/good/000.png").unlink()
    assert digest(first) != digest(second)
    images = find_images(str(first))
    other = roles(images, seed=1)
    assert images_digest(images, other, str(first)) != digest(first)


@pytest.mark.parametrize("column", [table.ROI, table.BIT_DEPTH])
def test_what_moves_a_score_of_the_same_images_is_in_their_digest(tmp_path, column):
    images = find_images(str(write_mvtec(tmp_path, train=8, test=2)))
    given = roles(images)
    values = pa.array([str(tmp_path / "roi.png") if column == table.ROI else 12] * len(images))
    assert images_digest(images, given, str(tmp_path)) != images_digest(
        images.append_column(column, values), given, str(tmp_path)
    )


def spec_of(**changes) -> Spec:
    contender = {"method": "nearest_patch", "preset": "demo", **changes.pop("contender", {})}
    return Spec.parse({"data": {"a": "/a"}, "contenders": {"a": contender}, **changes})


def test_results_are_taken_only_if_all_that_they_come_from_is_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(cell.cluster, "gpus", lambda: 0)
    space, weights = tmp_path / "space.py", tmp_path / "w.safetensors"
    space.write_text("STAGES = []")
    weights.write_bytes(b"1")
    own = {"space": str(space), "settings": {"backbone": {"weights": str(weights)}}}

    def depends(images="images", seed=0, **changes):
        spec = spec_of(**changes)
        return cell._depends(spec, spec.contenders["a"], images, seed)

    kept = depends()
    assert depends() == kept
    others = [
        depends(images="others"),
        depends(seed=1),
        depends(per_category=True),
        depends(size=64),
        depends(false_alarm_rate=0.2),
        depends(pseudo_images=3),
        depends(contender={"preset": "small"}),
        depends(contender={"settings": {"bank_size": 7}}),
        depends(contender={"method": "lafite"}),
        depends(contender=own),
    ]
    space.write_text("STAGES = [1]")
    others.append(depends(contender=own))
    weights.write_bytes(b"12")
    others.append(depends(contender=own))
    monkeypatch.setattr(cell.cluster, "gpus", lambda: 1)
    others.append(depends())
    monkeypatch.setattr(cell, "versions", lambda: {"raydiff": "another source"})
    others.append(depends())
    assert len({kept, *others}) == len(others) + 1


def test_a_cell_of_other_images_is_refused_and_kept(tmp_path):
    run = RunFolder(str(tmp_path))
    cell._check_same_images(run, "one")
    cell._check_same_images(run, "one")
    with pytest.raises(DataError, match="was measured on other images of that data set; give another --out"):
        cell._check_same_images(run, "two")


def test_the_same_settings_in_two_stages_are_one_trial():
    def trial(score, test, **settings):
        return {"settings": settings, "fixed": {}, "pseudo_score": score, "test_score": test, "share": 1.0}

    first = {"trials": [trial(0.1, 0.1, a=1), trial(0.2, 0.3, a=2)], "chosen": {"a": 2}}
    second = {"trials": [trial(0.2, 0.3, a=2, b=1), trial(0.3, 0.2, a=2, b=2)], "chosen": {"a": 2, "b": 1}}
    third = {"trials": [trial(0.2, 0.3, a=2), trial(0.4, 0.4, a=3)], "chosen": {"a": 2}}
    told = {"stages": [first, second, third], "saw_made_anomalies": False, "pseudo_score": 0.2, "oracle_price": 0.1}
    found = cell._pseudo(told)
    assert found["trials"] == 5  # the third stage's first is the second stage's first
    scores = [(0.1, 0.1), (0.2, 0.3), (0.2, 0.3), (0.3, 0.2), (0.4, 0.4)]
    assert found["rank_correlation"] == pytest.approx(spearmanr(*zip(*scores, strict=True)).statistic)


def test_protocols_that_differ_say_in_what():
    same, other = protocol(), protocol(evaluation_size=256, seed=1)
    assert same.digest != other.digest
    assert protocol().digest == same.digest
    assert differences([same.model_dump(), other.model_dump(), same.model_dump()]) == {"evaluation_size": [None, 256]}
    results = [
        result("ours", "bolt", image_auroc=0.9),
        result("theirs", "bolt", image_auroc=0.8, protocol={"evaluation_size": 256}),
    ]
    (table,) = tables.accuracy(results)
    assert "The protocols differ in evaluation_size (ours: null; theirs: 256)." in table.note
    assert "differ" not in tables.accuracy(results[:1])[0].note


def test_statistics_of_known_images():
    flat = np.full((10, 20, 3), 7, np.uint8)
    assert trivial.statistics(flat, 400) == (7, 0, 0, 2)
    stripes = np.zeros((4, 6, 3), np.uint8)
    stripes[:, ::2] = 100  # each step across is 100, none down
    assert trivial.statistics(stripes, 24) == (50, 50, 100, 1)


def test_trivial_statistics_are_scored_as_distances_from_normals(tmp_path):
    """Defects are brighter: the mean grey tells them, as scikit-learn says."""
    rng = np.random.default_rng(0)
    grey: dict[str, list[float]] = {}
    for place, count, light in (("train/good", 12, 100), ("test/good", 8, 100), ("test/bright", 8, 104)):
        folder = tmp_path / "bolt" / place
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(rng.normal(light, 1) + rng.normal(0, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
            grey.setdefault(place, []).append(float(pixels.mean()))
    images = find_images(str(tmp_path))
    given = roles(images)
    found = trivial.results(images, given)
    fit = [row for row, role in zip(images["uri"].to_pylist(), given, strict=True) if role == "fit"]
    fitted = np.array([grey["train/good"][int(uri.rpartition("/")[2].split(".")[0])] for uri in fit])
    labels = [0] * 8 + [1] * 8
    distances = np.abs(np.array(grey["test/good"] + grey["test/bright"]) - fitted.mean()) / fitted.std()
    assert set(found) == set(trivial.STATISTICS)
    assert found["mean grey"]["bolt"]["image_auroc"] == pytest.approx(roc_auc_score(labels, distances), abs=1e-6)
    assert found["mean grey"]["bolt"]["image_ap"] == pytest.approx(average_precision_score(labels, distances), abs=1e-6)
    assert found["mean grey"]["bolt"]["image_auroc"] > found["contrast"]["bolt"]["image_auroc"]


def test_unreadable_images_and_single_classes_count_for_nothing(tmp_path):
    write_mvtec(tmp_path, train=8, test=2, categories=("bolt",))
    images = find_images(str(tmp_path))
    before = trivial.results(images, roles(images))
    (tmp_path / "bolt/test/good/000.png").write_bytes(b"no image")
    one_less = trivial.results(images, roles(images))
    assert before["contrast"]["bolt"]["image_auroc"] is not None
    (tmp_path / "bolt/test/good/001.png").write_bytes(b"no image")
    none = trivial.results(images, roles(images))
    assert one_less.keys() == none.keys() == before.keys()
    assert none["contrast"]["bolt"] == {"image_auroc": None, "image_ap": None, "image_f1_max": None}


def test_what_is_written_is_read_by_others(tmp_path):
    results = [
        result("a|b", category, seed, image_auroc=0.5 + 0.1 * seed, aupro=0.25, pseudo=tuning(0.9, 0.5, 0.01))
        for category in ("bolt", "<b>")
        for seed in (0, 1)
    ]
    written = suite.write(results, tables.accuracy(results), "a <b> title", str(tmp_path), "accuracy")
    rows = storage.read_bytes(written.results)
    assert rows[:4] == b"PAR1"
    markdown = storage.read_bytes(written.markdown).decode()
    assert "| a\\|b | 0.550 ± 0.071 |" in markdown
    assert "## mvtec: worst category, and deviation between categories" in markdown
    page = storage.read_bytes(written.page).decode()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page.partition("<main>")[2]


def test_a_specification_names_contenders_as_their_methods(tmp_path):
    place = tmp_path / "spec.yaml"
    place.write_text(
        "data: {bolts: /data/bolts, nuts: {uri: /data/nuts, normal: [OK], part_from: 'nut(?P<part>.)'}}\n"
        "contenders: {nearest_patch: {settings: {bank_size: 9}, preset: demo}, again: {method: lafite, preset: demo}}\n"
        "seeds: [0, 7]\n"
    )
    spec = Spec.read(str(place))
    assert spec.data["bolts"].uri == "/data/bolts"
    assert spec.data["nuts"].options()["named"].normal == ("OK",)
    assert {name: each.method for name, each in spec.contenders.items()} == {
        "nearest_patch": "nearest_patch",
        "again": "lafite",
    }
    assert spec.contenders["nearest_patch"].recipe().bank_size == 9


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("- a\n", DataError, r"is no specification; expected data: and contenders:"),
        ("data: {: :}\n  x", DataError, r"is not YAML"),
        ("data: {}\ncontenders: {lafite: }\n", SettingsError, r"Spec\.data: "),
        ("data: {a: b}\ncontenders: {nonesuch: }\n", SettingsError, r"no method 'nonesuch'"),
        ("data: {a/b: b}\ncontenders: {lafite: {preset: demo}}\n", DataError, r"'a/b' becomes the name of a folder"),
        (
            "data: {a: b}\ncontenders: {lafite: {present: demo}}\n",
            SettingsError,
            r"did you mean .*\.preset",
        ),
        ("data: {a: b}\ncontenders: {lafite: }\nseeds: [1, 1]\n", SettingsError, r"names one twice"),
        ("data: {a: {uri: b, part_from: '('}}\ncontenders: {lafite: }\n", SettingsError, r"data a: "),
    ],
)
def test_a_specification_that_cannot_be_measured_is_refused(tmp_path, text, kind, said):
    place = tmp_path / "spec.yaml"
    place.write_text(text)
    with pytest.raises(kind, match=said):
        Spec.read(str(place))
