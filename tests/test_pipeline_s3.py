"""The main job from object storage to object storage."""

from __future__ import annotations

import pytest
from conftest import made_images
from main_job import check_scored, job, small_data, tiny

from raydiff import storage
from raydiff.run_folder import RunFolder

pytestmark = pytest.mark.ray


@pytest.mark.s3
def test_the_main_job_on_object_storage(tmp_path, s3_bucket, job_environment):
    fs, bucket = storage.filesystem(s3_bucket)
    fs.put(str(small_data(tmp_path)), f"{bucket}/mvtec", recursive=True)
    source, out = storage.join(s3_bucket, "mvtec"), storage.join(s3_bucket, "run")
    options = ["--methods", "nearest_patch", "--preset", "demo", *tiny("nearest_patch")]
    job("train_all.py", "--data", source, "--out", out, *options, environment=job_environment)
    run = RunFolder(out)
    model = check_scored(run, "nearest_patch", maps=True)
    assert model.score(list(made_images(2))).scores.shape == (2,)
    assert b"nearest_patch" in storage.read_bytes(run.report)
