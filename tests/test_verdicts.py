"""The table of verdicts: what is appended is read, the newest counts, and writers that are killed tear nothing."""

import itertools
import os
import random
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pandas
import pyarrow as pa
import pytest
from made_archive import calibration, score_rows, write_archive

from raydiff import storage
from raydiff.errors import DataError
from raydiff.verdicts import table
from raydiff.verdicts.archive import contradictions, known
from raydiff.verdicts.table import Verdict

NOON = datetime(2026, 5, 7, 12, tzinfo=UTC)

# Appends one verdict at a time until it is told to stop, and says each one once it is written.
WRITER = """
import sys
from datetime import UTC, datetime
from raydiff.verdicts import table
out, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for number in range(count):
    table.append(out, table.of([table.Verdict(f"/{number}.png", "normal", who, datetime.now(UTC), note="x" * 5000)]))
    print(number, flush=True)
"""


def verdict(uri="/a.png", said="normal", who="ada", minute=0, **more):
    return Verdict(uri, said, who, NOON + timedelta(minutes=minute), **more)


def add(out, *verdicts):
    return table.append(str(out), table.of(verdicts))


def test_what_is_appended_is_read_as_it_was(tmp_path):
    given = [
        verdict(region=(1, 2.5, 30, 40), note="a reflection, “fine”"),
        verdict("s3://plant/b c.png", "defect", "Bob", 1),
        verdict("/a.png", "unsure", minute=2),
    ]
    assert len(table.read(str(tmp_path))) == 0
    first = add(tmp_path, *given[:2])
    second = add(tmp_path, given[2])
    assert first < second
    found = table.read(str(tmp_path))
    assert found.schema == table.SCHEMA
    assert found.to_pylist() == [
        {**each._asdict(), "region": each.region and [float(value) for value in each.region]} for each in given
    ]
    assert list(pandas.read_parquet(tmp_path / "verdicts")["uri"]) == [each.uri for each in given]


def test_a_time_of_another_zone_is_the_same_time(tmp_path):
    add(tmp_path, Verdict("/a.png", "normal", "ada", NOON.astimezone(timezone(timedelta(hours=5)))))
    assert table.read(str(tmp_path))["when"].to_pylist() == [NOON]


def test_what_else_lies_in_the_folder_is_not_read(tmp_path):
    add(tmp_path, verdict())
    left = next((tmp_path / "verdicts").iterdir())
    left.with_name(f".{left.name}.0123abcd.partial").write_bytes(b"half")  # by a writer that was killed
    left.with_name("notes.txt").write_text("mine")
    assert len(table.read(str(tmp_path))) == 1
    left.write_bytes(left.read_bytes()[:-9])
    with pytest.raises(DataError, match="is not as raydiff writes verdicts"):
        table.read(str(tmp_path))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (verdict(said="scratch"), "verdict, row 1: 'scratch' is none of"),
        (verdict(uri=""), "uri, row 1: '' must not be empty"),
        (verdict(who=""), "who, row 1: '' must not be empty"),
        (verdict(region=(5, 0, 5, 9)), "region, row 1: .* is not x0, y0, x1, y1"),
        (verdict(region=(0, 0, 5, float("nan"))), "region, row 1: .* is not x0, y0, x1, y1"),
        (verdict(region=(0, 0, 5)), "region, row 1: .* is not x0, y0, x1, y1"),
        (verdict()._replace(when=None), "when, row 1: None must be a time"),
    ],
)
def test_what_is_no_verdict_is_refused_and_nothing_is_written(tmp_path, bad, message):
    with pytest.raises(DataError, match=message):
        add(tmp_path, verdict(), bad)
    assert not (tmp_path / "verdicts").exists()
    with pytest.raises(DataError, match="found 0 of"):
        add(tmp_path)


def by_hand(rows):
    """The newest of each image, one by one."""
    best = {}
    for row in rows.to_pylist():
        if row["uri"] not in best or row["when"] >= best[row["uri"]]["when"]:
            best[row["uri"]] = row
    return [best[uri] for uri in sorted(best)]


