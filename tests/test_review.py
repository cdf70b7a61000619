"""The viewer of a score table: what it finds against brute force, its API without a network, its pictures."""

from __future__ import annotations

import base64
import io
import os
import signal
import socket
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from PIL import Image
from starlette.testclient import TestClient

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images.overlay import layer
from raydiff.review import uri_order
from raydiff.review.app import review_app
from raydiff.review.files import Files
from raydiff.review.recent import Recent
from raydiff.review.serving import opened
from raydiff.review.table import Filter, Order, Table
from raydiff.review.thumbnails import shrunk
from raydiff.scoring import table as score_table
from raydiff.scoring.maps import write_map
from raydiff.scoring.summary import reason
from raydiff.scoring.tokens import TOKEN, hashed_token

CATEGORIES = ["bolt", "cloth", "", None]
ERRORS = ["the file is empty", "{uri} is not there; check the bucket, the folder and the name", "the file is empty (3)"]
VERDICTS = {True: "alarm", False: "normal", None: "none"}


def made_rows(count: int, seed: int = 0, ascending: bool = False) -> list[dict[str, Any]]:
    """Rows of a score table with errors, nulls and many ties."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        place = number if ascending else int(rng.integers(10**6))
        uri = f"s3://plant/line{place % 3}/{place:07d}-{number}.PNG"
        row: dict[str, Any] = {"uri": uri, "category": CATEGORIES[rng.integers(4)], "part": f"p{number % 9}"}
        row["day"] = None if rng.random() < 0.2 else date(2026, 5, 1) + timedelta(days=int(rng.integers(6)))
        row["time"] = datetime(2026, 5, 1) + timedelta(hours=int(rng.integers(40))) if rng.random() < 0.8 else None
        if rng.random() < 0.2:
            row["error"] = ERRORS[rng.integers(3)].format(uri=uri)
        else:
            score = float(rng.integers(-8, 8)) / 4
            calibrated = rng.random() < 0.8
            row |= {"score": score, "details": [("steps", float("nan"))]}
            row |= {"p_value": float(rng.integers(1, 9)) / 9, "is_anomalous": score > 1} if calibrated else {}
        rows.append(row)
    return rows


def write_rows(folder: Path | str, *parts: list[dict[str, Any]]) -> str:
    """A score table of so many files, named as bulk runs name them."""
    schema = score_table.SCHEMA.append(pa.field("time", pa.timestamp("us"))).append(pa.field("part", pa.string()))
    for number, rows in enumerate(parts):
        place = score_table.part_uri(str(folder), f"0001-{number:06d}-{len(rows)}")
        score_table.write(place, pa.Table.from_pylist(rows, schema))
    return str(folder)


@pytest.fixture(scope="module")
def parts():
    return [made_rows(count, seed) for seed, count in enumerate((40, 1, 73, 26))]


@pytest.fixture(scope="module")
def rows(parts):
    return [row for part in parts for row in part]


@pytest.fixture(scope="module")
def scores(parts, tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("scores"), *parts)


@pytest.fixture(scope="module")
def table(scores):
    opened_table = Table(Files(scores))
    yield opened_table
    opened_table.files.close()


def is_left(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """What a filter means, said once more and one row at a time."""
    for name, value in wanted.items():
        side, _, column = name.partition("_")
        if name == "part":
            fits = row["part"] == value
        elif name == "category":
            fits = (row["category"] or "") == value
        elif name == "verdict":
            verdict = (
                "error" if row.get("error") else {None: "none", True: "alarm", False: "normal"}[row.get("is_anomalous")]
            )
            fits = verdict == value
        elif name == "reason":
            fits = bool(row.get("error")) and reason(row["error"], row["uri"]) == value
        elif name == "text":
            fits = value.lower() in row["uri"].lower()
        else:
            there = row.get("p_value" if column == "p" else column)
            low = side in ("first", "min")
            fits = there is not None and (there >= value if low else there <= value)
        if not fits:
            return False
    return True


FILTERS: list[dict[str, Any]] = [
    {},
    {"category": "bolt"},
    {"category": ""},
    {"category": "unheard of"},
    {"verdict": "alarm"},
    {"verdict": "normal"},
    {"verdict": "error"},
    {"verdict": "none"},
    {"reason": "the file is empty"},
    {"reason": reason(ERRORS[1].format(uri="s3://x/y.png"), "s3://x/y.png")},
    {"reason": "unheard of"},
    {"first_day": date(2026, 5, 3)},
    {"last_day": date(2026, 5, 3)},
    {"first_day": date(2026, 5, 2), "last_day": date(2026, 5, 4), "category": "cloth"},
    {"min_score": -0.5, "max_score": 0.5},
    {"max_score": -1.75},
    {"min_p": 2 / 9, "max_p": 2 / 9},
    {"part": "p3"},
    {"part": "p3", "category": "bolt", "text": "line0"},
    {"part": "unheard of"},
    {"text": "LINE1/"},
    {"text": "line1/", "verdict": "normal", "min_score": 0.0},
    {"text": "(", "category": "bolt"},
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_filters_leave_what_brute_force_leaves(table, rows, wanted):
    expected = [number for number, row in enumerate(rows) if is_left(row, wanted)]
    found = table.find(Filter(**wanted), Order(sort="uri", descending=False))
    assert sorted(found.rows.tolist()) == expected
    assert found.alarms == sum(rows[number].get("is_anomalous") is True for number in expected)
    assert found.errors == sum("error" in rows[number] for number in expected)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("sort", ["score", "p_value", "time", "uri"])
@pytest.mark.parametrize("wanted", [{}, {"category": "bolt"}, {"verdict": "error"}], ids=str)
def test_orders_are_those_of_python(table, rows, wanted, sort, descending):
    left = [number for number, row in enumerate(rows) if is_left(row, wanted)]
    there = [number for number in left if rows[number].get(sort) is not None]
    if sort == "p_value":  # of which there are few
        there.sort(key=lambda number: -rows[number]["score"])
    expected = sorted(there, key=lambda number: rows[number][sort], reverse=descending)  # stable either way
    expected += [number for number in left if rows[number].get(sort) is None]
    assert table.find(Filter(**wanted), Order(sort=sort, descending=descending)).rows.tolist() == expected


def test_pages_put_together_are_all_rows(table, rows):
    found = table.find(Filter(), Order())
    numbers = found.rows.tolist()
    told: list[dict[str, Any]] = []
    for offset in range(0, len(rows) + 30, 30):
        told += table.page(found, offset, 30).to_pylist()
    assert len(told) == len(rows)
    for number, row in zip(numbers, told, strict=True):
        for name, value in row.items():
            assert value == rows[number].get(name), (number, name)


def test_days_are_sorted_by_where_there_are_no_times(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "time"} for row in made_rows(30)]
    schema = score_table.SCHEMA
    score_table.write(score_table.part_uri(str(tmp_path), "0001-000000-30"), pa.Table.from_pylist(rows, schema))
    bare = Table(Files(str(tmp_path)))
    found = bare.find(Filter(verdict="alarm"), Order(sort="time", descending=False))
    assert not len(bare.find(Filter(part="p3"), Order()).rows)  # nor does it say which part an image shows
    days = [rows[number]["day"] for number in found.rows.tolist()]
    known = [day for day in days if day]
    assert known == sorted(known)
    assert None not in days[: len(known)]


@pytest.mark.parametrize("rows_at_once", [1, 7, 64, 10**6])
def test_uris_are_ordered_a_range_at_a_time(tmp_path, rows_at_once):
    parts = [made_rows(count, seed) for seed, count in ((3, 50), (3, 50), (5, 20))]  # two files with the same URIs
    files = Files(write_rows(tmp_path, *parts))
    uris = [row["uri"] for part in parts for row in part]
    places = uri_order.places(files, rows_at_once)
    assert np.argsort(places).tolist() == sorted(range(len(uris)), key=lambda number: (uris[number], number))


def test_a_table_in_order_is_read_once(tmp_path, monkeypatch):
    rows = sorted(made_rows(60, ascending=True), key=lambda row: row["uri"])
    files = Files(write_rows(tmp_path, rows[:20], rows[20:]))
    monkeypatch.setattr(uri_order, "_within", None)
    assert uri_order.places(files).tolist() == list(range(60))


def test_row_groups_are_read_alone(tmp_path):
    """As a run's own table of many images has them; and a name that says nothing of the rows."""
    rows = made_rows(50)
    (tmp_path / "score_table").mkdir()
    found = pa.Table.from_pylist(rows, score_table.SCHEMA)
    pq.write_table(found, tmp_path / "score_table" / "part-of-another-name.parquet", row_group_size=7)
    files = Files(str(tmp_path))
    assert files.rows == 50
    wanted = [49, 0, 13, 14, 13, 6, 7]
    assert files.take(wanted, ["uri", "score"]).to_pylist() == [
        {"uri": rows[number]["uri"], "score": rows[number].get("score")} for number in wanted
    ]
    assert files.take([]).num_rows == 0


