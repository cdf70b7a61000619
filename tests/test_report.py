"""The report: what it says, that it stands alone, and that a browser shows it."""

from __future__ import annotations

import html
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pyarrow as pa
import pytest
from made_archive import calibration, score_rows, with_images, write_archive
from PIL import Image
from scipy.stats import beta
from sklearn import metrics as reference

from raydiff import storage
from raydiff.errors import DataError, SettingsError
from raydiff.evaluation.evaluate import Evaluation
from raydiff.images.overlay import OPACITY, layer, map_scale, overlay
from raydiff.model.calibration import Calibration
from raydiff.report import facts, figures, gallery, runs, training
from raydiff.report.archive import write_archive_report
from raydiff.report.pictures import outline
from raydiff.report.report import ReportEntry, write_report
from raydiff.scoring import table as score_table
from raydiff.scoring.maps import write_map

SIDE = 72
CATEGORIES = ("cup", "gear")
HOSTILE = "<script>alert('x')</script>"
RANKING_METRICS = (
    "image_auroc",
    "image_ap",
    "image_f1_max",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1_max",
    "aupro",
)

Make = Callable[..., ReportEntry]


def _png(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG")
    return sink.getvalue()


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes one scored run on disk: images, masks, maps, score table, evaluation, tuning, model.json."""
    rng = np.random.default_rng(3)
    yy, xx = np.mgrid[:SIDE, :SIDE]
    samples = []
    for category in CATEGORIES:
        for number in range(24):
            label = [0, 1, None][0 if number < 12 else 1 if number < 20 else 2]
            blob = (yy - 20 - number) ** 2 + (xx - 50 + number) ** 2 < 40
            pixels = (150 + 40 * np.sin(xx / (5 if category == "cup" else 9)))[..., None] + rng.normal(
                0, 6, (SIDE, SIDE, 3)
            )
            pixels[blob] -= 90 if label == 1 else 0
            stem = tmp_path / "data" / category / f"{number:03d}"
            storage.write_bytes(f"{stem}.png", _png(pixels.clip(0, 255).astype(np.uint8)))
            if label == 1:
                storage.write_bytes(f"{stem}_mask.png", _png(blob.astype(np.uint8) * 255))
            samples.append((category, str(stem), label, blob))

    def run(
        name: str,
        method: str = "lafite",
        auroc: tuple[float, float] = (0.96, 0.90),
        pseudo: float = 0.93,
        maps: str = "tiff",
        normals: int = 137,
        edit: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> ReportEntry:
        home = tmp_path / re.sub(r"\W", "_", name)
        noise = np.random.default_rng(len(name))
        rows = []
        for category, stem, label, blob in samples:
            score = float(noise.normal(3.0 if label == 1 else 1.0, 0.7))
            map_uri = f"{home}/maps/{category}/{Path(stem).name}.{maps}"
            heat = noise.normal(1.0, 0.2, (SIDE, SIDE)) + score * blob * (label == 1)
            if maps == "tiff":
                write_map(map_uri, heat.astype(np.float32))
            elif maps == "png":
                storage.write_bytes(map_uri, _png((heat * 60).clip(0, 255).astype(np.uint8)))
            rows.append(
                {
                    "uri": f"{stem}.png",
                    "dataset": "made",
                    "category": category,
                    "split": "test",
                    "label": label,
                    "defect": {0: "good", 1: "stain", None: None}[label],
                    "mask_uri": f"{stem}_mask.png" if label == 1 else None,
                    "height": SIDE,
                    "width": SIDE,
                    "content_hash": "0" * 64,
                    "score": score,
                    "p_value": 1 / (1 + 50 * max(score, 0)),
                    "threshold": 2.2,
                    "is_anomalous": score > 2.2,
                    "map_uri": map_uri if maps != "none" else None,
                    "method": method,
                    "model_id": "abcdef0123456789",
                    "error": None,
                }
            )
        if edit:
            edit(rows)
        for part in range(2):
            table = pa.Table.from_pylist(rows[part::2][::-1], schema=score_table.SCHEMA)
            score_table.write(score_table.part_uri(f"{home}/scores", f"{part}"), table)
        storage.write_json(f"{home}/evaluation.json", _evaluation(method, auroc))
        storage.write_json(f"{home}/tune.json", _tuning(method, pseudo))
        storage.write_json(f"{home}/model/model.json", _model(method, normals))
        return ReportEntry(
            name=name,
            scores_uri=f"{home}/scores",
            evaluation_uri=f"{home}/evaluation.json",
            model_uri=f"{home}/model",
            tuning_uri=f"{home}/tune.json",
        )

    return run


def _evaluation(method: str, auroc: tuple[float, float]) -> dict[str, Any]:
    def numbers(value: float) -> dict[str, Any]:
        return dict.fromkeys(RANKING_METRICS, value) | {"false_alarm_rate": 0.083, "recall": 0.75}

    categories = {
        category: numbers(value)
        | {"images": 20, "anomalous": 8, "maps": 20, "defects": {"stain": {"images": 8, "image_auroc": value}}}
        for category, value in zip(CATEGORIES, auroc, strict=True)
    }
    mean, worst = numbers(sum(auroc) / 2), numbers(min(auroc))
    found = {
        "method": method,
        "model_id": "abcdef0123456789",
        "scores_uri": "scores",
        "size": None,
        "pixel_metrics": "exact",
        "images": 40,
        "errors": 0,
        "categories": categories,
        "mean": mean,
        "worst": {name: {"category": "gear", "value": value} for name, value in worst.items()},
    }
    return Evaluation.model_validate(found).model_dump(mode="json")


def _tuning(method: str, pseudo: float) -> dict[str, Any]:
    def stage(key: str, trials: list[tuple[Any, float, float]], chosen: Any, fixed: dict[str, Any]) -> dict[str, Any]:
        made = [
            {"settings": {key: value}, "fixed": fixed, "pseudo_score": auroc, "test_score": test, "seconds": 4.0}
            for value, auroc, test in trials
        ]
        made[0] |= {"share": 0.25, "test_score": None} if len(made) > 3 else {}
        return {"name": key, "trials": made, "chosen": {key: chosen}}

    steps = [(100, -0.2, 0.71), (300, -0.06, 0.83), (500, -0.01, 0.9), (700, -0.04, 0.91)]
    stages = [
        stage("corruption_steps", [([n], pseudo + x, t) for n, x, t in steps], [500], {"feature_editing": False}),
        stage("neighbours", [(k, pseudo - 0.01 * (k != 4), 0.9) for k in (1, 4, 8)], 4, {}),
    ]
    return {
        "method": method,
        "metric": "image_auroc",
        "model_id": "abcdef0123456789",
        "pseudo_images": {category: [30, 41] for category in CATEGORIES},
        "saw_made_anomalies": False,
        "pseudo_score": pseudo,
        "stages": stages,
        "rank_correlation": {"corruption_steps": 0.8, "neighbours": None},
        "chosen": {"corruption_steps": [500], "neighbours": 4},
    }


def _calibration(normals: dict[str, int], shared: tuple[str, ...] = ()) -> Calibration:
    scores = {category: [0.5 + 1.7 * i / count for i in range(count)] for category, count in normals.items()}
    return Calibration.fit(scores, 0.01, shared)


def _model(method: str, normals: int) -> dict[str, Any]:
    return {
        "method": method,
        "settings": {"train": {"grid": 16, "learning_rate": 3e-4}, "score": {"corruption_steps": [500]}},
        "calibration": _calibration(dict.fromkeys(CATEGORIES, normals)).model_dump(mode="json"),
        "card": {"seed": 7, "versions": {"torch": "2.15.0"}, "training_minutes": 12.5, "licence": "apache-2.0"},
        "id": "abcdef0123456789",
    }


def _text(uri: str) -> str:
    """The report as its reader sees it: no tags, entities resolved, single spaces."""
    page = storage.read_bytes(uri).decode()
    body = page[page.index("<body") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [
            value or "" for key, value in attrs if key in {"src", "href", "srcset", "data", "action", "poster"}
        ]


def test_report_tells_the_key_facts(make: Make, tmp_path: Path) -> None:
    entries = [make("lafite", pseudo=0.931), make("reference", "nearest_patch", (0.91, 0.88), pseudo=0.902)]
    uri = write_report(f"{tmp_path}/out", entries, title="Line 4, June", champion="lafite")
    assert uri == f"{tmp_path}/out/report.html"
    text = _text(uri)
    for fact in (
        "Line 4, June",
        "Champion: lafite",
        "It was chosen by pseudo-validation: mean of image AUROC and AUPRO 0.931 on held-out normal images",
        "against reference 0.902",
        "which took no part in the choice, its mean image AUROC is 0.930, the best of all",
        "gear 20 images, 8 anomalous",
        "0.960",
        "8.3 %",
        "60 normal and 82 made-anomalous images",
        "corruption steps : 4 settings, 1 of them stopped early, in 16 s, all with feature_editing = false ;",
        "chosen corruption_steps = [500]",
        "Rank correlation with the test set: 0.80 (shown only, not used)",
        "Promises at most 1 % false alarms on images like the 137 held-out normal images it was set from.",
        "versions.torch 2.15.0",
        "learning_rate 0.0003",
        "None: every image has a score.",
    ):
        assert fact in text, fact


def test_report_is_one_file_that_asks_for_nothing(make: Make, tmp_path: Path) -> None:
    page = storage.read_bytes(write_report(f"{tmp_path}/out", [make("lafite")])).decode()
    links = _Links()
    links.feed(page)
    assert len(links.targets) > 20
    assert all(target.startswith(("data:image/", "#")) for target in links.targets)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(links.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert not re.search(r"https?://", page)
    assert "default-src 'none'" in page
    assert len(page) < 4_000_000


def test_hostile_text_is_escaped(make: Make, tmp_path: Path) -> None:
    def poison(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["category"] = f"$\\frac{{{HOSTILE}_图"
            row["defect"] = HOSTILE
            row["uri"] += HOSTILE
        rows[0] |= {"score": None, "error": HOSTILE, "is_anomalous": None}

    entry = make(f"_$x^{{{HOSTILE}图", edit=poison)
    page = storage.read_bytes(write_report(f"{tmp_path}/out", [entry], title=HOSTILE, champion=entry.name)).decode()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 10


def test_the_reference_is_said_to_win_exactly_where_it_does(make: Make, tmp_path: Path) -> None:
    ours = make("lafite", "lafite", (0.96, 0.90)).changed(tuning_uri=None)
    weak = make("nn", "nearest_patch", (0.91, 0.89)).changed(tuning_uri=None)
    text = _text(write_report(f"{tmp_path}/a", [ours, weak]))
    assert "lafite beats the non-diffusion reference nn in mean image AUROC: 0.930 against 0.900." in text
    assert "By category: lafite beats nn on cup (0.960 against 0.910) and gear (0.900 against 0.890)." in text
    assert "nn beats" not in text

    strong = make("nn", "nearest_patch", (0.99, 0.89)).changed(tuning_uri=None)
    text = _text(write_report(f"{tmp_path}/b", [ours, strong]))
    assert "The non-diffusion reference nn beats lafite in mean image AUROC: 0.940 against 0.930." in text
    assert (
        "By category: nn beats lafite on cup (0.990 against 0.960); lafite beats nn on gear (0.900 against 0.890)."
        in text
    )
    assert "lafite beats the non-diffusion reference" not in text


def test_equal_numbers_are_not_a_win() -> None:
    same = [_bare("nn", "nearest_patch", (0.9, 0.9)), _bare("lafite", "lafite", (0.9001, 0.8999))]
    assert facts.verdicts(same)[0] == facts.Verdict(
        lost=True,
        mean="lafite only equals the non-diffusion reference nn in mean image AUROC: 0.900 against 0.900.",
        categories="By category: they are equal on cup (0.900) and gear (0.900).",
    )


def test_without_both_kinds_of_method_there_is_no_verdict(make: Make, tmp_path: Path) -> None:
    text = _text(write_report(f"{tmp_path}/out", [make("lafite").changed(tuning_uri=None)]))
    assert "nearest_patch, the non-diffusion reference, was not run" in text
    assert "no diffusion method is here to compare" in facts.no_verdict([_bare("nn", "nearest_patch")])
    unlabelled = [_bare("nn", "nearest_patch", evaluation=None), _bare("lafite")]
    assert facts.verdicts(unlabelled) == []
    assert "Nothing was evaluated on labelled images for both" in facts.no_verdict(unlabelled)


def test_alarms_of_made_anomalies_are_told_where_some_were_made() -> None:
    model = {"card": {"made_anomalies": {"nut": {"made": 40, "alarms": 3}}}}
    assert facts.made_alarms(model, "nut") == " Of 40 made anomalies 3 raise an alarm."
    assert (
        facts.made_alarms(model, "bolt")
        == facts.made_alarms({"card": {}}, "nut")
        == facts.made_alarms(None, "nut")
        == ""
    )


def test_a_champion_that_pseudo_validation_did_not_prefer_is_not_dressed_up() -> None:
    a = _bare("a", auroc=(0.8, 0.8), tuning=_tuning("lafite", 0.9))
    b = _bare("b", auroc=(0.96, 0.9), tuning=_tuning("lafite", 0.95))
    untuned = _bare("c", "nearest_patch", auroc=(0.7, 0.7))
    doubtful, tested = facts.champion_reason([a, b], "a")
    assert doubtful.startswith("It does not have the best pseudo-validation score (0.900, against b 0.950)")
    assert tested.endswith("took no part in the choice, its mean image AUROC is 0.800, while b has 0.930.")
    assert facts.champion_reason([a, b, untuned], "b")[1:] == [
        "No pseudo-validation of c was given to this report.",
        "On the labelled test set, which took no part in the choice, its mean image AUROC is 0.930, the best of all.",
    ]
    assert facts.champion_reason([untuned], "c") == [
        "It was chosen by pseudo-validation, whose numbers were not given to this report."
    ]
    assert facts.champion_reason([a, untuned], "a")[0] == (
        "Its pseudo-validation score is 0.900; no other candidate's was given to this report."
    )


def test_a_model_that_was_passed_over_is_named() -> None:
    a = _bare("a", auroc=(0.8, 0.8), tuning=_tuning("lafite", 0.9))
    b = _bare(
        "b", "diffusion_ad", auroc=(0.7, 0.7), tuning=_tuning("diffusion_ad", 0.95) | {"saw_made_anomalies": True}
    )
    alone, passed, _ = facts.champion_reason([a, b], "a")
    assert alone == "Its pseudo-validation score is 0.900; it is the only one of its kind."
    assert passed == (
        "b has a higher score there, 0.950, but was trained on made anomalies, so it says less of defects."
    )


def test_a_threshold_that_promises_nothing_warns(make: Make, tmp_path: Path) -> None:
    text = _text(write_report(f"{tmp_path}/out", [make("lafite", normals=40).changed(tuning_uri=None)]))
    assert (
        "Warning: 1 % false alarms cannot be promised from 40 held-out normal images; "
        "2.44 % is the lowest they allow." in text
    )
    assert "Promises" not in text


def test_each_threshold_promises_what_it_can_and_no_more() -> None:
    def said(normals: dict[str, int], shared: tuple[str, ...] = ()) -> tuple[str, bool]:
        calibration = _calibration(normals, shared)
        return facts.calibration_sentence(calibration, "cup"), facts.promised(calibration, "cup")

    promise = "Promises at most 1 % false alarms on images like the"
    assert said({"cup": 99}) == (f"{promise} 99 held-out normal images it was set from.", True)
    sentence, promised = said({"cup": 98})
    assert sentence.startswith("Warning: 1 % false alarms cannot be promised from 98 held-out normal images;")
    assert sentence.endswith("1.01 % is the lowest they allow.")
    assert not promised
    sentence, promised = said({"cup": 20, "gear": 100})
    assert sentence.startswith("Promises at most 1 % false alarms if its normal scores, told by their own mean and")
    assert sentence.endswith(
        "as those of the 120 held-out normal images of all categories do; its own 20 are too few to promise it alone."
    )
    assert not promised
    sentence, promised = said({"cup": 99}, shared=("cup",))
    assert sentence.endswith("Tuning saw the same images, so the rate may come out somewhat higher.")
    assert not promised


def test_only_scores_are_needed(make: Make, tmp_path: Path) -> None:
    def unlabelled(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row |= {"label": None, "defect": None, "mask_uri": None, "threshold": None, "p_value": None}
            row["is_anomalous"] = None

    entry = ReportEntry(name="archive", scores_uri=make("archive", maps="none", edit=unlabelled).scores_uri)
    text = _text(write_report(f"{tmp_path}/x/y.html", [entry]))
    assert "Highest unlabelled" in text
    assert "no anomaly map was written" in text
    assert "Not calibrated" in text
    assert "Worst misses" not in text
    assert "Borderline" not in text


def test_what_a_method_tells_of_its_images_is_shown_by_category(make: Make, tmp_path: Path) -> None:
    def tell(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["category"] == "cup":
                row["details"] = [("chosen_step", 400.0 if row["label"] == 1 else 200.0)]
        rows[0]["details"] = None

    entry = make("glad", edit=tell)
    loaded = runs.load(entry)
    told = loaded.details["chosen_step"]
    assert np.isnan(told).sum() == 25
    assert set(told[(loaded.label == 1) & ~np.isnan(told)]) == {400.0}
    page = storage.read_bytes(write_report(f"{tmp_path}/out", [entry, make("lafite")])).decode()
    assert page.count('alt="chosen step, cup, glad"') == 1
    assert page.count('alt="chosen step') == 1


def test_missing_and_broken_pictures_are_told_not_fatal(make: Make, tmp_path: Path) -> None:
    entry = make("lafite")

    def tiles() -> list[gallery.Tile]:
        return [tile for group in gallery.groups(runs.load(entry)) for tile in group.tiles]

    assert len(tiles()) == 4 * gallery.PER_GROUP
    assert all(tile.image and tile.heat and not tile.problem for tile in tiles())
    for path in (tmp_path / "data").rglob("*_mask.png"):
        path.write_bytes(b"no image")
    misses = [tile for tile in tiles() if tile.defect == "stain"]
    assert all(tile.image and tile.heat and tile.problem for tile in misses)  # the heat map is there all the same
    for path in (tmp_path / "lafite" / "maps").rglob("*.tiff"):
        path.write_bytes(b"no map")
    assert all(tile.image and not tile.heat and "anomaly map" in str(tile.problem) for tile in tiles())
    for path in (tmp_path / "data").rglob("*.png"):
        path.unlink()
    assert all(not tile.image and not tile.heat and "is not there" in str(tile.problem) for tile in tiles())
    assert "is not there" in _text(write_report(f"{tmp_path}/out", [entry]))


def test_heat_maps_that_were_written_as_pictures_are_shown(make: Make) -> None:
    found = gallery.groups(runs.load(make("lafite", maps="png")))
    assert all(tile.heat and tile.heat != tile.image and not tile.problem for group in found for tile in group.tiles)


def test_only_the_test_split_is_reported(make: Make, tmp_path: Path) -> None:
    def half(rows: list[dict[str, Any]]) -> None:
        for row in rows[:24]:
            row["split"] = "train"

    loaded = runs.load(make("a", edit=half))
    assert len(loaded.score) == 24
    assert loaded.categories == ["gear"]

    def none(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["split"] = "train"

    with pytest.raises(DataError, match="no image whose split is 'test'"):
        runs.load(make("b", edit=none))


def test_rows_of_several_parts_keep_their_category(make: Make) -> None:
    def rename(rows: list[dict[str, Any]]) -> None:
        rows[1]["category"] = "a first in its own part"
        for row in rows:
            row["defect"] = row["category"]

    loaded = runs.load(make("a", edit=rename))
    assert loaded.categories == ["a first in its own part", "cup", "gear"]
    of_row = [loaded.categories[place] for place in loaded.category]
    assert of_row == loaded.table["defect"].to_pylist()


def test_errors_are_listed_up_to_a_bound(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(rows: list[dict[str, Any]]) -> None:
        for number, row in enumerate(rows[:7]):
            row |= {
                "score": None,
                "p_value": None,
                "is_anomalous": None,
                "error": f"cut short at byte {number}",
            }

    monkeypatch.setattr("raydiff.report.report.MAX_ERRORS", 5)
    text = _text(write_report(f"{tmp_path}/out", [make(name, edit=spoil).changed(tuning_uri=None) for name in "ab"]))
    assert "a: 7, b: 7. The first 5:" in text
    assert len(re.findall(r"cut short at byte \d a, b", text)) == text.count("cut short") == 5


def test_more_categories_than_plots_are_counted(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydiff.report.report.MAX_CATEGORIES", 1)
    page = storage.read_bytes(write_report(f"{tmp_path}/out", [make("a").changed(tuning_uri=None)])).decode()
    assert "Drawn: the 1 categories with the most images, 1 of 2 are left out." in page
    assert page.count('alt="ROC curves') == 1


@pytest.mark.parametrize(
    ("names", "champion", "words"),
    [([], None, "at least one"), (["a", "a"], None, "name of its own"), (["a"], "b", "none of the entries")],
)
def test_bad_entries_are_refused(names: list[str], champion: str | None, words: str, tmp_path: Path) -> None:
    entries = [ReportEntry(name=name, scores_uri=str(tmp_path)) for name in names]
    with pytest.raises(SettingsError, match=words):
        write_report(str(tmp_path), entries, champion=champion)


def _bare(name: str, method: str = "lafite", auroc: tuple[float, float] = (0.9, 0.9), **columns: Any) -> runs.Run:
    count = len(columns.get("score", [0.0]))
    nothing = np.full(count, np.nan)
    values: dict[str, Any] = {
        "held_out": False,
        "model_uri": None,
        "table": None,
        "categories": list(CATEGORIES),
        "category": np.zeros(count, dtype=np.intp),
        "label": np.zeros(count, dtype=np.int8),
        "score": nothing,
        "threshold": nothing,
        "alarm": np.zeros(count, dtype=bool),
        "details": {},
        "evaluation": _evaluation(method, auroc),
        "tuning": None,
        "model": None,
        "calibration": None,
    }
    return runs.Run(name=name, method=method, model_id="x", scores_uri="s", **(values | columns))


def test_gallery_picks_the_worst_and_the_nearest() -> None:
    score = np.array([1.0, 2.0, 3.0, 9.0, 4.5, 1.5, 8.0, np.nan, 5.2])
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1, -1], dtype=np.int8)
    run = _bare("a", score=score, label=label, threshold=np.full(9, 5.0))
    picked = {title: rows for title, _, rows in gallery.pick(run, gallery.distances(run), 2)}
    assert picked == {
        "Worst misses": [5, 4],
        "Worst false alarms": [3, 2],
        "Highest unlabelled": [8],
        "Borderline": [1, 6],  # 2.0 and 8.0 are as near as the nearest that no other group shows
    }


def test_distances_make_categories_of_unlike_scale_comparable() -> None:
    score = np.array([1.0, 2.0, 3.0, 6.0, 100.0, 200.0, 300.0, 600.0])
    run = _bare(
        "a",
        score=score,
        category=np.repeat([0, 1], 4),
        label=np.array([0, 0, 0, 1] * 2, dtype=np.int8),
        threshold=np.repeat([4.0, 400.0], 4),
    )
    expected = [-3.0, -2.0, -1.0, 2.0]  # the normal scores' quartiles lie 1 (100) apart
    np.testing.assert_allclose(gallery.distances(run), expected * 2)


def test_roc_agrees_with_scikit_learn_ties_included() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400).astype(np.int8)
    scores = np.round(labels + rng.normal(0, 1, 400), 1)
    curve = figures.roc_curve("a", scores, labels, scores > 1)
    assert curve is not None
    false, caught, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(curve.false_alarm_rate, false)
    np.testing.assert_allclose(curve.recall, caught)
    assert curve.area == pytest.approx(reference.roc_auc_score(labels, scores))
    assert curve.alarm == (float((scores > 1)[labels == 0].mean()), float((scores > 1)[labels == 1].mean()))
    assert figures.roc_curve("a", scores, np.zeros(400, dtype=np.int8), None) is None


@pytest.mark.parametrize(
    "settings",
    [
        [{"corruption_steps": [250]}],
        [{"corruption_steps": [250]}, {"corruption_steps": [500]}],
        [{"corruption_steps": [250, 500]}, {"corruption_steps": [250]}],
        [{"k": 1, "steps": 5}, {"k": 2, "steps": 5}, {"k": 2, "steps": 1}],
        [{"k": k, "weights": "equal" if k % 2 else "near"} for k in range(1, 30)],
        [{"feature_editing": True}, {"feature_editing": False}],
    ],
)
def test_any_kind_of_tuned_setting_can_be_plotted(settings: list[dict[str, Any]]) -> None:
    trials = [{"settings": each, "pseudo_score": 0.9 - 0.01 * i, "test_score": None} for i, each in enumerate(settings)]
    trials.append({"settings": settings[0], "pseudo_score": None, "test_score": None})
    stage = {"name": "any", "trials": trials, "chosen": settings[-1]}
    assert figures.chosen_trial(stage, trials) == len(settings) - 1
    assert figures.tuning_plot(stage).startswith(b"\x89PNG")


def test_overlay_keeps_what_is_normal_and_heats_what_is_not() -> None:
    image = np.full((4, 6, 3), 120, dtype=np.uint8)
    heat = np.full((4, 6), 0.9, dtype=np.float32)
    heat[0, 0], heat[0, 1], heat[0, 2], heat[1, 1] = 2.0, 50.0, 1.5, np.nan
    laid = overlay(image, heat, 1.0, 2.0)
    assert laid.dtype == np.uint8
    assert laid.shape == image.shape
    assert (laid[2:] == 120).all()
    assert (laid[1, 1] == 120).all()
    assert (laid[0, 0] == laid[0, 1]).all()  # full heat is full heat
    full, half = (np.abs(laid[0, i].astype(int) - 120).max() for i in (0, 2))
    assert full > half > 20
    assert (image == 120).all()
    with pytest.raises(DataError, match="resize the map"):
        overlay(image, heat[:2], 1.0, 2.0)


def test_a_layer_laid_over_its_image_is_the_overlay() -> None:
    heat = np.linspace(-1.0, 4.0, 400, dtype=np.float32).reshape(20, 20)
    heat[3, 3] = np.nan
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    seen = np.asarray(Image.open(io.BytesIO(layer(heat, 0.5, 3.0))).convert("RGBA"), dtype=float)
    share = OPACITY * seen[..., 3:] / 255
    np.testing.assert_allclose(share * seen[..., :3] + (1 - share) * image, overlay(image, heat, 0.5, 3.0), atol=3)
    assert (seen[..., 3][(heat <= 0.5) | np.isnan(heat)] == 0).all()
    assert (seen[..., 3][heat >= 3] == 255).all()


def test_overlay_of_a_scale_without_width_is_all_or_nothing() -> None:
    image = np.full((1, 2, 3), 50, dtype=np.uint8)
    laid = overlay(image, np.array([[1.0, 1.1]], dtype=np.float32), 1.0, 1.0)
    assert (laid[0, 0] == 50).all()
    assert (laid[0, 1] != 50).any()


def test_map_scale_leaves_normal_maps_mostly_clear() -> None:
    rng = np.random.default_rng(1)
    maps = [rng.normal(5, 1, (300, 200)).astype(np.float32) for _ in range(4)]
    low, high = map_scale(maps)
    pixels = np.concatenate([each.ravel() for each in maps])
    assert (pixels <= low).mean() == pytest.approx(0.9, abs=0.01)
    assert (pixels <= (low + high) / 2).mean() == pytest.approx(0.999, abs=0.001)
    with pytest.raises(DataError, match="at least one"):
        map_scale([])
    with pytest.raises(DataError, match="at least one"):
        map_scale([np.full((3, 3), np.nan, dtype=np.float32)])


def test_outline_surrounds_the_defect_even_a_tiny_one() -> None:
    image = np.full((40, 60, 3), 100, dtype=np.uint8)
    mask = np.zeros((400, 600), dtype=bool)
    mask[205, 305] = True
    drawn = outline(image, mask)
    assert (drawn[20, 30] == 100).all()
    assert (drawn == 255).all(axis=2).sum() >= 8
    changed = np.argwhere((drawn != 100).any(axis=2))
    np.testing.assert_array_equal(np.abs(changed - [20, 30]).max(axis=0), [3, 3])


def _held_out(make: Make, name: str, method: str = "lafite") -> ReportEntry:
    """A run that has no images to test on: the normals that calibrated it, scored before there was a threshold."""

    def edit(rows: list[dict[str, Any]]) -> None:
        rows[:] = [
            row | {"split": "train", "p_value": None, "threshold": None, "is_anomalous": None, "mask_uri": None}
            for row in rows
            if row["label"] == 0
        ]

    entry = make(name, method, maps="none", edit=edit)
    return entry.model_copy(update={"held_out": True, "evaluation_uri": None})


def test_a_run_without_test_images_shows_its_held_out_normals(make: Make, tmp_path: Path) -> None:
    entries = [_held_out(make, "lafite"), _held_out(make, "nearest_patch", "nearest_patch")]
    uri = write_report(f"{tmp_path}/out", entries, champion="lafite")
    words = _text(uri)
    assert "There are no images to test on" in words
    assert "gallery of lafite and nearest_patch show held-out normal images" in words
    for entry in entries:
        command = f"python jobs/score_archive.py --model {entry.model_uri} --data ARCHIVE --out SCORES"
        assert command in words
    assert "AUROC and AUPRO 0.930 on held-out" in words  # pseudo-validation stays
    assert "Promises at most 1 % false alarms" in words
    assert "Highest held-out" in words
    for absent in ("Results on the labelled test set", "Worst misses", "Worst false alarms", "Measured on labelled"):
        assert absent not in words
    (run, _) = map(runs.load, entries)
    assert len(run.score) == 24  # 12 normal images in each of two categories
    expected = {name: run.calibration.of(name).threshold for name in run.categories}
    for category, threshold in expected.items():
        assert set(run.threshold[run.rows(category)]) == {threshold}
    np.testing.assert_array_equal(run.alarm, run.score > run.threshold)


def test_masks_that_cannot_be_used_are_listed(make: Make, tmp_path: Path) -> None:
    entries = [make("lafite"), make("nearest_patch", "nearest_patch")]
    for entry in entries:
        assert entry.evaluation_uri
        found = storage.read_json(entry.evaluation_uri)
        named = [{"uri": f"/d/<{n}>_mask.png", "category": "cup", "reason": "the mask is all black"} for n in range(2)]
        storage.write_json(entry.evaluation_uri, found | {"unusable_masks": 3, "unusable": named})
    words = _text(write_report(f"{tmp_path}/out", entries))
    assert "Left out of the pixel metrics, because their masks cannot be used: 3 anomalous images, of which" in words
    assert words.count("the mask is all black") == 2
    assert "/d/<1>_mask.png" in words


# Training, promises and methods beside each other


def _with_card(entry: ReportEntry, **card: Any) -> ReportEntry:
    assert entry.model_uri
    model = storage.read_json(f"{entry.model_uri}/model.json")
    storage.write_json(f"{entry.model_uri}/model.json", model | {"card": model["card"] | card})
    return entry


def test_loss_curves_are_drawn_for_what_takes_gradient_steps(make: Make, tmp_path: Path) -> None:
    curve = [[10 * n, 2.0 / n] for n in range(1, 101)]
    entries = [
        _with_card(make("lafite"), loss_curve=curve),
        _with_card(make("nn", "nearest_patch"), loss_curve=[]),
        _with_card(make("broken"), loss_curve=[[1, 0.5], [2, float("nan")], [3, 0.25]]),
    ]
    found = training.loss_curves([runs.load(entry) for entry in entries])
    assert [(each["name"], each["steps"], each["first"], each["last"]) for each in found] == [
        ("lafite", 1000, 2.0, 0.02),
        ("broken", 3, 0.5, 0.25),
    ]
    points = re.findall(r"([ML]) ([\d.]+) ([\d.]+)", max(re.findall(r'd="(M[^"]*)"', found[0]["plot"]), key=len))
    assert len(points) == 100
    heights = np.array([float(y) for _, _, y in points])
    expected = -np.log([loss for _, loss in curve])  # downwards, on a logarithmic axis
    np.testing.assert_allclose(
        (heights - heights[0]) / (heights[-1] - heights[0]),
        (expected - expected[0]) / (expected[-1] - expected[0]),
        atol=0.01,
    )
    uri = write_report(f"{tmp_path}/out", entries)
    text = _text(uri)
    assert "lafite : from 2 to 0.02 in 1,000 steps." in text
    assert "loss_curve [" not in text
    assert len(storage.read_bytes(uri).decode()) < 4_000_000


def test_observed_false_alarms_stand_beside_the_promised_with_their_interval(make: Make, tmp_path: Path) -> None:
    def alarm(rows: list[dict[str, Any]]) -> None:
        normal = [row for row in rows if row["category"] == "gear" and row["label"] == 0]
        for place, row in enumerate(normal):
            row["is_anomalous"] = place < 5

    entry = make("lafite", edit=alarm)
    found = training.false_alarms([runs.load(entry)])
    assert found
    by_category = {row["category"]: row for row in found["rows"]}
    rows = score_table.read(entry.scores_uri).to_pandas().query("label == 0")
    for name in ("cup", "gear", None):
        mine = rows if name is None else rows[rows.category == name]
        row = by_category[name]
        alarms, images = int(mine.is_anomalous.astype(bool).sum()), len(mine)
        assert (row["alarms"], row["images"], row["rate"], row["promised"]) == (alarms, images, 0.01, True)
        low = beta.ppf(0.025, alarms, images - alarms + 1) if alarms else 0.0
        assert (row["low"], row["high"]) == pytest.approx((low, beta.ppf(0.975, alarms + 1, images - alarms)))
        assert row["verdict"] == ("more" if low > 0.01 else "agrees")
    assert by_category["gear"]["verdict"] == "more"
    text = _text(write_report(f"{tmp_path}/out", [entry]))
    assert "lafite gear 1 % 42 % 5 of 12 15 % to 72 % more than asked for" in text
    assert training.false_alarms([runs.load(_held_out(make, "held"))]) is None


def test_the_maps_of_all_methods_are_shown_of_the_same_images(make: Make, tmp_path: Path) -> None:
    def half(rows: list[dict[str, Any]]) -> None:
        for row in rows[::2]:
            row["map_uri"] = None

    entries = [make("lafite"), make("none", maps="none"), make("nn", "nearest_patch", edit=half), make("p", maps="png")]
    loaded = [runs.load(entry) for entry in entries]
    found = training.compared(loaded)
    assert found
    assert [number for number, _ in found["runs"]] == [0, 2, 3]
    tables = [run.table.to_pandas().set_index("uri") for _, run in found["runs"]]
    assert len(found["rows"]) == training.COMPARED
    for row in found["rows"]:
        assert row["image"]
        assert len({cell["heat"] for cell in row["cells"]}) == 3
        for cell, rows in zip(row["cells"], tables, strict=True):
            assert rows.map_uri[row["uri"]] is not None
            assert cell["score"] == rows.score[row["uri"]]
            assert cell["alarm"] == rows.is_anomalous[row["uri"]]
    kinds = Counter((row["category"], row["label"]) for row in found["rows"])
    assert {kind for kind, _ in kinds} == set(CATEGORIES)
    assert {label for _, label in kinds} == {"stain", "normal"}
    assert [row["uri"] for row in training.compared(loaded)["rows"]] == [row["uri"] for row in found["rows"]]
    assert training.compared(loaded[:2]) is None
    page = storage.read_bytes(write_report(f"{tmp_path}/out", entries)).decode()
    table = page[page.index('<table class="compared">') :]
    assert table[: table.index("</table>")].count("<img ") == training.COMPARED * 4


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Tab]:
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["tested", "held out", "archive"])
def test_a_browser_shows_every_picture(make: Make, tmp_path: Path, kind: str, tab: browser.Tab) -> None:
    if kind == "archive":
        calibrated = calibration(("bolt", "cloth"))
        rows = with_images(tmp_path, score_rows(60, calibrated, days=5))
        uri = write_archive_report(write_archive(tmp_path / "scores", rows, calibrated, maps="tiff"))
    elif kind == "tested":
        second = make("nearest_patch", "nearest_patch", (0.91, 0.88))
        uri = write_report(f"{tmp_path}/out", [_with_card(make("lafite"), loss_curve=[[1, 1.0], [2, 0.5]]), second])
    else:
        uri = write_report(f"{tmp_path}/out", [_held_out(make, "lafite")])
    page = storage.read_bytes(uri).decode()
    tab.errors.clear()
    for width, scheme in ((390, "dark"), (1200, "light")):
        tab.size(width, 900, phone=width < 600)
        tab.scheme(scheme)
        tab.open(f"file://{uri}")
        tab.wait(f"location.href.endsWith({uri[-20:]!r}) && document.readyState === 'complete'")
        shown = tab.ask("[...document.images].map(picture => picture.naturalWidth)")
        assert len(shown) == page.count("<img ")
        assert all(shown)
        assert tab.ask("document.documentElement.scrollWidth") <= width  # nothing is wider than the window
        drawn = tab.ask("[...document.querySelectorAll('figure svg')].map(svg => svg.getBBox().width)")
        assert len(drawn) == page.count("<svg")
        assert all(width > 100 for width in drawn)
    assert tab.errors == []
    picture = tmp_path / "report.png"
    tab.photograph(picture)
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert pixels.shape == (900, 1200, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100  # plots and text, not an empty page
