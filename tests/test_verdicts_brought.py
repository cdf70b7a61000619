"""Verdicts from files: tables and COCO as the labelling tools write it; what is left out is counted and named."""

import gzip
import json
import random
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_archive import calibration, score_rows, write_archive
from typer.testing import CliRunner

from raydiff import cli
from raydiff.errors import DataError, SettingsError
from raydiff.verdicts import table
from raydiff.verdicts.bring import bring
from raydiff.verdicts.coco import spellings
from raydiff.verdicts.names import Meant, images_of
from raydiff.verdicts.words import Words

PLAIN = Words({})


@pytest.fixture(scope="module")
def rows():
    return score_rows(60, calibration(("bolt", "cloth")))


@pytest.fixture
def out(tmp_path, rows):
    return write_archive(tmp_path / "scores", rows, None)


def written(tmp_path, text, name="judged.csv"):
    place = tmp_path / name
    place.write_text(text if isinstance(text, str) else json.dumps(text))
    return str(place)


def left(brought):
    return {each.why: (each.rows, each.first) for each in brought.left_out}


def judged(out):
    return {row["uri"]: row for row in table.newest(table.read(out)).to_pylist()}


# Tables


def test_a_csv_is_added_and_what_cannot_be_is_named(tmp_path, out, rows):
    uris = rows["uri"].to_pylist()
    text = f"""uri,Verdict,region,note,when
{uris[0]},normal,,"a reflection, fine",2026-05-07T10:15:00+02:00
{uris[1]},NG,"10, 20, 30.5, 40",,2026-05-07 10:15
file://{uris[2]},False-Alarm,,,
{uris[3].removeprefix("/archive/")},unsure,5 5 9 9,,
{uris[4]},scratch,,,
,normal,,,
/archive/june/x.png,normal,,,
png,normal,,,
{uris[5]},normal,9 9 5 5,,
{uris[6]},normal,,,yesterday
{uris[7]},normal,,,2999-01-01
{uris[8]},normal,,,
{uris[8]},defect,,,
{uris[8]},defect,,,2020-01-01
{uris[9]},,,,
"""
    before = datetime.now(UTC)
    found = bring(out, written(tmp_path, text), "anna", PLAIN)
    now = judged(out)
    assert (found.rows, found.added, found.images) == (15, {"normal": 2, "defect": 2, "unsure": 1}, 5)
    assert {uri: row["verdict"] for uri, row in now.items()} == dict(
        zip([*uris[:4], uris[8]], ["normal", "defect", "normal", "unsure", "defect"], strict=True)
    )
    assert now[uris[0]]["note"] == "a reflection, fine"
    assert now[uris[0]]["when"] == datetime(2026, 5, 7, 8, 15, tzinfo=UTC)
    assert now[uris[1]]["when"] == datetime(2026, 5, 7, 10, 15, tzinfo=UTC)
    assert [now[uri]["region"] for uri in uris[:4]] == [None, [10, 20, 30.5, 40], None, [5, 5, 9, 9]]
    assert before <= now[uris[2]]["when"] <= datetime.now(UTC)
    assert {row["who"] for row in now.values()} == {"anna"}
    assert left(found) == {
        "verdict 'scratch' is no word for normal, defect or unsure": (1, [f"row 5 (line 6): {uris[4]}"]),
        "name no image": (1, ["row 6 (line 7)"]),
        "name no image of the score table": (
            2,
            ["row 7 (line 8): /archive/june/x.png", "row 8 (line 9): png"],
        ),
        "the region is not x0,y0,x1,y1 with x0 < x1 and y0 < y1": (1, [f"row 9 (line 10): {uris[5]}"]),
        "the time is not as 2026-05-07T10:15:00+02:00": (1, [f"row 10 (line 11): {uris[6]}"]),
        "have a time that has not come yet": (1, [f"row 11 (line 12): {uris[7]}"]),
        "contradict another row of the file about the same image": (
            2,
            [f"row 12 (line 13): {uris[8]}", f"row 13 (line 14): {uris[8]}"],
        ),
        "no verdict": (1, [f"row 15 (line 16): {uris[9]}"]),
    }