def test_a_table_elsewhere_is_read_as_a_local_one(parts, rows, request):
    place = f"memory://review-{request.node.name}"
    write_rows(place, *parts)
    elsewhere = Table(Files(place))
    found = elsewhere.find(Filter(verdict="error", text="line2"), Order(sort="uri", descending=False))
    expected = [row["uri"] for row in rows if "error" in row and "line2" in row["uri"]]
    assert elsewhere.page(found, 0)["uri"].to_pylist() == sorted(expected)
    elsewhere.files.close()
    storage.delete(place)


def test_what_statistics_say_is_not_read(tmp_path, monkeypatch):
    rows = [{"uri": f"/{number}.png", "category": "bolt", "score": 0.5, "is_anomalous": False} for number in range(9)]
    files = Files(write_rows(tmp_path, rows))
    read: list[str] = []
    before = pa.parquet.ParquetFile.read
    monkeypatch.setattr(
        pa.parquet.ParquetFile,
        "read",
        lambda file, columns, **how: read.extend(columns) or before(file, columns, **how),
    )
    ((_, found),) = files.columns(["category", "is_anomalous", "error", "score", "uri"])
    assert read == ["score", "uri"]
    assert found.to_pylist()[8] == {**rows[8], "error": None}


def test_a_table_that_was_changed_meanwhile_is_told(tmp_path):
    files = Files(write_rows(tmp_path, made_rows(9)))
    score_table.write(files.parts[0], pa.Table.from_pylist(made_rows(8), score_table.SCHEMA))
    with pytest.raises(DataError, match="8 rows, 9 were expected"):
        files.take([0])


