"""`raydiff serve` on a real Ray: the API and the page over Serve, and its end at a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import browser
import numpy as np
import pytest
import requests
from conftest import calibrated_model, made_images, write_mvtec
from PIL import Image
from ray import serve

import raydiff
from raydiff.errors import ClusterError
from raydiff.images import table as image_table
from raydiff.images.survey import find_images
from raydiff.scoring import serving, table
from raydiff.scoring.bulk import score_table
from raydiff.scoring.deployment import deployed
from raydiff.scoring.service import Arguments
from raydiff.scoring.tokens import TOKEN

pytestmark = pytest.mark.ray
SECONDS = 120.0


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return calibrated_model(tmp_path_factory.mktemp("model"), "bolt", "cloth")


@pytest.fixture(scope="module")
def page(local_ray, folder):
    """The address of a model that is served."""
    serve.shutdown()  # what other tests have used listens nowhere
    with serving.serving(Arguments(model=folder, max_bytes=300_000), "127.0.0.1", free_port(), 1) as url:
        yield url
    serve.shutdown()


@pytest.fixture
def image(tmp_path):
    Image.fromarray(made_images(1, 40, seed=9)[0]).save(tmp_path / "image.png")
    return tmp_path / "image.png"


# The first, because it ends the Serve that the others share.
def test_serve_that_bulk_runs_have_left_is_started_anew(local_ray, folder):
    serve.shutdown()
    images = made_images(2, seed=4)
    with deployed(folder, replicas=1, engine="openvino") as handle:
        found = handle.score.remote(images, ["bolt", None]).result(timeout_s=SECONDS)
    np.testing.assert_allclose(found.scores, raydiff.load(folder, "cpu").score(list(images)).scores, rtol=1e-4)
    with serving.serving(Arguments(model=folder), "127.0.0.1", free_port(), 1) as place:
        assert requests.get(f"{place}healthz", timeout=SECONDS).status_code == 200
    serve.shutdown()


def test_a_file_has_the_score_of_a_bulk_run(page, folder, tmp_path):
    root = write_mvtec(tmp_path / "mvtec", train=1, test=2)
    place = root / "bolt/test/spot/000.png"
    place.with_suffix(".jpg").write_bytes(b"")
    Image.open(place).save(place.with_suffix(".jpg"), quality=60)
    image_table.write(str(tmp_path / "images.parquet"), find_images(str(root)))
    with deployed(folder, replicas=1) as handle:
        score_table(handle, folder, str(tmp_path / "images.parquet"), str(tmp_path / "scores"))
    rows = table.read(str(tmp_path / "scores")).to_pylist()
    assert len(rows) == 11
    for row in rows:
        data = Path(row["uri"]).read_bytes()
        told = requests.post(f"{page}v1/score", data, params={"category": row["category"]}, timeout=SECONDS).json()
        for name in ("score", "p_value", "threshold", "is_anomalous", "category_guessed", "model_id"):
            assert told[name] == row[name], (row["uri"], name)


def test_the_api_answers_over_serve(page, folder, image):
    assert requests.get(f"{page}healthz", timeout=SECONDS).json() == {"status": "ok"}
    model = requests.get(f"{page}v1/model", timeout=SECONDS).json()
    assert model["name"] == Path(folder).name
    data = image.read_bytes()
    alone = requests.post(f"{page}v1/score?maps=1", data, timeout=SECONDS)
    assert alone.status_code == 200
    files = [("image", ("a.png", data)), ("image", ("b.png", b"no image"))]
    form = requests.post(f"{page}v1/score", files=files, data={"maps": "1"}, timeout=SECONDS).json()
    assert form["images"][0] == {**alone.json(), "name": "a.png"}
    assert "no PNG" in form["images"][1]["error"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("v1/score", b"", 422),
        ("v1/score", b"no image", 422),
        ("v1/score", bytes(300_001), 413),
        ("v1/score?page=none", b"", 400),
        ("", b"", 405),
        ("v2/score", b"", 404),
    ],
)
def test_what_cannot_be_answered_is_told_in_json(page, path, body, status):
    told = requests.post(page + path, body, timeout=SECONDS)
    assert told.status_code == status
    assert list(told.json()) == ["error"]


def test_a_body_of_unknown_length_is_counted(page):
    told = requests.post(f"{page}v1/score", iter([bytes(50_000)] * 7), timeout=SECONDS)
    assert told.status_code == 413


def test_many_at_once_are_all_answered(page, image):
    """Past those that a replica takes in hand they are sent away with a time to come again."""
    data = image.read_bytes()
    with ThreadPoolExecutor(60) as pool:
        found = list(pool.map(lambda _: requests.post(f"{page}v1/score", data, timeout=SECONDS), range(120)))
    assert {each.status_code for each in found} <= {200, 503}
    scores = {each.json()["score"] for each in found if each.status_code == 200}
    assert len(scores) == 1
    assert all(int(each.headers["retry-after"]) >= 1 for each in found if each.status_code == 503)


@pytest.mark.browser
def test_the_page_shows_an_image(page, image, tmp_path):
    with browser.opened(tmp_path / "profile") as tab:
        tab.open(page)
        tab.wait("document.getElementById('model').textContent.includes('nearest_patch')")
        tab.choose("#files", image)
        tab.wait("['Anomalous', 'Normal'].includes(document.getElementById('verdict').textContent)")
        tab.wait("document.getElementById('heat').naturalWidth > 0")
        assert tab.errors == []


def test_another_place_is_refused_while_serve_listens(page, folder):
    with (
        pytest.raises(ClusterError, match="runs on this cluster already, at 127"),
        serving.serving(Arguments(model=folder), "127.0.0.1", free_port(), 1),
    ):
        pass


def test_another_application_at_the_same_place_is_refused(page, folder, monkeypatch):
    monkeypatch.setattr(serving.deployment, "APP", "other")  # as another job's would be called
    host, port = page.removeprefix("http://").rstrip("/").split(":")
    with (
        pytest.raises(ClusterError, match="another application is served there already"),
        serving.serving(Arguments(model=folder), host, int(port), 1),
    ):
        pass
    assert requests.get(f"{page}healthz", timeout=SECONDS).status_code == 200


def test_a_port_that_is_taken_is_told_before_ray_starts(folder, job_environment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            command(folder, port), env=job_environment, capture_output=True, text=True, timeout=SECONDS
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: nothing can listen at 127.0.0.1:{port} (")
    assert "starting a Ray" not in done.stdout


def command(folder: str, port: int) -> list[str]:
    return [
        sys.executable,
        "-c",
        "from raydiff.cli import main; main()",
        "serve",
        "--model",
        folder,
        "--port",
        str(port),
    ]


def test_the_command_serves_until_it_is_signalled(folder, image, job_environment, tmp_path):
    port = free_port()
    environment = {**job_environment, TOKEN: "horse-battery"}
    log = tmp_path / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            command(folder, port), env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        try:
            deadline = time.monotonic() + SECONDS
            while "Ctrl-C ends it" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
            page = f"http://127.0.0.1:{port}/"
            assert f"at {page}" in log.read_text()
            assert "<title>raydiff" in requests.get(page, timeout=SECONDS).text
            data = image.read_bytes()
            assert requests.post(f"{page}v1/score", data, timeout=SECONDS).status_code == 401
            bearer = {"Authorization": "Bearer horse-battery"}
            assert requests.post(f"{page}v1/score", data, headers=bearer, timeout=SECONDS).status_code == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
    said = log.read_text()
    assert said.splitlines()[-1].startswith("ending")
    assert "Traceback" not in said
    with pytest.raises(requests.ConnectionError):
        requests.get(page, timeout=SECONDS)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_ends_the_wait_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with serving.signalled() as ended:
        assert not ended.is_set()
        os.kill(os.getpid(), number)
        assert ended.wait(SECONDS)
    assert signal.getsignal(number) is before