def test_a_file_brought_twice_changes_nothing(tmp_path, out, rows):
    uris = rows["uri"].to_pylist()
    text = f"uri,verdict,when\n{uris[0]},normal,2026-05-07\n{uris[1]},defect,\n{uris[1]},defect,\n"
    first = bring(out, written(tmp_path, text), "anna", PLAIN)
    assert first.added == {"normal": 1, "defect": 1}
    again = bring(out, written(tmp_path, text), "anna", PLAIN)
    assert again.added == {}
    assert {each.why: each.rows for each in again.left_out} == {"are there already": 3}
    assert len(table.read(out)) == 2
    assert bring(out, written(tmp_path, text), "bob", PLAIN).added == {"normal": 1, "defect": 1}


def test_a_file_brought_again_does_not_take_back_what_others_said_meanwhile(tmp_path, out, rows):
    uri = rows["uri"][0].as_py()
    hers, his = (written(tmp_path, f"uri,verdict\n{uri},{said}\n", f"{said}.csv") for said in ("defect", "normal"))
    assert bring(out, hers, "anna", PLAIN).added == {"defect": 1}
    assert bring(out, his, "bob", PLAIN).added == {"normal": 1}
    again = bring(out, hers, "anna", PLAIN)
    assert ({each.why for each in again.left_out}, again.added) == ({"are there already"}, {})
    assert [(row["verdict"], row["who"]) for row in table.newest(table.read(out)).to_pylist()] == [("normal", "bob")]
    # Who judges anew says when; what else she says of the image is new, too.
    anew = written(tmp_path, f"uri,verdict,when,note\n{uri},defect,{datetime.now(UTC).isoformat()},\n", "anew.csv")
    assert bring(out, anew, "anna", PLAIN).added == {"defect": 1}
    noted = written(tmp_path, f"uri,verdict,note\n{uri},defect,a dent\n", "noted.csv")
    assert bring(out, noted, "anna", PLAIN).added == {"defect": 1}


def test_times_and_places_out_of_all_bounds_are_left_out(tmp_path, out, rows):
    uris, huge = rows["uri"].to_pylist(), 10**400
    whens = ("0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", None)
    given = [{"uri": uri, "verdict": "defect", "when": when} for uri, when in zip(uris, whens, strict=False)]
    given.append({"uri": uris[3], "verdict": "defect", "region": [0, 0, huge, huge]})
    lines = written(tmp_path, "\n".join(map(json.dumps, given)), "judged.jsonl")
    found = bring(out, lines, "anna", PLAIN)
    assert found.added == {"defect": 1}
    assert sorted(each.rows for each in found.left_out) == [1, 2]
    drawn = coco([uris[4], uris[5]], [(0, "dent", [0, 0, huge, 5]), (1, "dent", [0, 0, 5, 5])])
    found = bring(out, written(tmp_path, drawn, "drawn.json"), "anna", PLAIN)
    assert found.added == {"defect": 1}
    assert [each.why[:35] for each in found.left_out] == ["the bbox is not x, y, width, height"]


def test_parquet_and_json_lines_say_the_same_as_csv(tmp_path, rows):
    uris = rows["uri"].to_pylist()[:3]
    when = datetime(2026, 5, 7, 8, 15, tzinfo=UTC)
    given = [
        {"uri": uris[0], "verdict": "normal", "region": [1, 2, 3, 4], "note": None, "when": when},
        {"uri": uris[1], "verdict": "defect", "region": None, "note": "ä", "when": when + timedelta(days=1)},
        {"uri": uris[2], "verdict": "unsure", "region": None, "note": None, "when": when},
    ]
    pq.write_table(pa.Table.from_pylist(given), tmp_path / "judged.parquet")
    lines = "\n".join(json.dumps(each, default=str) for each in given)
    written(tmp_path, lines, "judged.jsonl")
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    cells = [[*list(each.values())[:2], " ".join(map(str, each["region"] or ())), each["note"] or ""] for each in given]
    csv = "\n".join(";".join([*each, str(when)]) for each, when in zip(cells, [g["when"] for g in given], strict=True))
    written(tmp_path, f"uri;verdict;region;note;when\n{csv}", "judged.csv")
    found = []
    for name in ("judged.parquet", "judged.jsonl", "packed.jsonl.gz", "judged.csv"):
        scores = write_archive(tmp_path / f"scores-{name}", rows, None)
        assert bring(scores, str(tmp_path / name), "anna", PLAIN).left_out == []
        found.append(table.read(scores).to_pylist())
    expected = [{**each, "who": "anna"} for each in given]
    assert [sorted(each, key=lambda row: row["uri"]) for each in found] == [
        sorted(expected, key=lambda r: r["uri"])
    ] * 4