def test_what_is_no_score_table_is_told(tmp_path, parts):
    with pytest.raises(DataError, match=r"give the --out of jobs/score_archive\.py"):
        Files(str(tmp_path))
    write_rows(tmp_path / "scores" / "lafite-abc" / "test", parts[0])
    with pytest.raises(DataError, match=r"a run's folder; .*scores/lafite-abc/test"):
        Files(str(tmp_path))


def test_recent_keeps_within_its_bytes():
    kept: Recent[str] = Recent(10)
    for number in range(4):
        kept.put(number, str(number), 4)
        kept.get(0)
    assert [kept.get(number) for number in range(4)] == ["0", None, None, "3"]
    kept.put(3, "again", 10)
    assert [kept.get(0), kept.get(3)] == [None, "again"]
    kept.put(4, "too large", 11)
    assert kept.get(3) == "again"


# The API


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """An archive's scores with pictures: with a map, without, as picture, gone, no image."""
    root = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (60, 400, 3), np.uint8)
    heat = np.zeros((60, 400), np.float32)
    heat[30, 200] = 4.0
    names = ["mapped", "bare", "laid", "gone", "broken"]
    rows: list[dict[str, Any]] = []
    for number, name in enumerate(names):
        uri = str(root / "images" / f"{name}.png")
        row = {"uri": uri, "category": "bolt", "height": 60, "width": 400, "score": float(number), "threshold": 3.0}
        rows.append({**row, "p_value": 0.5, "is_anomalous": False, "day": date(2026, 5, 1 + number)})
        storage.write_bytes(uri, encoded(pixels))
    (root / "images" / "gone.png").unlink()
    (root / "images" / "broken.png").write_bytes(b"no image")
    rows[4] |= {"score": None, "p_value": None, "is_anomalous": None, "error": "this is no PNG"}
    for row, ending in ((rows[0], "tiff"), (rows[2], "png")):
        row["map_uri"] = str(root / "anomaly_maps" / f"{row['category']}.{ending}")
    write_map(rows[0]["map_uri"], heat)
    storage.write_bytes(rows[2]["map_uri"], encoded(pixels[::-1].copy()))
    write_rows(root, rows)
    storage.write_json(str(root / "run.json"), {"model_id": "0123", "maps": "tiff", "max_pixels": 10**6})
    storage.write_json(str(root / "manifest.json"), {"complete": True, "shards": {}})
    return root


