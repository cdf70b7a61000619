"""The viewer of a score table in object storage, against a real S3 server: it answers as for the same table on disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from made_archive import calibration, score_rows, with_images, write_archive
from s3fs import S3FileSystem
from starlette.testclient import TestClient

from raydiff import storage
from raydiff.errors import DataError, StorageError
from raydiff.review.app import review_app
from raydiff.review.serving import opened

pytestmark = pytest.mark.s3

CALIBRATION = calibration(("bolt", "cloth"))


def answers(scores_uri: str, paths: list[str]) -> list[dict]:
    viewer = opened(scores_uri)
    with TestClient(review_app(viewer, None)) as client:
        found = [client.get(path).json() for path in paths]
    viewer.table.files.close()
    return found


def test_a_table_on_s3_is_looked_through_as_one_on_disk(s3_bucket, tmp_path):
    rows = with_images(tmp_path, score_rows(60, CALIBRATION))
    local = write_archive(tmp_path / "scores", rows, CALIBRATION, maps="tiff")
    for place in (*tmp_path.glob("images/*"), *tmp_path.glob("maps/*")):
        storage.write_bytes(f"{s3_bucket}/{place.relative_to(tmp_path)}", place.read_bytes())
    for name in ("uri", "map_uri"):
        values = [value and value.replace(str(tmp_path), s3_bucket) for value in rows[name].to_pylist()]
        rows = rows.set_column(rows.column_names.index(name), name, pa.array(values, pa.string()))
    write_archive(f"{s3_bucket}/scores", rows, CALIBRATION, maps="tiff")

    paths = ["/v1/table", "/v1/rows?sort=score&limit=9", "/v1/rows?sort=uri&text=images/003", "/v1/rows/7"]
    paths += ["/v1/rows/7/picture", "/v1/rows/8/picture?size=large"]
    there, here = (answers(uri, paths) for uri in (f"{s3_bucket}/scores", local))
    assert here[2]["total"] == 10
    assert here[4]["heat"]
    assert str(there).replace(s3_bucket, str(tmp_path)) == str(here)

    storage.delete(f"{s3_bucket}/images/0007.png")
    (gone,) = answers(f"{s3_bucket}/scores", ["/v1/rows/7/picture"])
    assert gone["error"] == f"{s3_bucket}/images/0007.png is not there; check the bucket, the folder and the name"


def test_what_is_not_there_or_not_allowed_is_told(s3_bucket, tmp_path, monkeypatch):
    storage.write_bytes(f"{s3_bucket}/scores/notes.txt", b"1")
    with pytest.raises(DataError, match="holds no score_table"):
        opened(f"{s3_bucket}/scores")
    for place in (f"{s3_bucket}/june", "s3://no-such-bucket/june", str(Path(tmp_path, "june"))):
        with pytest.raises(StorageError, match=f"^{place} is not there; check the bucket"):
            opened(place)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "surely-not-this-one")
    S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(StorageError, match=rf"^{s3_bucket}/scores: access refused \(403\); check the credentials"):
            opened(f"{s3_bucket}/scores")
    finally:
        S3FileSystem.clear_instance_cache()