def test_nanoseconds_are_left_off_and_the_file_brought_again_changes_nothing(tmp_path, out, rows):
    when = pa.array([1_778_148_000_123_456_789], pa.timestamp("ns"))
    judgements = pa.table({"uri": rows["uri"].slice(0, 1), "verdict": ["normal"], "when": when})
    pq.write_table(judgements, tmp_path / "judged.parquet")
    for added in ({"normal": 1}, {}):
        assert bring(out, str(tmp_path / "judged.parquet"), "anna", PLAIN).added == added
    (row,) = table.read(out).to_pylist()
    assert row["when"] == datetime(2026, 5, 7, 10, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("uri,label\n/a.png,0\n", "column 'verdict' is missing; verdicts need uri and verdict; found: uri, label"),
        ("image,verdict\n/a.png,normal\n", "column 'uri' is missing"),
        ("uri,verdict,Verdict\n/a.png,ok,ng\n", "columns 'verdict' and 'Verdict' are both 'verdict'"),
        ("uri,verdict\n/a.png,normal\n", r"no verdict that can be taken: 1 name no image of the score table \(row 1"),
        ("uri,verdict\n", "no verdict that can be taken: it has no rows"),
    ],
)
def test_a_file_of_which_nothing_can_be_taken_is_refused(tmp_path, out, text, message):
    with pytest.raises(DataError, match=message):
        bring(out, written(tmp_path, text), "anna", PLAIN)
    assert len(table.read(out)) == 0


def test_words_of_ones_own(tmp_path, out, rows):
    uris = rows["uri"].to_pylist()
    words = Words.parse(["Reflection,dust speck"], ["kratzer"], ["later", "ok"])
    text = f"uri,verdict\n{uris[0]},reflection\n{uris[1]},Dust_Speck\n{uris[2]},KRATZER\n{uris[3]},ok\n{uris[4]},io\n"
    bring(out, written(tmp_path, text), "anna", words)
    assert [judged(out)[uri]["verdict"] for uri in uris[:5]] == ["normal", "normal", "defect", "unsure", "normal"]
    with pytest.raises(SettingsError, match="Dust cannot be --normal and --unsure"):
        Words.parse(["dust"], None, ["Dust"])
    with pytest.raises(SettingsError, match="--defect ' ' is no word"):
        Words.parse(None, ["a, "], None)
    with pytest.raises(SettingsError, match="--who is empty"):
        bring(out, written(tmp_path, text), " ", words)


# Names


@pytest.mark.parametrize("seed", range(3))
def test_names_are_found_as_by_looking_at_every_uri(tmp_path, seed):
    rng = random.Random(seed)
    rows = score_rows(300, calibration(("bolt",)))
    folders = ["/archive", "/archive/a", "/archive/b", "/archive/a/b", "s3://plant/a"]
    uris = sorted({f"{rng.choice(folders)}/{rng.randrange(90)}.png" for _ in range(300)})
    rows = rows.slice(0, len(uris)).set_column(rows.column_names.index("uri"), "uri", pa.array(uris))
    out = write_archive(tmp_path / "scores", rows, None)
    names = {(rng.choice(uris).removeprefix(rng.choice(["/archive/", "/archive", ""])),) for _ in range(80)}
    names |= {(name[0].rpartition("/")[2],) for name in names} | {("none.png", uris[0]), ("1.pn",), ("",)}

    def by_hand(name):
        for each in name:
            if each in uris:
                return each, 1
            ends = [
                uri for uri in uris if uri.split("/")[-len(each.strip("/").split("/")) :] == each.strip("/").split("/")
            ]
            if ends:
                return (ends[0] if len(ends) == 1 else None), len(ends)
        return None, 0

    found = images_of(out, names)
    assert {name: tuple(meant) for name, meant in found.items()} == {name: by_hand(name) for name in names}
    assert Meant(None, 0) in found.values()
    assert any(meant.images > 1 for meant in found.values())