def encoded(pixels: np.ndarray) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.fixture(scope="module")
def client(archive):
    viewer = opened(str(archive))
    with TestClient(review_app(viewer, None, {"testserver", "localhost"})) as made:
        yield made
    viewer.table.files.close()


def test_the_table_is_described(client, archive):
    told = client.get("/v1/table").json()
    assert told["name"] == str(archive)
    assert (told["rows"], told["maps"], told["complete"], told["model_id"]) == (5, "tiff", True, "0123")
    assert told["categories"] == ["bolt"]
    assert told["reasons"] == ["this is no PNG"]


def test_rows_come_a_page_at_a_time(client):
    told = client.get("/v1/rows?sort=score&descending=false&limit=2&offset=1&max_score=3").json()
    assert (told["total"], told["alarms"], told["errors"], told["offset"]) == (4, 0, 0, 1)
    assert [row["row"] for row in told["rows"]] == [1, 2]
    assert told["rows"][0]["uri"].endswith("bare.png")
    assert client.get("/v1/rows?offset=1000000").json()["rows"] == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("limit=501", "limit"),
        ("offset=-1", "offset"),
        ("sort=uri;drop", "sort"),
        ("min_score=nan", "min_score"),
        ("min_score=2&max_score=1", "no range"),
        ("first_day=yesterday", "first_day"),
        ("uri=/etc/passwd", "'uri'"),
    ],
)
def test_what_means_nothing_is_refused(client, query, words):
    told = client.get(f"/v1/rows?{query}")
    assert told.status_code == 400
    assert words in told.json()["error"]


def test_a_row_has_all_that_the_table_says(client, scores, rows):
    viewer = opened(scores)
    with TestClient(review_app(viewer, None)) as other:
        for number in (0, 40, 77):
            told = other.get(f"/v1/rows/{number}").json()
            assert told["uri"] == rows[number]["uri"]
            assert told["time"] == (rows[number]["time"] and rows[number]["time"].isoformat())
            assert told["details"] == (None if "error" in rows[number] else {"steps": None})
    viewer.table.files.close()


def test_a_picture_has_its_heat_map_in_the_reports_colours(client):
    small = client.get("/v1/rows/0/picture").json()
    assert decoded(small["image"]).shape == (38, 256, 3)
    assert (small["width"], small["height"], small["box"]) == (400, 60, [0, 0, 400, 60])
    large = client.get("/v1/rows/0/picture?size=large").json()
    heat = np.zeros((60, 400), np.float32)
    heat[30, 200] = 4.0
    low = 1.5  # the median of the four scores there are
    assert base64.b64decode(large["heat"].split(",")[1]) == layer(heat, low, low + 2 * (3.0 - low))
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(small["heat"].split(",")[1]))).convert("RGBA"))[..., 3]
    assert np.argwhere(alpha).tolist() == [[19, 128]]  # the hot pixel is not averaged away


