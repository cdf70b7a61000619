"""The report of a scored archive: its numbers against pandas and scipy on the table itself, its size, its words."""

from __future__ import annotations

import html
import re
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from made_archive import RATE, calibration, description, score_rows, with_images, write_archive
from scipy.stats import ks_2samp

from raydiff import cli, storage
from raydiff.errors import DataError
from raydiff.images.table import PART
from raydiff.model.description import DESCRIPTION
from raydiff.report import archive_counts, archive_parts
from raydiff.report.archive import write_archive_report
from raydiff.report.archive_counts import ArchiveCounts, ScoreCounts
from raydiff.report.archive_figures import BARS, bars
from raydiff.report.periods import MOST, Periods
from raydiff.scoring import table
from raydiff.scoring.columns import OTHERS
from raydiff.scoring.summary import ArchiveSummary, reason, summarise

NAMES = ("bolt", "cloth", "nut")
CALIBRATION = calibration(NAMES, normals=150)
ROWS = score_rows(6000, CALIBRATION, drift_from=18)


@pytest.fixture(scope="module")
def scores(tmp_path_factory) -> str:
    """An archive of 6,000 rows without images; its report is written."""
    uri = write_archive(tmp_path_factory.mktemp("scores"), ROWS, CALIBRATION)
    write_archive_report(uri)
    return uri


