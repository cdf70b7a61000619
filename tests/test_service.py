"""The HTTP service's handling of requests, without Ray and without a network."""

from __future__ import annotations

import asyncio
import io
import json

import numpy as np
import pytest
from conftest import fitted, made_images
from PIL import Image
from ray.serve import Application
from starlette.requests import Request

import raydiff
from raydiff import cluster
from raydiff.errors import SettingsError
from raydiff.images.decode import decode
from raydiff.model.calibration import Calibration
from raydiff.model.folder import Model
from raydiff.scoring.service import Arguments, Service, build


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def made_model(folder, calibrated: bool) -> str:
    images = made_images(8, 40)
    method, _ = fitted("nearest_patch", images[:, :32, :32], categories=["bolt", "cloth"] * 4)
    model = Model(method, method.ScoreSettings())
    if calibrated:
        scores = [float(score) for score in model.score(list(images)).scores]
        model.calibration = Calibration.fit({"bolt": scores, "cloth": [1e-9] * 40}, 0.2)
    model.save(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_model(tmp_path_factory.mktemp("model"), calibrated=True)


@pytest.fixture
def service(folder, monkeypatch):
    return started(folder, monkeypatch)


def started(folder, monkeypatch, **limits) -> Service:
    monkeypatch.setattr(cluster, "use_assigned_device", lambda: "cpu")  # else Ray is asked
    return Service(Arguments(model=folder, **limits))


def ask(service, body: bytes, method="POST", query=b"", chunk=1000):
    """Status, answer and headers, with the body arriving in chunks; and how many of them were taken."""
    chunks = [body[place : place + chunk] for place in range(0, len(body), chunk)] or [b""]
    taken = 0

    async def receive():
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": chunks[taken - 1], "more_body": taken < len(chunks)}

    scope = {"type": "http", "method": method, "path": "/", "query_string": query, "headers": []}
    response = asyncio.run(service(Request(scope, receive)))
    return response.status_code, json.loads(response.body), response.headers, taken


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_the_score_is_that_of_the_one_scoring_path(service, folder, kind):
    data = encoded(made_images(1, 40, seed=9)[0], kind)
    status, answer, _, _ = ask(service, data, query=b"category=bolt")
    model = raydiff.load(folder, "cpu")
    score = float(model.score([decode(data)]).scores[0])
    own = model.calibration.categories["bolt"]
    assert status == 200
    assert answer == {
        "score": score,
        "p_value": own.p_value(score),
        "threshold": own.threshold,
        "is_anomalous": score > own.threshold,
        "category_guessed": None,
        "model_id": model.id,
    }


def test_a_category_has_its_own_threshold_and_another_name_that_of_the_likeliest(service, folder):
    data = encoded(made_images(1, 40, seed=9)[0])
    model = raydiff.load(folder, "cpu")
    (likely,) = model.score([decode(data)]).guessed
    assert ask(service, data, query=b"category=cloth")[1]["threshold"] == 1e-9
    assert ask(service, data, query=b"category=cloth")[1]["is_anomalous"] is True
    for query in (b"", b"category=", b"category=unheard"):
        answer = ask(service, data, query=query)[1]
        assert answer["category_guessed"] == likely
        assert answer["threshold"] == model.calibration.categories[likely].threshold


def test_without_a_calibration_there_is_a_score_and_no_alarm(tmp_path, monkeypatch):
    service = started(made_model(tmp_path / "plain", calibrated=False), monkeypatch)
    status, answer, _, _ = ask(service, encoded(made_images(1)[0]))
    assert status == 200
    assert answer["score"] > 0
    assert [answer[name] for name in ("p_value", "threshold", "is_anomalous")] == [None, None, None]


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"", "empty"), (b"no image at all", "no PNG"), (encoded(made_images(1)[0])[:200], "damaged")],
)
def test_what_is_no_image_is_refused_with_a_reason(service, body, reason):
    status, answer, _, _ = ask(service, body)
    assert status == 422
    assert reason in answer["error"]


def test_an_image_of_too_many_pixels_is_refused(folder, monkeypatch):
    service = started(folder, monkeypatch, max_pixels=40 * 40)
    assert ask(service, encoded(np.zeros((40, 40, 3), np.uint8)))[0] == 200
    status, answer, _, _ = ask(service, encoded(np.zeros((41, 40, 3), np.uint8)))
    assert status == 422
    assert "more than the limit of 1,600" in answer["error"]


def test_a_body_that_is_too_long_is_not_read_to_its_end(folder, monkeypatch):
    service = started(folder, monkeypatch, max_bytes=2500)
    status, answer, _, taken = ask(service, bytes(100_000))
    assert status == 413
    assert "2,500" in answer["error"]
    assert taken == 3  # of a hundred


def test_other_methods_are_refused(service):
    status, _, headers, taken = ask(service, b"", method="GET")
    assert (status, headers["allow"], taken) == (405, "POST", 0)


@pytest.mark.parametrize("given", [{}, {"model": ""}, {"model": "m", "max_byte": 5}, {"model": "m", "max_bytes": 0}])
def test_wrong_arguments_are_refused(given):
    with pytest.raises(SettingsError):
        build(given)


def test_it_is_a_serve_application_whose_arguments_may_be_text():
    arguments = {"model": "m", "max_bytes": "5"}  # as `serve run` gives them
    assert Arguments.parse(arguments).max_bytes == 5
    assert isinstance(build(arguments), Application)
