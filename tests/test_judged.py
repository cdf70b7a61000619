"""Which judged images teach, calibrate or test, and which are left out and named."""

import threading
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import pack, packed_archive
from raydiff.images import table as image_table
from raydiff.learning import judged as judging
from raydiff.learning import reach
from raydiff.learning.judged import CALIBRATE, DEFECT, TEACH, TEACHING, image_rows, judged, side
from raydiff.scoring import table
from raydiff.verdicts import table as verdicts
from raydiff.verdicts.table import Verdict

BEGAN = datetime(2026, 5, 4, tzinfo=UTC)


def rows(names, **more):
    """Rows of a score table, one a name; its content is its name, unless `more` says so."""
    count = len(names)
    told = {
        "uri": [f"/data/{name}.png" for name in names],
        "dataset": ["line"] * count,
        "category": ["bolt"] * count,
        "split": ["test"] * count,
        "content_hash": list(names),
        "score": [float(place) for place in range(count)],
        "threshold": [1.5] * count,
        "is_anomalous": [place > 1 for place in range(count)],
        "method": ["nearest_patch"] * count,
        "model_id": ["abc"] * count,
        **more,
    }
    fields = {field.name: field.type for field in table.SCHEMA}
    found = {name: pa.array(told.get(name, [None] * count), kind) for name, kind in fields.items()}
    extra = {name: pa.array(values) for name, values in told.items() if name not in fields}
    return pa.table(found | extra)


def archive(folder, parts, said, when=BEGAN):
    """A score table of some parts, and verdicts beside it: (name, verdict) in the order of time."""
    for number, part in enumerate(parts):
        table.write(table.part_uri(str(folder), f"0001-{number:06d}-{len(part)}"), part)
    if said:
        told = [
            Verdict(f"/data/{name}.png", verdict, "anna", when + timedelta(minutes=minute))
            for minute, (name, verdict) in enumerate(said)
        ]
        verdicts.append(str(folder), verdicts.of(told))
    return str(folder)


def uses(found):
    return {
        storage.name(uri).removesuffix(".png"): use
        for uri, use in zip(found.rows["uri"].to_pylist(), found.rows["use"].to_pylist(), strict=True)
    }


def test_the_newest_verdict_says_what_an_image_is_for(tmp_path):
    names = [f"i{number}" for number in range(40)]
    said = [(name, "defect") for name in names[:20]] + [(name, "normal") for name in names]
    said += [(name, "unsure") for name in names[30:33]] + [(name, "defect") for name in names[33:35]]
    out = archive(tmp_path / "a", [rows(names[:25]), rows(names[25:])], said)
    found = judged([out])
    expected = {name: TEACH if side(name) < TEACHING else CALIBRATE for name in names}
    expected |= dict.fromkeys(names[33:35], DEFECT)
    for name in names[30:33]:
        del expected[name]
    assert uses(found) == expected
    assert {TEACH, CALIBRATE} <= set(expected.values())
    assert found.unsure == 3
    assert found.alarm_shares == {"bolt": (23 + 13) / 40}
    assert set(uses(judged([out], teaches=False)).values()) == {CALIBRATE, DEFECT}


def test_pictures_of_one_part_are_on_one_side(tmp_path):
    names = [f"i{number}" for number in range(60)]
    parts = [f"p{number // 3}" for number in range(60)]
    found = uses(judged([archive(tmp_path / "a", [rows(names, part=parts)], [(name, "normal") for name in names])]))
    sides = {part: {found[name] for name, mine in zip(names, parts, strict=True) if mine == part} for part in parts}
    assert all(len(each) == 1 for each in sides.values())
    assert set.union(*sides.values()) == {TEACH, CALIBRATE}
    assert sides["p7"] == {TEACH if side("bolt/p7") < TEACHING else CALIBRATE}


def test_what_contradicts_itself_counts_for_nothing_and_copies_count_once(tmp_path):
    part = rows(list("abcdef"), content_hash=["x", "x", "y", "y", "z", None])
    said = [("a", "normal"), ("b", "defect"), ("c", "defect"), ("d", "defect"), ("e", "defect"), ("f", "defect")]
    found = judged([archive(tmp_path / "a", [part], said)])
    assert uses(found) == dict.fromkeys("cef", DEFECT)
    assert found.repeated == 1
    (contradiction,) = found.contradictions
    assert (contradiction.normal, contradiction.defect) == (("/data/a.png",), ("/data/b.png",))


def test_what_has_no_score_or_no_row_is_counted(tmp_path):
    part = rows(["a", "b"], score=[1.0, None], error=[None, "cut short"])
    said = [("a", "defect"), ("b", "normal"), ("gone", "normal")]
    found = judged([archive(tmp_path / "a", [part], said)])
    assert (uses(found), found.unreadable, found.missing) == ({"a": DEFECT}, 1, 1)