@pytest.mark.parametrize("seed", range(5))
def test_the_newest_counts_and_of_the_same_moment_the_last(tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(12):  # few images, few moments: many ties, within a file and across
        some = [
            verdict(f"/{rng.randrange(6)}.png", rng.choice(table.VERDICTS), rng.choice("ab"), rng.randrange(3))
            for _ in range(rng.randrange(1, 6))
        ]
        add(tmp_path, *some)
    rows = table.read(str(tmp_path))
    assert table.newest(rows).to_pylist() == by_hand(rows)
    assert table.newest(rows.slice(0, 0)).num_rows == 0


def test_two_folders_of_verdicts_together_are_their_union(tmp_path):
    for name in "ab":
        add(tmp_path / name, verdict(f"/{name}.png"), verdict(minute=1, said="defect" if name == "b" else "normal"))
    together = tmp_path / "c" / "verdicts"
    together.mkdir(parents=True)
    for file in itertools.chain(*((tmp_path / name / "verdicts").iterdir() for name in "ab")):
        (together / file.name).write_bytes(file.read_bytes())
    assert table.newest(table.read(str(tmp_path / "c")))["verdict"].to_pylist() == ["defect", "normal"]


# Contradictions


def test_the_same_content_with_two_verdicts_is_found(tmp_path):
    rows = score_rows(200, calibration(("bolt",)))
    contents = [f"{number // 2:064x}" if number < 100 else None for number in range(200)]
    place = rows.column_names.index("content_hash")
    out = write_archive(tmp_path, rows.set_column(place, "content_hash", pa.array(contents, pa.string())), None)
    uris = rows["uri"].to_pylist()
    rng = random.Random(1)
    said = {uri: rng.choice(table.VERDICTS) for uri in rng.sample(uris, 150)}
    add(out, *(verdict(uri, each) for uri, each in said.items()))
    add(out, verdict("/gone.png", "defect", minute=1))

    newest = table.newest(table.read(out))
    images = known(out, newest["uri"].to_pylist(), ["content_hash", "category"])
    assert set(images["uri"].to_pylist()) == set(said)
    found = contradictions(newest, images)
    expected = []
    for number in range(50):
        pair = uris[2 * number : 2 * number + 2]
        if {said.get(uri) for uri in pair} == {"normal", "defect"}:
            by = {said[uri]: uri for uri in pair}
            expected.append((f"{number:064x}", (by["normal"],), (by["defect"],)))
    assert expected
    assert [tuple(each) for each in found] == expected


# Several writers


def writer(out, who, count):
    """A process of its own that appends `count` verdicts."""
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(out), who, str(count)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )


def lines(process, count):
    """The first so many numbers that a writer says."""
    return [int(process.stdout.readline()) for _ in range(count)]


def two_writers(out, count, killed_after):
    """Two that write at once, of which the first is killed in the middle: what either said to have written is there."""
    first, second = writer(out, "first", 10**6), writer(out, "second", count)
    try:
        said = lines(first, killed_after)
        first.send_signal(signal.SIGKILL)
        said += [int(line) for line in first.stdout]
        assert first.wait() == -signal.SIGKILL
        assert [int(line) for line in second.stdout] == list(range(count))
        assert second.wait() == 0
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
            process.stdout.close()
    rows = table.read(out)
    by = {
        who: [row["uri"] for row in rows.to_pylist() if row["who"] == who and row["note"] == "x" * 5000]
        for who in ("first", "second")
    }
    assert len(rows) == len(by["first"]) + len(by["second"])
    assert by["second"] == [f"/{number}.png" for number in range(count)]
    # What it was about to say it had written may be there, too, whole.
    assert len(by["first"]) in (len(said), len(said) + 1)
    assert by["first"] == [f"/{number}.png" for number in range(len(by["first"]))]
    assert len(table.newest(rows)) == max(count, len(by["first"]))


def test_two_writers_one_of_them_killed_lose_and_tear_nothing(tmp_path):
    two_writers(str(tmp_path), 200, 80)


@pytest.mark.s3
def test_two_writers_in_a_bucket(s3_bucket):
    out = storage.join(s3_bucket, "scores")
    assert len(table.read(out)) == 0
    two_writers(out, 30, 10)