# COCO


def coco(images, annotations, first_category=1):
    """A document of `images` (file names) and `annotations` (image's place, category, bbox)."""
    names = sorted({name for _, name, _ in annotations})
    return {
        "info": {"year": 2026},
        "images": [{"id": at, "file_name": name, "width": 48, "height": 48} for at, name in enumerate(images)],
        "categories": [{"id": first_category + at, "name": name, "supercategory": ""} for at, name in enumerate(names)],
        "annotations": [
            {"id": at, "image_id": image, "category_id": first_category + names.index(name), "bbox": box, "iscrowd": 0}
            for at, (image, name, box) in enumerate(annotations)
        ],
    }


def exported(tool, uri):
    """What a tool calls an image in its export."""
    last = uri.rpartition("/")[2]
    return {
        "CVAT": uri.removeprefix("/archive/"),
        "FiftyOne": last,
        "FiftyOne with abs_paths": uri,
        "Label Studio, uploaded": f"images/0a1b2c3d-{last}",
        "Label Studio on Windows": f"images\\0a1b2c3d-{last}",
        "Label Studio, local storage": f"/data/local-files/?d={uri.removeprefix('/').replace('/', '%2F')}",
    }[tool]


TOOLS = ["CVAT", "FiftyOne", "FiftyOne with abs_paths", "Label Studio, uploaded", "Label Studio on Windows"]
TOOLS.append("Label Studio, local storage")


@pytest.mark.parametrize("tool", TOOLS)
def test_an_export_of_a_labelling_tool_is_added(tmp_path, out, rows, tool):
    uris = rows["uri"].to_pylist()[:6]
    labels = [
        (0, "scratch", [10, 20, 5.5, 6]),
        (0, "dent", [1, 1, 2, 2]),
        (0, "OK", [0, 0, 9, 9]),  # beside a defect
        (1, "ok", [3, 3, 1, 1]),
        (2, "unsure", []),  # no box
        (3, "normal", [0, 0, 4, 4]),
        (3, "unclear", [1, 1, 2, 2]),
        (4, "dent", [5, 5, 0, 5]),
    ]
    file = written(tmp_path, coco([exported(tool, uri) for uri in uris], labels, len(tool) % 2), "instances.json")
    found = bring(out, file, "anna", PLAIN)
    got = sorted((r["uri"], r["verdict"], r["region"], r["note"]) for r in table.read(out).to_pylist())
    assert got == sorted(
        [
            (uris[0], "defect", [10, 20, 15.5, 26], "scratch"),
            (uris[0], "defect", [1, 1, 3, 3], "dent"),
            (uris[1], "normal", [3, 3, 4, 4], "ok"),
            (uris[2], "unsure", None, "unsure"),
            (uris[3], "unsure", [1, 1, 3, 3], "unclear"),
        ]
    )
    assert (found.images, found.unannotated) == (4, 1)
    assert {each.why: each.rows for each in found.left_out} == {
        "the bbox is not x, y, width, height with a width and a height above 0": 1
    }
    assert {each.name: (each.labels, each.verdict) for each in found.labels} == {
        "scratch": (1, "defect"),
        "dent": (2, "defect"),
        "OK": (1, "normal"),
        "ok": (1, "normal"),
        "unsure": (1, "unsure"),
        "normal": (1, "normal"),
        "unclear": (1, "unsure"),
    }
    assert bring(out, file, "anna", PLAIN).added == {}
    normal = bring(out, file, "anna", PLAIN, "normal")
    assert normal.added == {"normal": 1}
    assert judged(out)[uris[5]]["verdict"] == "normal"


