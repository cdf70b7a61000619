"""Verdicts in the viewer: what the API takes and refuses, whose count, and what filters by them leave."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from starlette.testclient import TestClient

from raydiff.errors import SettingsError, StorageError
from raydiff.review import judged as judged_room
from raydiff.review.app import review_app
from raydiff.review.files import Files
from raydiff.review.serving import opened
from raydiff.review.table import Filter, Order, Table
from raydiff.review.uri_search import UriSearch
from raydiff.scoring import table as score_table
from raydiff.scoring.tokens import TOKEN, hashed_token
from raydiff.verdicts import table
from raydiff.verdicts.table import VERDICTS, Verdict

ROWS = 40
# What another machine does: a verdict of the sixth row, and suggestions.
ELSEWHERE = """
import sys
from datetime import UTC, datetime
from raydiff import storage
from raydiff.verdicts import table
scores, suggestions = sys.argv[1:]
table.append(scores, table.of([table.Verdict("/plant/005.png", "unsure", "eve", datetime.now(UTC))]))
storage.write_bytes(f"{scores}/suggestions.parquet", open(suggestions, "rb").read())
"""
NOON = datetime(2026, 5, 7, 12, tzinfo=UTC)


def uri(number: int) -> str:
    return f"/plant/{number:03d}.png"


def write_scores(folder, order=range(ROWS), files=4) -> str:
    """A score table whose row N has URI N of `order`; the last row of it is a copy of the first one."""
    numbers = [*[*order][:-1], order[0]]
    for part in range(files):
        some = numbers[part * len(numbers) // files : (part + 1) * len(numbers) // files]
        rows = [
            {"uri": uri(number), "category": "bolt", "score": float(number), "height": 30, "width": 20}
            for number in some
        ]
        place = score_table.part_uri(str(folder), f"0001-{part:06d}-{len(rows)}")
        score_table.write(place, pa.Table.from_pylist(rows, score_table.SCHEMA))
    return str(folder)


@pytest.fixture
def scores(tmp_path):
    return write_scores(tmp_path)


@pytest.fixture
def client(scores, monkeypatch):
    """A viewer in which anna gives verdicts, and which looks at each request what others said."""
    monkeypatch.setattr(judged_room, "REFRESH_SECONDS", 0.0)
    yield from _client(scores, "anna")


def _client(scores, who):
    viewer = opened(scores, who=who)
    with TestClient(review_app(viewer, None, {"testserver"})) as made:
        yield made
    viewer.table.files.close()


def give(client, **said):
    return client.post("/v1/verdicts", json=said)


def listed(client, query):
    return [row["row"] for row in client.get(f"/v1/rows?sort=uri&descending=false&{query}").json()["rows"]]


def say(scores, who, said, *numbers, when=None, **more):
    """A verdict by another program."""
    rows = [Verdict(uri(number), said, who, when or datetime.now(UTC), **more) for number in numbers]
    return table.append(scores, table.of(rows))


def test_a_verdict_is_kept_as_it_was_given(client, scores):
    before = datetime.now(UTC)
    told = give(client, row=3, verdict="defect", region=[1, 2.5, 20, 30], note="  a scratch “/” ")
    assert told.status_code == 200
    (row,) = table.read(scores).to_pylist()
    assert before <= row.pop("when") <= datetime.now(UTC)
    assert row == {
        "uri": uri(3),
        "verdict": "defect",
        "region": [1.0, 2.5, 20.0, 30.0],
        "note": "a scratch “/”",
        "who": "anna",
    }
    (answered,) = told.json()["rows"]
    assert answered["row"] == 3
    assert answered["judged"] == client.get("/v1/rows/3").json()["judged"]
    assert before <= datetime.fromisoformat(answered["judged"].pop("when")) <= datetime.now(UTC)
    assert answered["judged"] == {name: value for name, value in row.items() if name != "uri"}
    judged = {each["row"]: each["judged"] for each in client.get("/v1/rows").json()["rows"]}
    assert [row for row, told in judged.items() if told] == [3]


def test_several_rows_are_one_file_and_a_copied_row_one_verdict(client, scores, tmp_path):
    told = give(client, rows=[0, 7, 7, ROWS - 1], verdict="normal").json()["rows"]
    assert [each["row"] for each in told] == [0, 7, ROWS - 1]
    assert len(list((tmp_path / "verdicts").iterdir())) == 1
    assert table.read(scores)["uri"].to_pylist() == [uri(0), uri(7)]
    assert listed(client, "judged=normal") == [0, ROWS - 1, 7]


def test_another_verdict_takes_the_place_of_one_and_nothing_is_lost(client, scores):
    for said in ("normal", "defect", "unsure"):
        give(client, row=5, verdict=said)
        assert client.get("/v1/rows/5").json()["judged"]["verdict"] == said
        assert [each for each in VERDICTS if listed(client, f"judged={each}")] == [said]
    assert table.read(scores)["verdict"].to_pylist() == ["normal", "defect", "unsure"]


@pytest.mark.parametrize("who", [None, "anna"])
def test_without_a_name_nothing_is_taken(scores, tmp_path, who):
    say(scores, "bob", "defect", 2)
    for client in _client(scores, who):
        assert client.get("/v1/table").json()["who"] == who
        assert client.get("/v1/rows/2").json()["judged"]["who"] == "bob"
        told = give(client, row=1, verdict="normal")
        if who is None:
            assert told.status_code == 403
            assert "--who NAME" in told.json()["error"]
        assert len(list((tmp_path / "verdicts").iterdir())) == (1 if who is None else 2)


@pytest.mark.parametrize("who", ["", "  ", "x" * 201])
def test_a_name_must_be_one(scores, who):
    with pytest.raises(SettingsError, match="--who"):
        opened(scores, who=who)


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ({"row": ROWS, "verdict": "normal"}, 404, f"no row {ROWS}"),
        ({"rows": [1, ROWS], "verdict": "normal"}, 404, f"no row {ROWS}"),
        ({"row": 10**30, "verdict": "normal"}, 404, "no row"),
        ({"row": -1, "verdict": "normal"}, 400, "row"),
        ({"row": True, "verdict": "normal"}, 400, "row"),
        ({"row": "1", "verdict": "normal"}, 400, "row"),
        ({"row": 1.0, "verdict": "normal"}, 400, "row"),
        ({"rows": [], "verdict": "normal"}, 400, "rows"),
        ({"rows": list(range(501)), "verdict": "normal"}, 400, "rows"),
        ({"row": 1, "rows": [2], "verdict": "normal"}, 400, "of which row"),
        ({"verdict": "normal"}, 400, "of which row"),
        ({"row": 1}, 400, "verdict"),
        ({"row": 1, "verdict": "fine"}, 400, "'normal', 'defect' or 'unsure'"),
        ({"row": 1, "verdict": "normal", "who": "bob"}, 400, "'who'"),
        ({"row": 1, "verdict": "normal", "when": "2030-01-01"}, 400, "'when'"),
        ({"row": 1, "verdict": "normal", "uri": "/etc/passwd"}, 400, "'uri'"),
        ({"row": 1, "verdict": "normal", "note": "x" * 2001}, 400, "note"),
        ({"row": 1, "verdict": "normal", "note": 5}, 400, "note"),
        ({"row": 1, "verdict": "defect", "region": [1, 2, 3]}, 400, "region"),
        ({"row": 1, "verdict": "defect", "region": [5, 2, 5, 9]}, 400, "x0 < x1"),
        ({"row": 1, "verdict": "defect", "region": [-1, 2, 5, 9]}, 400, "region"),
        ({"row": 1, "verdict": "defect", "region": ["1", 2, 5, 9]}, 400, "region"),
        ({"row": 1, "verdict": "defect", "region": [1, 2, 10**400, 9]}, 400, "region"),
        ({"row": 1, "verdict": "defect", "region": [1, 2, 20.5, 9]}, 400, "20 x 30 pixels"),
        ({"rows": [1, 2], "verdict": "defect", "region": [1, 2, 3, 4]}, 400, "one image"),
    ],
)
def test_what_is_no_verdict_is_refused_in_a_sentence(client, tmp_path, said, status, words):
    told = give(client, **said)
    assert told.status_code == status
    assert words in told.json()["error"]
    assert len(told.json()["error"]) < 600
    assert not (tmp_path / "verdicts").exists()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"normal", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'{"row": 1, "verdict": "normal"', 400),
        (b'{"row": 1, "verdict": "defect", "region": [0, 0, NaN, 5]}', 400),
        (b'{"row": 1, "verdict": "defect", "region": [0, 0, Infinity, 5]}', 400),
        (b'{"row": 1, "verdict": "normal", "note": "\\ud800"}', 400),
        (b'{"row": ' + b"9" * 5000 + b', "verdict": "normal"}', 400),
        (b"[" * 60_000, 400),
        (b'{"row": 1, "verdict": "\xff"}', 400),
        (b" " * 70_000, 413),
    ],
)
def test_a_body_that_is_no_verdict_is_refused(client, tmp_path, data, status):
    told = client.post("/v1/verdicts", content=data, headers={"content-type": "application/json"})
    assert told.status_code == status
    assert list(told.json()) == ["error"]
    assert not (tmp_path / "verdicts").exists()


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "text/json;"]
)
def test_what_a_page_from_elsewhere_can_send_unasked_is_refused(client, tmp_path, kind):
    data = b'{"row": 1, "verdict": "normal"}'
    told = client.post("/v1/verdicts", content=data, headers={"content-type": kind})
    assert told.status_code == 415
    assert "application/json" in told.json()["error"]
    assert not (tmp_path / "verdicts").exists()
    taken = client.post("/v1/verdicts", content=data, headers={"content-type": "Application/JSON; charset=utf-8"})
    assert taken.status_code == 200


def test_a_browser_that_asks_for_another_page_gets_no_consent(client):
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    told = client.options("/v1/verdicts", headers={**asked, "access-control-request-headers": "content-type"})
    assert told.status_code == 405
    assert not [name for name in told.headers if name.startswith("access-control")]


def test_the_guards_of_other_requests_stand_before_it(client, scores, tmp_path, monkeypatch):
    said = {"row": 1, "verdict": "normal"}
    assert client.post("/v1/verdicts", json=said, headers={"host": "evil.example"}).status_code == 403
    assert client.get("/v1/verdicts").status_code == 405
    monkeypatch.setenv(TOKEN, "horse-battery")
    viewer = opened(scores, who="anna")
    with TestClient(review_app(viewer, hashed_token())) as guarded:
        assert guarded.post("/v1/verdicts", json=said).status_code == 401
        assert not (tmp_path / "verdicts").exists()
        bearer = {"authorization": "Bearer horse-battery"}
        assert guarded.post("/v1/verdicts", json=said, headers=bearer).status_code == 200
    viewer.table.files.close()


# Others


def test_what_others_said_is_seen_and_read_once(client, scores, monkeypatch):
    read = []
    before = table._read
    monkeypatch.setattr(table, "_read", lambda place: read.append(place) or before(place))
    give(client, row=1, verdict="normal")
    say(scores, "bob", "defect", 1, 2, note="look at the edge")
    assert listed(client, "judged=defect") == [1, 2]
    assert client.get("/v1/rows/1").json()["judged"]["note"] == "look at the edge"
    give(client, row=1, verdict="unsure")
    assert listed(client, "judged=defect") == [2]
    for _ in range(3):
        client.get("/v1/table")
    assert len(read) == 1  # bob's; anna's own are known


def test_two_viewers_see_each_others_verdicts(client, scores):
    for other in _client(scores, "bob"):
        give(client, row=1, verdict="normal")
        give(other, row=1, verdict="defect")
        give(client, row=2, verdict="normal")
        for each in (client, other):
            assert listed(each, "judged=defect") == [1]
            assert listed(each, "judged=normal") == [2]
            assert each.get("/v1/rows/1").json()["judged"]["who"] == "bob"
    assert sorted(table.read(scores)["who"].to_pylist()) == ["anna", "anna", "bob"]


def test_anothers_newer_verdict_counts_and_the_answer_says_so(client, scores):
    """Of one whose clock goes ahead."""
    say(scores, "bob", "defect", 4, when=datetime.now(UTC) + timedelta(minutes=2))
    (told,) = give(client, row=4, verdict="normal").json()["rows"]
    assert (told["judged"]["verdict"], told["judged"]["who"]) == ("defect", "bob")
    assert listed(client, "judged=defect") == [4]
    assert listed(client, "judged=normal") == []
    assert sorted(table.read(scores)["who"].to_pylist()) == ["anna", "bob"]


def test_others_are_not_asked_for_at_each_request(scores, monkeypatch):
    looked = []
    before = table.read_files
    monkeypatch.setattr(judged_room, "REFRESH_SECONDS", 1e9)
    monkeypatch.setattr(table, "read_files", lambda *args: looked.append(args) or before(*args))
    for client in _client(scores, "anna"):
        for number in range(5):
            give(client, row=number, verdict="normal")
            client.get("/v1/rows")
        assert len(looked) == 1
        assert listed(client, "judged=normal") == [0, ROWS - 1, 1, 2, 3, 4]


def test_a_damaged_file_is_told_and_the_table_shown(client, scores, tmp_path):
    say(scores, "bob", "defect", 1)
    assert client.get("/v1/rows").json()["trouble"] is None
    place = say(scores, "bob", "defect", 2)
    (tmp_path / "verdicts" / place.rpartition("/")[2]).write_bytes(b"half")
    told = client.get("/v1/rows").json()
    assert told["total"] == ROWS
    assert "is not as raydiff writes verdicts" in told["trouble"]
    assert listed(client, "judged=defect") == [1]
    assert give(client, row=3, verdict="normal").status_code == 200
    assert client.get("/v1/rows/3").json()["judged"]["verdict"] == "normal"


def test_files_that_are_damaged_are_told_once_and_keep_no_other_away(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(judged_room, "REFRESH_SECONDS", 0.0)
    read = []
    before = table._read
    monkeypatch.setattr(table, "_read", lambda place: read.append(place) or before(place))
    bad = [say(scores, "bob", "defect", number) for number in (1, 2)]
    for place in bad:
        (tmp_path / "verdicts" / place.rpartition("/")[2]).write_bytes(b"half")
    for client in _client(scores, "anna"):
        say(scores, "bob", "defect", 3)
        assert listed(client, "judged=defect") == [3]
        trouble = client.get("/v1/rows").json()["trouble"]
        assert trouble.startswith(f"{bad[0]} is not as raydiff writes verdicts")
        assert trouble.endswith("(files of verdicts with such faults beside it: 1)")
        assert [read.count(place) for place in bad] == [1, 1]
        for place in bad:
            (tmp_path / "verdicts" / place.rpartition("/")[2]).unlink()
        assert client.get("/v1/rows").json()["trouble"] is None


def test_a_file_that_may_not_be_read_now_is_read_later(scores, monkeypatch):
    monkeypatch.setattr(judged_room, "REFRESH_SECONDS", 0.0)
    before = table._read

    def refused(place):
        raise StorageError(f"{place} may not be read")

    for client in _client(scores, "anna"):
        monkeypatch.setattr(table, "_read", refused)
        place = say(scores, "bob", "defect", 1)
        assert client.get("/v1/rows").json()["trouble"] == f"{place} may not be read"
        monkeypatch.setattr(table, "_read", before)
        assert client.get("/v1/rows").json()["trouble"] is None
        assert listed(client, "judged=defect") == [1]


def test_nobody_waits_for_what_another_reads(scores, monkeypatch):
    monkeypatch.setattr(judged_room, "REFRESH_SECONDS", 0.0)
    looked_through = Table(Files(scores))
    looking, go_on = threading.Event(), threading.Event()
    before = table.read_files

    def slow(*args):
        looking.set()
        assert go_on.wait(60)
        return before(*args)

    monkeypatch.setattr(table, "read_files", slow)
    say(scores, "bob", "defect", 1)
    first, second = (threading.Thread(target=looked_through.judged.refresh) for _ in range(2))
    first.start()
    try:
        assert looking.wait(60)
        second.start()
        second.join(10)
        assert not second.is_alive()
        assert looked_through.judged.of(uri(1)) is None
    finally:
        go_on.set()
        first.join()
    second.join()
    assert looked_through.judged.of(uri(1))["who"] == "bob"
    looked_through.judged.refresh()  # which may be read again
    looked_through.files.close()


@pytest.mark.parametrize("seed", range(4))
def test_what_counts_in_memory_is_what_the_table_says(tmp_path, seed):
    """However files come to it: few images, few moments, many ties."""
    rng = random.Random(seed)
    order = [*range(12)]
    rng.shuffle(order)
    scores = write_scores(tmp_path, order, 3)
    files = Files(scores)
    looked_through = Table(files)
    for _ in range(12):
        some = [
            Verdict(
                uri(rng.randrange(15)),
                rng.choice(VERDICTS),
                rng.choice("ab"),
                NOON + timedelta(minutes=rng.randrange(3)),
            )
            for _ in range(rng.randrange(1, 6))
        ]
        if rng.random() < 0.5:
            looked_through.judged.give(some)
        else:
            table.append(scores, table.of(some))
            looked_through.judged._looked = float("-inf")
            looked_through.judged.refresh()
        assert not looked_through.judged.trouble
        newest = {row["uri"]: row for row in table.newest(table.read(scores)).to_pylist()}
        uris = files.take(range(files.rows), ["uri"])["uri"].to_pylist()
        for each in uris:
            found = looked_through.judged.of(each)
            assert (found and (found["verdict"], found["who"])) == (
                (newest[each]["verdict"], newest[each]["who"]) if each in newest else None
            )
        for said in (None, *VERDICTS):
            expected = [row for row, each in enumerate(uris) if (newest.get(each) or {}).get("verdict") == said]
            left = looked_through.find(Filter(judged=said or "none"), Order()).rows
            assert sorted(left.tolist()) == expected
    files.close()


def test_a_file_made_by_hand_is_told_where_it_holds_no_verdicts(client, scores, tmp_path):
    place = say(scores, "bob", "defect", 1)
    rows = table.read(scores)
    nobody = rows.set_column(rows.column_names.index("when"), "when", pa.nulls(1, table.SCHEMA.field("when").type))
    name = place.rpartition("/")[2]
    pq.write_table(nobody, tmp_path / "verdicts" / name)
    told = client.get("/v1/rows").json()
    assert told["total"] == ROWS
    assert told["trouble"].startswith(f"{name}: verdicts: when, row 0: None must be a time")


def test_the_command_takes_verdicts_under_the_name_it_was_given(scores):
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port = tried.getsockname()[1]
    code = "from raydiff.cli import main; main()"
    command = [sys.executable, "-c", code, "review", "--out", scores, "--port", str(port), "--who", " anna "]
    environment = {name: value for name, value in os.environ.items() if name != TOKEN} | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = [process.stdout.readline() for _ in range(3)]
            assert said[1:] == ["whoever opens the page gives verdicts as anna\n", "Ctrl-C ends it\n"]
            place = f"http://127.0.0.1:{port}/v1/verdicts"
            assert requests.post(place, json={"row": 2, "verdict": "unsure"}, timeout=60).status_code == 200
        finally:
            process.kill()
    (row,) = table.read(scores).to_pylist()
    assert (row["uri"], row["verdict"], row["who"]) == (uri(2), "unsure", "anna")


# Lists


def test_a_list_stays_as_it_is_while_it_is_gone_through(client):
    first = client.get("/v1/rows?judged=none&sort=uri&descending=false&limit=5").json()
    seen = [row["row"] for row in first["rows"]]
    for offset in range(5, ROWS, 5):
        for row in seen[-5:]:
            give(client, row=row, verdict="normal")
        query = f"judged=none&sort=uri&descending=false&limit=5&offset={offset}&changes={first['changes']}"
        seen += [row["row"] for row in client.get(f"/v1/rows?{query}").json()["rows"]]
    assert sorted(seen) == list(range(ROWS))
    assert client.get("/v1/rows?judged=none").json()["total"] == 5
    told = client.get("/v1/rows?judged=none&changes=1000000").json()
    assert (told["total"], told["changes"]) == (5, ROWS - 6)  # two rows are of one image


def test_a_list_of_before_is_found_anew_when_it_is_forgotten(scores):
    looked_through = Table(Files(scores))
    rng = random.Random(0)
    expected = []
    for minute in range(30):
        said = Verdict(uri(rng.randrange(6)), rng.choice(VERDICTS), "anna", NOON + timedelta(minutes=minute))
        looked_through.judged.give([said])
        left = looked_through.find(Filter(judged="defect"), Order()).rows.tolist()
        expected.append((looked_through.judged.changes, left))
    rng.shuffle(expected)
    again = Table(looked_through.files)
    again.judged = looked_through.judged
    for changes, left in expected:
        assert again.find(Filter(judged="defect", changes=changes), Order()).rows.tolist() == left
    looked_through.files.close()


def test_uris_are_looked_for_in_the_files_that_may_hold_them(scores, monkeypatch):
    files = Files(scores)
    search = UriSearch(files)
    assert search.rows(["/not/there.png", uri(0)]) == {uri(0): [0, ROWS - 1]}
    read = []
    before = files.columns
    monkeypatch.setattr(files, "columns", lambda names, among: read.append(among) or before(names, among))
    assert search.rows([uri(12), uri(15)]) == {uri(12): [12], uri(15): [15]}
    assert search.rows(["/not/there.png"]) == {}
    assert search.rows([]) == {}
    assert read == [[1, 3], []]  # the last file reaches from the copy of the first row on
    files.close()


# Suggestions


def suggest(scores, *ranked, **changed):
    """Write suggestions as (number, rank)."""
    columns = {
        "rank": pa.array([rank for _, rank in ranked], pa.int32()),
        "uri": [uri(number) for number, _ in ranked],
        "category": ["bolt"] * len(ranked),
        "day": pa.nulls(len(ranked), pa.date32()),
        "score": np.arange(len(ranked), dtype=float),
        "p_value": np.full(len(ranked), 0.5),
        "reason": [f"near the threshold ({rank})" for _, rank in ranked],
    }
    pq.write_table(pa.table(columns | changed), f"{scores}/suggestions.parquet")


def test_suggestions_are_shown_alone_and_in_their_order(client, scores):
    assert client.get("/v1/table").json()["suggestions"] == 0
    assert client.get("/v1/rows?suggested=true").json()["total"] == 0
    suggest(scores, (30, 2), (4, 3), (12, 1), (999, 4))
    assert client.get("/v1/table").json()["suggestions"] == 4
    told = client.get("/v1/rows?suggested=true&sort=rank&descending=false").json()
    assert [row["row"] for row in told["rows"]] == [12, 30, 4]  # one is not in the table
    assert told["rows"][0]["suggestion"] == {"rank": 1, "reason": "near the threshold (1)"}
    assert client.get("/v1/rows/30").json()["suggestion"]["rank"] == 2
    assert client.get("/v1/rows/31").json()["suggestion"] is None
    give(client, row=30, verdict="normal")
    left = client.get("/v1/rows?suggested=true&judged=none&sort=rank&descending=false").json()
    assert [row["row"] for row in left["rows"]] == [12, 4]
    everything = client.get("/v1/rows?sort=rank&descending=false").json()["rows"]
    assert [row["row"] for row in everything] == [12, 30, 4, *(row for row in range(ROWS) if row not in (4, 12, 30))]


def test_new_suggestions_take_the_place_of_old_ones(client, scores, tmp_path):
    suggest(scores, (1, 1))
    client.get("/v1/table")
    assert listed(client, "suggested=true") == [1]
    suggest(scores, (2, 1), (0, 2))
    client.get("/v1/table")
    assert listed(client, "suggested=true") == [0, ROWS - 1, 2]
    (tmp_path / "suggestions.parquet").unlink()
    assert client.get("/v1/table").json()["suggestions"] == 0
    assert listed(client, "suggested=true") == []


def test_what_are_no_suggestions_is_told_and_the_table_shown(client, scores, tmp_path):
    (tmp_path / "suggestions.parquet").write_bytes(b"no Parquet")
    told = client.get("/v1/table").json()
    assert (told["rows"], told["suggestions"]) == (ROWS, 0)
    assert "suggestions.parquet has no suggestions" in told["trouble"]
    pq.write_table(pa.table({"uri": [uri(1)]}), tmp_path / "suggestions.parquet")
    assert "suggestions.parquet has no suggestions" in client.get("/v1/table").json()["trouble"]


@pytest.mark.s3
def test_verdicts_and_suggestions_in_a_bucket_are_seen_as_on_disk(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(judged_room, "REFRESH_SECONDS", 0.0)
    scores = write_scores(f"{s3_bucket}/scores")
    for client in _client(scores, "anna"):
        assert listed(client, "judged=defect") == []
        say(scores, "bob", "defect", 1, 2)
        assert listed(client, "judged=defect") == [1, 2]
        assert give(client, row=2, verdict="normal").status_code == 200
        suggest(str(tmp_path), (7, 1), (3, 2))
        subprocess.run([sys.executable, "-c", ELSEWHERE, scores, str(tmp_path / "suggestions.parquet")], check=True)
        assert [listed(client, f"judged={said}") for said in VERDICTS] == [[2], [1], [5]]
        assert client.get("/v1/table").json()["suggestions"] == 2
        assert listed(client, "suggested=true") == [3, 7]