def test_the_images_that_calibrate_already_do_nothing_else(tmp_path):
    out = archive(tmp_path / "a", [rows(["a", "b"])], [("a", "normal"), ("b", "defect")])
    found = judged([out], own=frozenset({"/data/a.png"}))
    assert (uses(found), found.missing, found.doubted) == ({"b": DEFECT}, 0, [])
    found = judged([out], own=frozenset({"/data/b.png", "/data/c.png"}))
    assert (set(uses(found)), found.doubted) == ({"a"}, ["/data/b.png"])


def test_several_archives_are_one_and_the_newest_verdict_of_any_counts(tmp_path):
    first = archive(tmp_path / "a", [rows(["a", "b"])], [("a", "normal"), ("b", "defect")])
    second = archive(tmp_path / "b", [rows(["a", "c"])], [("a", "defect"), ("c", "defect")], BEGAN + timedelta(days=1))
    found = judged([first, second])
    assert uses(found) == dict.fromkeys("abc", DEFECT)
    assert found.rows["archive"].to_pylist() == [first, first, second]
    assert uses(judged([second, first])) == uses(found)


def test_of_very_many_those_of_the_lowest_hash_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr(judging, "MOST", 3)
    names = [f"i{number}" for number in range(30)]
    found = judged([archive(tmp_path / "a", [rows(names)], [(name, "normal") for name in names])])
    for use in (TEACH, CALIBRATE):
        own = [name for name in names if (side(name) < TEACHING) == (use == TEACH)]
        assert {name for name, mine in uses(found).items() if mine == use} == set(sorted(own, key=side)[:3])
    assert found.left == 24


def test_nothing_to_learn_from_is_refused(tmp_path):
    with pytest.raises(DataError, match="there are no verdicts; add some with `raydiff verdicts --add`"):
        judged([archive(tmp_path / "a", [rows(["a"])], [])])
    with pytest.raises(DataError, match="of 1 judged images none can be learnt from"):
        judged([archive(tmp_path / "b", [rows(["a"])], [("a", "unsure")])])


def test_judged_images_are_an_image_table_with_depth_and_region(tmp_path):
    part = rows(["a", "b"], category=[None, "nut"], bit_depth=[12, None], roi_uri=[None, "/roi.png"])
    out = archive(tmp_path / "a", [part], [("a", "defect"), ("b", "defect")])
    found = image_rows(judged([out]).rows, str(tmp_path / "work"))
    image_table.write(str(tmp_path / "t.parquet"), found)
    there = image_table.read(str(tmp_path / "t.parquet"))
    assert there["category"].to_pylist() == ["unknown", "nut"]
    assert there["label"].to_pylist() == [1, 1]
    assert there["bit_depth"].to_pylist() == [12, None]
    assert there["roi_uri"].to_pylist() == [None, "/roi.png"]


def test_what_is_gone_is_taken_from_a_packed_archive(tmp_path, capsys):
    data = tmp_path / "images"
    data.mkdir()
    for name in "ab":
        (data / f"{name}.png").write_bytes(f"bytes of {name}".encode())
    packed = str(tmp_path / "packed")
    pack.pack(str(data), packed, None)
    shard = packed_archive.shards_of(packed)[0].name
    uris = [str(data / f"{name}.png") for name in "ab"]
    part = rows(["a", "b"], uri=uris)
    out = str(tmp_path / "scores")
    table.write(table.part_uri(out, shard), part)
    storage.write_json(storage.join(out, table.RUN), {"images": packed})
    verdicts.append(out, verdicts.of([Verdict(uri, "defect", "anna", BEGAN) for uri in uris]))
    (data / "a.png").unlink()
    gone, there = image_rows(judged([out]).rows, str(tmp_path / "work"))["uri"].to_pylist()
    assert there == uris[1]
    assert storage.read_bytes(gone) == b"bytes of a"
    assert "images within reach: done, 2 images" in capsys.readouterr().out
    storage.write_json(storage.join(out, table.RUN), {"images": str(data)})
    assert image_rows(judged([out]).rows, str(tmp_path / "work"))["uri"].to_pylist() == uris
    assert capsys.readouterr().out == ""


def test_images_of_a_packed_archive_are_looked_up_several_at_once(monkeypatch):
    met = threading.Barrier(reach.LOOKS_AT_ONCE)

    def looked_up(uri, packed, shard, work_uri):
        met.wait(20)
        return f"{work_uri}/{uri} of {shard} in {packed}"

    monkeypatch.setattr(reach, "within_reach", looked_up)
    images = [(str(number), "packed", "0") for number in range(2 * reach.LOOKS_AT_ONCE)]
    expected = [f"work/{number} of 0 in packed" for number in range(len(images))]
    assert reach.all_within_reach(images, "work") == expected