def counted(rows: pa.Table, calibrated=CALIBRATION, drift_of=NAMES) -> ArchiveCounts:
    """What the report's one reading of these rows finds, in two parts."""
    days = [str(day) for day in rows["day"].drop_null().to_pylist()]
    errors: dict[str, int] = {}
    for uri, error in zip(rows["uri"].to_pylist(), rows["error"].to_pylist(), strict=True):
        if error:
            found = reason(error, uri)
            errors[found] = errors.get(found, 0) + 1
    summary = ArchiveSummary(images=len(rows), errors=errors, alarms=0, repeated=0, days=[], drift=[])
    counts = ArchiveCounts(summary, calibrated, Periods(days) if days else None)
    for part in (rows.slice(0, len(rows) // 3), rows.slice(len(rows) // 3)):
        counts.add(part, drift_of)
    return counts


def frame(rows: pa.Table) -> pd.DataFrame:
    return rows.select(["uri", "category", "day", "score", "threshold", "is_anomalous", "error"]).to_pandas()


def text_of(uri: str) -> str:
    """The page as its reader sees it: no style, no figures, no tags, single spaces."""
    page = storage.read_bytes(f"{uri}/report.html").decode()
    body = re.sub(r"<svg.*?</svg>", " ", page[page.index("<body") :], flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_the_tables_are_what_the_rows_say(scores):
    text = text_of(scores)
    found = frame(ROWS)
    good = found[found.error.isna()]
    alarms = int(good.is_anomalous.sum())
    share = 100 * alarms / len(good)
    assert f"6,000 images {alarms} alarms, {share:.2g} % of the scored {6000 - len(good)} could not be scored" in text
    assert f"at most 1 % raise an alarm; of these images {share:.2g} % did." in text
    for name, mine in found.groupby("category"):
        scored = mine[mine.error.isna()]
        count = int(scored.is_anomalous.sum())
        normals = CALIBRATION.categories[name].scores
        far = ks_2samp(scored.score, normals, method="asymp").statistic
        line = f"{name} {len(mine):,} {count} {100 * count / len(scored):.2g} % {len(mine) - len(scored)} {far:.2f}"
        assert line in text, line
        assert f"{count} alarms in {len(scored):,} images." in text
        assert f"Distance from the calibration's 150 normal images {far:.3f}, p " in text
    for day, mine in found.groupby("day"):
        scored = mine[mine.error.isna()]
        count = int(scored.is_anomalous.sum())
        assert f"{day} {len(mine)} {count} {100 * count / len(scored):.2g} % {len(mine) - len(scored)}" in text
    assert "Scores of bolt have left the calibration's" in text
    assert re.findall(r"(\w+) [\d,]+ scored images, alarm above", text) == [
        "bolt",
        *sorted(NAMES[1:], key=found.category.value_counts().get, reverse=True),
    ]
    assert "nearest_patch" in text
    assert "begun 2026-04-01 08:30 UTC" in text
    assert description(CALIBRATION)["id"] in text
    assert "neighbours 4" in text
    assert f"false alarms promised {RATE:.0%}".replace("%", " %") in text


def test_errors_are_told_by_reason_with_examples(scores):
    text = text_of(scores)
    bad = frame(ROWS).dropna(subset="error")
    by_reason = bad.groupby([reason(error, uri) for error, uri in zip(bad.error, bad.uri, strict=True)])
    assert by_reason.ngroups == 3
    for found, rows in by_reason:
        assert f"{found} {len(rows)} {' '.join(rows.uri[:3])}" in text
    assert sum(uri in text for uri in bad.uri) <= 3 * by_reason.ngroups + 24  # those, and what a gallery may show


@pytest.mark.parametrize("name", NAMES)
def test_the_bars_of_a_distribution_hold_all_scores_and_alarms_lie_right_of_the_threshold(name):
    counts = counted(ROWS).scores[name]
    mine = frame(ROWS).query("category == @name").score.dropna()
    normals = pd.Series(CALIBRATION.categories[name].scores)
    threshold = CALIBRATION.of(name).threshold
    found = bars(counts)
    assert counts.threshold == threshold
    assert threshold in found.edges
    assert 10 <= len(found.images) <= BARS + 3
    right = found.edges[:-1] >= threshold
    assert found.images[right].sum() == pytest.approx((mine > threshold).mean(), abs=1e-12)
    assert found.normals[right].sum() == pytest.approx((normals > threshold).mean(), abs=1e-12)
    beyond = [-np.inf, *found.edges[1:-1], np.inf]
    for heights, values in ((found.images, mine), (found.normals, normals)):
        expected = pd.cut(values, beyond).value_counts(sort=False, normalize=True)
        np.testing.assert_allclose(heights, expected, atol=1e-12)
    for curve, values in ((found.cumulated, mine), (found.cumulated_normals, normals)):
        np.testing.assert_allclose(curve, [(values <= edge).mean() for edge in found.edges], atol=1e-12)
    for values in (mine, normals):
        assert values.between(found.edges[0], found.edges[-1]).mean() > 0.99


def test_scores_far_beyond_any_bin_are_in_the_last_bar():
    used = CALIBRATION.of("bolt")
    counts = ScoreCounts.calibrated(used)
    values = np.array([-1e9, -5.0, 0.0, used.threshold, np.nextafter(used.threshold, 9), 1e300, 1e300, 1e300])
    counts.add(values)
    found = bars(counts)
    assert found.images.sum() == pytest.approx(1)
    assert found.images[found.edges[:-1] >= used.threshold].sum() == 4 / 8
    assert found.images[-1] == 3 / 8


def test_alike_normal_scores_make_bars_too():
    same = calibration(("bolt",)).of("bolt").changed(scores=(2.0,) * 30)
    counts = ScoreCounts.calibrated(same)
    counts.add(np.array([2.0, 2.0, 3.0]))
    assert bars(counts).images.sum() == pytest.approx(1)


def test_drift_by_day_is_scipys_distance():
    counts = counted(ROWS, drift_of=("bolt", "nut"))
    assert counts.drift("cloth") == []
    found = frame(ROWS)
    days = sorted(found.day.unique())
    for name in ("bolt", "nut"):
        told = counts.drift(name)
        assert [number for number, _ in told] == list(range(28))
        for number, drift in told:
            mine = found[(found.category == name) & (found.day == days[number])].score.dropna()
            expected = ks_2samp(mine, CALIBRATION.categories[name].scores, method="asymp")
            assert drift.distance == pytest.approx(expected.statistic, abs=1e-12)
            assert drift.images == len(mine)
    drifted = {number for number, drift in counts.drift("bolt") if drift.drifted}
    assert len(drifted & set(range(18, 28))) > 5
    assert not drifted & set(range(18))


def test_of_many_normals_quantiles_stand_for_them():
    many = calibration(NAMES, normals=3000)
    rows = score_rows(9000, many, days=2)
    found = frame(rows).query("category == 'cloth'").dropna(subset="score")
    for number, drift in counted(rows, many).drift("cloth"):
        mine = found[found.day == sorted(found.day.unique())[number]].score
        expected = ks_2samp(mine, many.categories["cloth"].scores, method="asymp").statistic
        assert drift.normals == archive_counts.NORMALS
        assert drift.distance == pytest.approx(expected, abs=1.5 / archive_counts.NORMALS)


def test_the_gallery_shows_the_highest_the_nearest_and_some_without_an_alarm():
    found = frame(ROWS)
    middle = found.category.map({name: CALIBRATION.categories[name].scores[75] for name in NAMES})  # of 150
    found["far"] = (found.score - found.threshold) / (found.threshold - middle)
    highest, borderline, normal = ([row["uri"] for row in rows] for rows in counted(ROWS).gallery())
    assert highest == found.nlargest(8, "far").uri.tolist()
    assert borderline == found.loc[found.far.abs().nsmallest(8).index].uri.tolist()
    assert len({*highest, *borderline, *normal}) == 24
    of_normal = found.set_index("uri").loc[normal]
    assert not of_normal.is_anomalous.any()
    assert of_normal.category.nunique() > 1
    again = [[row["uri"] for row in rows] for rows in counted(ROWS).gallery()]
    assert again == [highest, borderline, normal]


def test_random_images_are_drawn_alike_from_all_of_the_table_and_raise_no_alarm():
    drawn = []
    for seed in range(20):
        counts = counted(ROWS.slice(0, 0))
        counts._random = np.random.default_rng(seed)
        for start in range(0, len(ROWS), 2000):
            counts.add(ROWS.slice(start, 2000), ())
        drawn += [row["uri"] for row in counts.gallery()[2]]
    assert len(drawn) == 160
    thirds = pd.Series([3 * place // len(ROWS) for place in pd.Index(ROWS["uri"].to_pylist()).get_indexer(drawn)])
    assert thirds.value_counts().between(29, 78).all()  # 53 each; four standard deviations
    assert not frame(ROWS).set_index("uri").is_anomalous[drawn].any()


def test_images_are_counted_with_the_category_that_the_model_took_them_for():
    guessed = ["cloth" if place % 5 == 0 else None for place in range(len(ROWS))]
    place = ROWS.column_names.index("category_guessed")
    rows = ROWS.set_column(place, "category_guessed", pa.array(guessed, pa.string()))
    unknown = [name if number % 3 else "line 9" for number, name in enumerate(rows["category"].to_pylist())]
    rows = rows.set_column(rows.column_names.index("category"), "category", pa.array(unknown))
    counts = counted(rows)
    found = frame(rows).assign(category=pd.Series(guessed).fillna(pd.Series(unknown))).dropna(subset="score")
    expected = found.category.replace("line 9", OTHERS).value_counts()
    assert {name: each.images for name, each in counts.scores.items()} == expected.to_dict()
    assert counts.scores[OTHERS].threshold == CALIBRATION.all.threshold


@pytest.mark.parametrize(
    ("days", "step", "unit", "frequency"),
    [(100, 1, "day", "D"), (101, 1, "week", "W-SUN"), (300, 7, "month", "M"), (200, 60, "year", "Y")],
)
def test_days_become_as_few_periods_as_a_figure_can_show(days, step, unit, frequency):
    dates = pd.date_range("2024-02-27", periods=days, freq=f"{step}D")
    periods = Periods([str(day.date()) for day in dates])
    expected = dates.to_period(frequency).start_time.unique()
    assert periods.unit == unit
    assert [str(day) for day in periods.starts] == [str(day.date()) for day in expected]
    assert len(periods.starts) <= MOST
    column = pa.chunked_array([[*dates.date, None]], pa.date32())
    numbers = periods.numbers(column)
    assert numbers[-1] == -1
    assert [expected[number] for number in numbers[:-1]] == dates.to_period(frequency).start_time.tolist()
    assert [periods.number(str(day.date())) for day in dates] == numbers[:-1].tolist()


def test_the_page_of_many_rows_is_small_and_asks_for_nothing(tmp_path):
    rows = score_rows(100_000, CALIBRATION, days=400)
    uri = write_archive(tmp_path, rows, CALIBRATION)
    page = storage.read_bytes(write_archive_report(uri)).decode()
    assert len(page) < 400_000
    assert "By the month in which" in page or "By the week in which" in page
    assert not re.search(r"https?://|url\(|@import|<script|<link", page)
    assert "default-src 'none'" in page
    assert page.count("<svg") == page.count("</svg>") == 4 + 2 * 3


def test_pictures_that_cannot_be_read_say_why(tmp_path):
    rows = with_images(tmp_path, ROWS.slice(0, 60))
    uri = write_archive(tmp_path / "scores", rows, CALIBRATION, maps="tiff")
    page = storage.read_bytes(write_archive_report(uri)).decode()
    assert page.count('alt="image"') == page.count('alt="anomaly map and true defect"') == 24
    for place in (tmp_path / "maps").iterdir():
        place.write_bytes(b"no map")
    page = storage.read_bytes(write_archive_report(uri)).decode()
    assert page.count('alt="image"') == 24
    assert page.count("is not a readable anomaly map") == 24
    for place in (tmp_path / "images").iterdir():
        place.unlink()
    page = storage.read_bytes(write_archive_report(uri)).decode()
    assert 'alt="image"' not in page
    assert page.count("is not there") >= 24


def test_parts_alarms_are_named_with_those_that_have_no_verdict(tmp_path):
    names = [None if number % 11 == 0 else f"serial {number // 2}" for number in range(1200)]
    rows = ROWS.slice(0, 1200).append_column(PART, pa.array(names, pa.string()))
    uri = write_archive(tmp_path, rows, CALIBRATION)
    write_archive_report(uri)
    text = text_of(uri)
    parts = pd.read_parquet(f"{uri}/parts")
    verdicts = parts.is_anomalous.astype("boolean")
    for name, mine in parts.groupby("category"):
        told = verdicts[mine.index]
        assert f"{name} {len(mine)} {int(told.sum())} {int(told.isna().sum())}" in text
    alarmed = parts[verdicts.fillna(False)]
    assert 0 < len(alarmed) <= archive_parts.ALARMS
    for row in alarmed.itertuples():
        label = row.part if isinstance(row.part, str) else "(unknown)"
        assert f"{label} {row.category} {row.views} {row.score:.4g} {row.corrected_p_value:.3g} {row.uri}" in text
    without = parts[parts.error.notna()]
    assert f"the first {min(5, len(without))}" in text
    assert without.error.iloc[0] in text


def test_an_archive_without_calibration_days_or_labels_is_reported(tmp_path):
    rows = ROWS.slice(0, 400)
    for name in ("threshold", "p_value", "is_anomalous", "day"):
        place = rows.column_names.index(name)
        rows = rows.set_column(place, name, pa.nulls(len(rows), table.SCHEMA.field(name).type))
    uri = write_archive(tmp_path, rows, None)
    write_archive_report(uri)
    text = text_of(uri)
    assert "The model is not calibrated: there are no alarms" in text
    assert "Borderline" not in text
    assert "false alarms promised not calibrated" in text
    assert "Not calibrated: no alarm threshold, no promise." in text


def test_what_came_from_outside_is_escaped(tmp_path):
    hostile = "<script>alert('x')</script>"
    rows = ROWS.slice(0, 300)
    for name in ("category", "uri"):
        values = [f"{value}{hostile}{number % 2}$_^" for number, value in enumerate(rows[name].to_pylist())]
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values))
    uri = write_archive(tmp_path, rows, CALIBRATION, note=hostile)
    page = storage.read_bytes(write_archive_report(uri, title=hostile)).decode()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 30


def test_nothing_scored_is_said(tmp_path):
    rows = ROWS.filter(ROWS["error"].is_valid())
    uri = write_archive(tmp_path, rows, CALIBRATION)
    write_archive_report(uri)
    assert "No image was scored." in text_of(uri)


@pytest.mark.parametrize("missing", [table.SUMMARY, DESCRIPTION, table.RUN])
def test_what_is_missing_is_named(tmp_path, missing):
    uri = write_archive(tmp_path, ROWS.slice(0, 50), CALIBRATION)
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=rf"holds no {missing} of a scored archive; run jobs/score_archive.py again"):
        write_archive_report(uri)


def test_a_summary_of_before_is_refused(tmp_path):
    uri = write_archive(tmp_path, ROWS.slice(0, 50), CALIBRATION)
    table.write(table.part_uri(uri, "000009"), ROWS.slice(50, 20))
    with pytest.raises(DataError, match=r"summary.json is of 50 images and the score table has 70"):
        write_archive_report(uri)
    summary = summarise(uri, CALIBRATION)
    storage.write_json(f"{uri}/{table.SUMMARY}", summary.model_dump(mode="json"))
    assert write_archive_report(uri) == f"{uri}/report.html"


def test_the_command_reports_a_run_or_an_archive(tmp_path, monkeypatch, capsys):
    uri = write_archive(tmp_path, ROWS.slice(0, 50), CALIBRATION)
    monkeypatch.setattr(sys, "argv", ["raydiff", "report", "--scores", uri])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.endswith(f"report: {uri}/report.html\n")
    for given in ([], ["--scores", uri, "--out", uri]):
        monkeypatch.setattr(sys, "argv", ["raydiff", "report", *given])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 1
        assert "give either --out, a run's folder, or --scores" in capsys.readouterr().err
