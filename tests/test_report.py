"""A run's report: what it says, that it stands alone, and what is refused."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_run import Make, held_out, maker, text_of

from raydiff import storage
from raydiff.errors import DataError, SettingsError
from raydiff.report import runs
from raydiff.report.report import ReportEntry, write_report

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


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
    text = text_of(uri)
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


def test_only_scores_are_needed(make: Make, tmp_path: Path) -> None:
    def unlabelled(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row |= {"label": None, "defect": None, "mask_uri": None, "threshold": None, "p_value": None}
            row["is_anomalous"] = None

    entry = ReportEntry(name="archive", scores_uri=make("archive", maps="none", edit=unlabelled).scores_uri)
    text = text_of(write_report(f"{tmp_path}/x/y.html", [entry]))
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
    text = text_of(write_report(f"{tmp_path}/out", [make(name, edit=spoil).changed(tuning_uri=None) for name in "ab"]))
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


def test_a_run_without_test_images_shows_its_held_out_normals(make: Make, tmp_path: Path) -> None:
    entries = [held_out(make, "lafite"), held_out(make, "nearest_patch", "nearest_patch")]
    uri = write_report(f"{tmp_path}/out", entries, champion="lafite")
    words = text_of(uri)
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
    words = text_of(write_report(f"{tmp_path}/out", entries))
    assert "Left out of the pixel metrics, because their masks cannot be used: 3 anomalous images, of which" in words
    assert words.count("the mask is all black") == 2
    assert "/d/<1>_mask.png" in words