def test_maps_that_were_written_as_pictures_are_shown(client):
    told = client.get("/v1/rows/2/picture?size=large").json()
    assert told["box"] == [0, 0, 400, 60]
    assert decoded(told["heat"]).shape == (60, 400, 3)


def test_what_cannot_be_shown_says_why(client, archive):
    bare = client.get("/v1/rows/1/picture").json()
    assert bare["image"]
    assert "no map was written" in bare["no_heat"]
    gone = client.get("/v1/rows/3/picture").json()
    assert gone["image"] is None
    assert gone["error"] == f"{archive}/images/gone.png is not there; check the bucket, the folder and the name"
    assert "no PNG" in client.get("/v1/rows/4/picture").json()["error"]


@pytest.mark.parametrize("path", ["/v1/rows/5", "/v1/rows/5/picture", "/v1/rows/-1", "/v1/rows/..%2F..%2Fetc%2Fpasswd"])
def test_only_rows_of_the_table_are_there(client, path):
    told = client.get(path)
    assert told.status_code == 404
    assert list(told.json()) == ["error"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_is_written(client, archive, method):
    before = {path: path.stat().st_mtime_ns for path in archive.rglob("*")}
    for path in ("/v1/table", "/v1/rows", "/v1/rows/0", "/v1/rows/0/picture", "/"):
        assert client.request(method, path).status_code == 405
    assert {path: path.stat().st_mtime_ns for path in archive.rglob("*")} == before


def test_pages_from_elsewhere_are_kept_out(client):
    assert client.get("/v1/table", headers={"host": "evil.example:8000"}).status_code == 403
    assert client.get("/v1/table", headers={"host": "localhost:8000"}).status_code == 200


def test_the_token_is_asked_for(archive, monkeypatch):
    monkeypatch.setenv(TOKEN, "horse-battery")
    viewer = opened(str(archive))
    with TestClient(review_app(viewer, hashed_token())) as guarded:
        for path in ("/v1/table", "/v1/rows", "/v1/rows/0", "/v1/rows/0/picture"):
            assert guarded.get(path).status_code == 401
            assert guarded.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert guarded.get(path, headers={"Authorization": "Bearer horse-battery"}).status_code == 200
        assert guarded.get("/healthz").status_code == 200
        page = guarded.get("/")
    assert "<title>" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    viewer.table.files.close()


def test_the_command_serves_until_it_is_signalled(archive):
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port = tried.getsockname()[1]
    code = "from raydiff.cli import main; main()"
    command = [sys.executable, "-c", code, "review", "--out", str(archive), "--port", str(port)]
    environment = {**os.environ, TOKEN: "horse-battery", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = [process.stdout.readline() for _ in range(3)]
            assert said[0] == f"5 rows of {archive} at http://127.0.0.1:{port}/\n"
            assert TOKEN in said[1]
            assert said[2] == "Ctrl-C ends it\n"
            assert requests.get(f"http://127.0.0.1:{port}/v1/rows", timeout=60).status_code == 401
            bearer = {"Authorization": "Bearer horse-battery"}
            told = requests.get(f"http://127.0.0.1:{port}/v1/rows", headers=bearer, timeout=60).json()
            assert told["total"] == 5
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_maps_are_shrunk_by_their_highest_values():
    rng = np.random.default_rng(0)
    found = rng.random((31, 50)).astype(np.float32)
    found[3, 4] = np.nan
    small = shrunk(found, 7, 31)
    edges = [number * 50 // 7 for number in range(8)]
    for row in range(31):
        for column in range(7):
            assert small[row, column] == np.nanmax(found[row, edges[column] : edges[column + 1]])