def test_labels_that_the_user_does_not_name_mean_nothing_once_defects_are_named(tmp_path, out, rows):
    uris = rows["uri"].to_pylist()
    file = written(tmp_path, coco(uris[:3], [(0, "bolt", [0, 0, 9, 9]), (0, "scratch", [1, 1, 2, 2]), (1, "bolt", [])]))
    found = bring(out, file, "anna", Words.parse(None, ["scratch"], None))
    assert {uri: row["verdict"] for uri, row in judged(out).items()} == {uris[0]: "defect"}
    assert left(found) == {"label 'bolt' is none of those given with --defect, --normal": (2, [uris[0], uris[1]])}


def test_a_damaged_coco_file_is_refused(tmp_path, out):
    document = coco(["a.png"], [(0, "dent", [0, 0, 1, 1])])
    document["annotations"][0]["image_id"] = 7
    with pytest.raises(DataError, match=r"is not as COCO has it \(at 7\)"):
        bring(out, written(tmp_path, document, "a.json"), "anna", PLAIN)
    with pytest.raises(DataError, match="row 1"):
        bring(out, written(tmp_path, json.dumps(document, indent=1)[:-20], "a.json"), "anna", PLAIN)


def test_what_is_no_tools_name_has_one_spelling():
    assert spellings("line4/0a1b2c3d.png") == ("line4/0a1b2c3d.png",)
    assert spellings("s3://plant/a\\b.png") == ("s3://plant/a\\b.png",)


# The command


def test_the_command_adds_and_shows(tmp_path, rows):
    contents = pa.array([f"{number // 2:064x}" for number in range(60)])
    rows = rows.set_column(rows.column_names.index("content_hash"), "content_hash", contents)
    scores = write_archive(tmp_path / "scores", rows, None)
    uris, categories = rows["uri"].to_pylist(), rows["category"].to_pylist()
    run = CliRunner()
    shown = run.invoke(cli.app, ["verdicts", "--scores", scores])
    assert "verdicts: 0 of 0 images" in shown.stdout
    file = written(tmp_path, f"uri,verdict\n{uris[0]},ok\n{uris[1]},ng\n{uris[2]},ok\n/x.png,ok\n")
    done = run.invoke(cli.app, ["verdicts", "--scores", scores, "--add", file, "--who", "anna"])
    assert done.exit_code == 0
    assert "3 of 4 verdicts are added (2 normal, 1 defect), of 3 images" in done.stdout
    assert "1 left out: name no image of the score table (row 4 (line 5): /x.png)" in done.stdout
    assert f"normal: {uris[0]}; defect: {uris[1]}" in done.stdout
    revised = written(tmp_path, f"uri,verdict\n{uris[2]},unsure\n")
    told = run.invoke(cli.app, ["verdicts", "--scores", scores, "--add", revised, "--who", "bob", "--json"])
    document = json.loads(told.stdout)
    assert document["added"]["added"] == {"unsure": 1}
    summary = document["verdicts"]
    expected = {name: {"normal": 0, "defect": 0, "unsure": 0} for name in sorted(set(categories[:3]))}
    for category, verdict in zip(categories[:3], ["normal", "defect", "unsure"], strict=True):
        expected[category][verdict] += 1
    assert summary["categories"] == expected
    assert (summary["rows"], summary["images"], summary["revised"], summary["missing"]) == (4, 3, 1, 0)
    assert summary["who"] == {"anna": 3, "bob": 1}
    assert summary["contradictions"] == 1
    assert summary["first"] == [{"content_hash": f"{0:064x}", "normal": [uris[0]], "defect": [uris[1]]}]


@pytest.mark.parametrize(
    ("more", "message"), [(["--add", "a.csv"], "--add needs --who"), (["--who", "anna"], "are for a file")]
)
def test_options_that_do_not_fit_together_are_refused(out, more, message):
    done = CliRunner().invoke(cli.app, ["verdicts", "--scores", out, *more])
    assert isinstance(done.exception, SettingsError)
    assert message in str(done.exception)
