"""The HTTP service's handling of requests, without Ray and without a network; tests/test_serving.py has both."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
from typing import NamedTuple

import jsonschema
import numpy as np
import pytest
import requests
from conftest import calibrated_model, fitted, made_images
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from ray.serve import Application

import raydiff
from raydiff import cluster
from raydiff.errors import SettingsError
from raydiff.images.decode import decode
from raydiff.images.overlay import OPACITY, overlay
from raydiff.model.calibration import Calibration
from raydiff.model.folder import Model
from raydiff.scoring import service as module
from raydiff.scoring.answers import DOTS
from raydiff.scoring.service import Arguments, Service, build
from raydiff.scoring.tokens import TOKEN, hashed_token
from raydiff.views import View


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


def started(folder, monkeypatch, token_hash=None, **limits) -> Service:
    monkeypatch.setattr(cluster, "use_assigned_device", lambda: "cpu")  # else Ray is asked
    return Service(Arguments(model=folder, **limits), token_hash)


def test_openvino_finds_what_torch_finds(folder, service, monkeypatch):
    data = encoded(made_images(1, 40, seed=9)[0])
    other = started(folder, monkeypatch, engine="openvino")
    assert other.answer(data)["score"] == pytest.approx(service.answer(data)["score"], rel=1e-4)
    assert other.described == service.described


class Told(NamedTuple):
    status: int
    answer: dict
    headers: dict[str, str]
    taken: int  # chunks of the body that were read


async def asking(service, body: bytes, path="/v1/score", method="POST", headers=(), chunk=1000, whole=True) -> Told:
    """What a request is told, whose body arrives in chunks; one that is not whole is hung up on at its end."""
    path, _, query = path.partition("?")
    chunks = [body[place : place + chunk] for place in range(0, len(body), chunk)] or [b""]
    sent, taken = [], 0

    async def receive():
        nonlocal taken
        taken += 1
        if taken > len(chunks):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunks[taken - 1], "more_body": taken < len(chunks) or not whole}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in dict(headers).items()],
        "server": ("127.0.0.1", 8000),
    }
    await service.__serve_build_asgi_app__()(scope, receive, send)
    start, *parts = sent
    content = b"".join(part.get("body", b"") for part in parts)
    told = {name.decode(): value.decode() for name, value in start["headers"]}
    answer = json.loads(content) if told.get("content-type") == "application/json" else {"content": content}
    return Told(start["status"], answer, told, taken)


def ask(service, body: bytes = b"", path="/v1/score", **how) -> Told:
    return asyncio.run(asking(service, body, path, **how))


def form(files, **fields) -> dict:
    """A form as an independent client makes it: body and headers, for `ask`."""
    made = requests.Request("POST", "http://x/", files=[("image", file) for file in files], data=fields).prepare()
    return {"body": made.body, "headers": {"Content-Type": made.headers["Content-Type"]}}


def picture(uri: str) -> np.ndarray:
    """The pixels in a data URI, RGBA."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))


IMAGE = encoded(made_images(1, 40, seed=9)[0])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_the_score_is_that_of_the_one_scoring_path(service, folder, kind):
    data = encoded(made_images(1, 40, seed=9)[0], kind)
    told = ask(service, data, "/v1/score?category=bolt")
    model = raydiff.load(folder, "cpu")
    score = float(model.score([decode(data)]).scores[0])
    own = model.calibration.categories["bolt"]
    assert told.status == 200
    assert told.headers["cache-control"] == "no-store"
    assert told.answer == {
        "name": None,
        "score": score,
        "p_value": own.p_value(score),
        "threshold": own.threshold,
        "is_anomalous": score > own.threshold,
        "category": "bolt",
        "category_guessed": None,
        "model_id": model.id,
        "width": 40,
        "height": 40,
        "note": None,
        "details": {},
        "map": None,
        "map_box": [0, 0, 40, 40],
        "picture": None,
        "reconstruction": None,
    }


def test_a_category_has_its_own_threshold_and_another_name_that_of_the_likeliest(service, folder):
    model = raydiff.load(folder, "cpu")
    (likely,) = model.score([decode(IMAGE)]).guessed
    assert ask(service, IMAGE, "/v1/score?category=cloth").answer["threshold"] == 1e-9
    assert ask(service, IMAGE, "/v1/score?category=cloth").answer["is_anomalous"] is True
    for query in ("", "?category=", "?category=unheard"):
        answer = ask(service, IMAGE, "/v1/score" + query).answer
        assert answer["category"] == answer["category_guessed"] == likely
        assert answer["threshold"] == model.calibration.categories[likely].threshold


def test_without_a_calibration_there_is_a_score_and_no_alarm(tmp_path, monkeypatch):
    service = started(made_model(tmp_path / "plain", calibrated=False), monkeypatch)
    told = ask(service, IMAGE, "/v1/score?maps=true")
    assert told.status == 200
    assert told.answer["score"] > 0
    for name in ("p_value", "threshold", "is_anomalous", "category", "map"):
        assert told.answer[name] is None
    model = ask(service, path="/v1/model", method="GET").answer
    assert (model["categories"], model["all"]) == ({"bolt": None, "cloth": None}, None)


def test_the_heat_map_laid_over_the_image_is_the_overlay(service, folder):
    answer = ask(service, IMAGE, "/v1/score?maps=true&category=bolt").answer
    layer = picture(answer["map"]).astype(float)
    model = raydiff.load(folder, "cpu")
    found = model.score([decode(IMAGE)], ["bolt"]).maps[0]
    grey = np.full((*found.shape, 3), 128, np.uint8)
    wanted = overlay(grey, found, *model.calibration.categories["bolt"].colour_scale())
    opacity = OPACITY * layer[..., 3:] / 255
    np.testing.assert_allclose((1 - opacity) * grey + opacity * layer[..., :3], wanted, atol=3)  # 256 steps


def test_the_heat_map_lies_where_the_model_looks(tmp_path, monkeypatch):
    method, _ = fitted("nearest_patch", made_images(8), view={"crop": (0.25, 0.5, 0.75, 1.0)})
    model = Model(method, method.ScoreSettings())
    model.save(str(tmp_path))
    image = np.zeros((40, 80, 3), np.uint8)
    assert started(str(tmp_path), monkeypatch).answer(encoded(image))["map_box"] == [20, 20, 40, 20]
    x, y, width, height = View(crop=(0.25, 0.5, 0.75, 1.0)).box(40, 80)
    image[y : y + height, x : x + width] = 255
    assert View(crop=(0.25, 0.5, 0.75, 1.0)).seen(image, 8).min() == 255
    told = ask(started(str(tmp_path), monkeypatch), encoded(np.zeros((40, 80, 3), np.uint8)))
    assert told.status == 200


def test_the_picture_is_what_the_model_reads(service):
    turned = io.BytesIO()
    pixels = np.zeros((30, 50, 3), np.uint8)
    pixels[:, 25:] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a right angle when it is shown
    Image.fromarray(pixels).save(turned, "JPEG", exif=exif, quality=95)
    answer = ask(service, turned.getvalue(), "/v1/score?picture=1").answer
    shown = picture(answer["picture"])
    assert shown.shape[:2] == (answer["height"], answer["width"]) == (50, 30)
    np.testing.assert_allclose(shown[..., :3].astype(int), decode(turned.getvalue()), atol=6)


def test_several_images_in_a_form_are_scored_as_each_alone(service):
    files = [encoded(image) for image in made_images(3, 40, seed=4)]
    names = ["first.png", "zweites Stück.png", 'third".png']
    told = ask(service, **form(list(zip(names, files, strict=True)), category="bolt", maps="true"))
    assert told.status == 200
    alone = [ask(service, file, "/v1/score?category=bolt&maps=true").answer for file in files]
    for found, single, name in zip(told.answer["images"], alone, names, strict=True):
        assert found == {**single, "name": name.replace('"', "%22")}  # as HTML's standard has clients send it


def test_a_bad_image_of_a_form_says_so_and_the_others_are_scored(service):
    told = ask(service, **form([("good.png", IMAGE), ("bad.png", b"no image"), ("none.png", b"")]))
    good, bad, none = told.answer["images"]
    assert told.status == 200
    assert good["score"] > 0
    assert "no PNG" in bad["error"]
    assert "empty" in none["error"]
    told = ask(service, **form([("bad.png", b"no image"), ("none.png", b"")]))
    assert (told.status, told.answer["error"]) == (422, "none of the 2 images can be scored")
    told = ask(service, **form([("bad.png", b"no image")]))
    assert (told.status, "no PNG" in told.answer["error"]) == (422, True)


@pytest.mark.parametrize(("body", "reason"), [(b"", "empty"), (b"no image at all", "no PNG"), (IMAGE[:200], "damaged")])
def test_what_is_no_image_is_refused_with_a_reason(service, body, reason):
    told = ask(service, body)
    assert told.status == 422
    assert reason in told.answer["error"]


def test_a_file_of_several_pages_is_told_how_to_name_one(service):
    sink = io.BytesIO()
    first, *others = (Image.fromarray(image) for image in made_images(3, 40))
    first.save(sink, "TIFF", save_all=True, append_images=others)
    for path in ("/v1/score", "/v1/score?page=4"):
        told = ask(service, sink.getvalue(), path)
        assert (told.status, told.answer["error"].endswith("; say which one is meant with page=NUMBER")) == (422, True)
        assert "--" not in told.answer["error"]
        assert ask(service, **form([("a.tif", sink.getvalue())])).answer["error"].endswith("page=NUMBER")
    assert ask(service, sink.getvalue(), "/v1/score?page=3").status == 200


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("page=0", "page"),
        ("page=x", "page"),
        ("maps=perhaps", "maps"),
        ("categry=bolt", "did you mean 'category'"),
        ("category=" + "x" * 1001, "category"),
    ],
)
def test_what_a_request_says_beside_its_image_is_read_strictly(service, query, reason):
    told = ask(service, IMAGE, "/v1/score?" + query)
    assert told.status == 400
    assert reason in told.answer["error"]
    name, _, value = query.partition("=")
    assert ask(service, **form([("a.png", IMAGE)], **{name: value})).status == 400


def test_an_image_of_too_many_pixels_is_refused(folder, monkeypatch):
    service = started(folder, monkeypatch, max_pixels=40 * 40)
    assert ask(service, encoded(np.zeros((40, 40, 3), np.uint8))).status == 200
    told = ask(service, encoded(np.zeros((41, 40, 3), np.uint8)))
    assert told.status == 422
    assert "more than the limit of 1,600" in told.answer["error"]


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "100"}, {"Content-Length": "-5"}])
def test_a_body_that_is_too_long_is_not_read_to_its_end(folder, monkeypatch, headers):
    told = ask(started(folder, monkeypatch, max_bytes=2500), bytes(100_000), headers=headers)
    assert told.status == 413
    assert "2,500" in told.answer["error"]
    assert told.taken == 3  # of a hundred


def test_a_body_that_says_it_is_too_long_is_not_read_at_all(folder, monkeypatch):
    told = ask(started(folder, monkeypatch, max_bytes=2500), bytes(3000), headers={"Content-Length": "3000"})
    assert (told.status, told.taken) == (413, 0)


def test_too_many_images_are_refused(folder, monkeypatch):
    service = started(folder, monkeypatch, max_images=2)
    assert ask(service, **form([("a.png", IMAGE)] * 2)).status == 200
    for count in (3, 50):
        told = ask(service, **form([("a.png", IMAGE)] * count))
        assert told.status == 413
        assert "limit here" in told.answer["error"]


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"]
)
def test_a_form_without_its_boundary_is_refused(service, kind):
    made = form([("a.png", IMAGE)])
    told = ask(service, made["body"], headers={"Content-Type": kind})
    assert told.status == 400
    assert "form" in told.answer["error"]


def test_a_form_without_an_image_is_refused(service):
    empty = requests.Request("POST", "http://x/", files=[("category", (None, "bolt"))]).prepare()
    told = ask(service, empty.body, headers={"Content-Type": empty.headers["Content-Type"]})
    assert (told.status, "no image" in told.answer["error"]) == (400, True)


def test_broken_forms_are_told_so(service, monkeypatch):
    monkeypatch.setattr(service, "_answer", lambda *_: {})  # forms are what is looked at
    made = form([("a.png", IMAGE[:300]), ("b.png", b"x")], category="bolt")
    rng = random.Random(0)
    seen = set()
    for _ in range(300):
        body = bytearray(made["body"])
        for _ in range(rng.randint(0, 3)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        cut = bytes(body[: rng.randrange(len(body))]) if rng.random() < 0.5 else bytes(body)
        told = ask(service, cut, headers=made["headers"], chunk=10**6)
        seen.add(told.status)
        assert told.status == 200 or told.answer["error"]
    assert seen == {200, 400}


def test_a_request_that_is_hung_up_on_says_nothing_of_an_image(service):
    assert ask(service, IMAGE[:100], whole=False).status == 400


def test_those_who_bring_the_token_are_answered_and_no_others(folder, monkeypatch):
    monkeypatch.setenv(TOKEN, "horse-battery")
    service = started(folder, monkeypatch, hashed_token())
    for given in (
        None,
        "Bearer wrong",
        "Bearer ",
        "Basic horse-battery",
        "horse-battery",
        "Bearer horse-battery\u00e9",
    ):
        headers = {"Authorization": given} if given else {}
        for path, method in (("/v1/score", "POST"), ("/v1/model", "GET")):
            told = ask(service, IMAGE, path, method=method, headers=headers)
            assert (told.status, told.headers["www-authenticate"], told.taken) == (401, "Bearer", 0), given
            assert "token" in told.answer["error"]
    right = {"Authorization": "bearer horse-battery"}
    assert ask(service, IMAGE, headers=right).status == 200
    assert ask(service, path="/v1/model", method="GET", headers=right).status == 200
    for path in ("/", "/page.js", "/docs", "/healthz", "/openapi.json"):  # tell nothing of the model
        assert ask(service, path=path, method="GET").status == 200


@pytest.mark.parametrize("token", ["", " ", "with space", "schlüssel", "line\n"])
def test_a_token_that_cannot_be_sent_is_refused(monkeypatch, token):
    monkeypatch.setenv(TOKEN, token)
    with pytest.raises(SettingsError, match=TOKEN):
        build({"model": "m"})


def test_replicas_are_told_the_tokens_hash_alone(monkeypatch):
    monkeypatch.setenv(TOKEN, "horse-battery")
    assert "horse" not in repr(build({"model": "m"})._bound_deployment.init_args)


def test_who_comes_when_all_places_are_taken_is_sent_away(folder, monkeypatch):
    monkeypatch.setattr(module, "PLACES", 2)
    service = started(folder, monkeypatch)

    async def crowd():
        return await asyncio.gather(*(asking(service, IMAGE) for _ in range(4)))

    told = asyncio.run(crowd())
    assert [each.status for each in told] == [200, 200, 503, 503]
    assert int(told[-1].headers["retry-after"]) >= 1
    assert told[-1].taken == 0
    assert "again later" in told[-1].answer["error"]
    assert ask(service, IMAGE).status == 200  # places are given back


def test_a_request_that_takes_too_long_is_ended(folder, monkeypatch):
    service = started(folder, monkeypatch, max_seconds=0.05)

    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(service, "answered", never)
    told = ask(service, IMAGE)
    assert (told.status, "retry-after" in told.headers) == (503, True)
    assert "0.05 s" in told.answer["error"]


def test_a_failure_of_the_service_is_told_as_one(service, monkeypatch):
    async def fails(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(service, "answered", fails)

    async def asked():
        with pytest.raises(ZeroDivisionError):  # goes on to Serve's log
            await asking(service, IMAGE)

    asyncio.run(asked())


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "POST", 405), ("/v1/score", "GET", 405), ("/v1/model", "POST", 405), ("/page.py", "GET", 404)],
)
def test_other_places_and_methods_are_refused(service, path, method, status):
    told = ask(service, b"", path, method=method)
    assert (told.status, told.taken) == (status, 0)
    assert path in told.answer["error"]
    assert status == 404 or told.headers["allow"]


def test_the_model_is_told_with_its_normals(tmp_path, monkeypatch):
    folder = calibrated_model(tmp_path, "bolt")
    service = started(folder, monkeypatch, max_images=7)
    told = ask(service, path="/v1/model", method="GET").answer
    own = raydiff.load(folder, "cpu").calibration.categories["bolt"]
    assert told["model_id"] == service.model_id
    assert (told["method"], told["guesses"], told["reads_levels"]) == ("nearest_patch", True, False)
    assert told["limits"]["max_images"] == 7
    assert told["categories"]["bolt"]["scores"] == list(own.scores)  # forty
    assert told["categories"]["bolt"]["threshold"] == own.threshold
    assert "at most 10.00% false alarms" in told["categories"]["bolt"]["promise"]


def test_many_normals_are_told_by_quantiles(tmp_path, monkeypatch):
    made_model(tmp_path, calibrated=False)
    model = raydiff.load(str(tmp_path), "cpu")
    scores = np.random.default_rng(0).gamma(2, 1, 3000)
    model.calibration = Calibration.fit({"bolt": scores.tolist()}, 0.01)
    model.save_description(str(tmp_path))
    told = started(str(tmp_path), monkeypatch).described.categories["bolt"]
    assert told.normals == 3000
    wanted = np.quantile(scores, (np.arange(DOTS) + 0.5) / DOTS)
    np.testing.assert_allclose(told.scores, wanted, rtol=0.01)


def test_prometheus_reads_what_was_done(service):
    def counted() -> dict[tuple[str, str], float]:
        told = ask(service, path="/metrics", method="GET")
        assert told.headers["content-type"].startswith("text/plain; version=")
        families = text_string_to_metric_families(told.answer["content"].decode())
        return {
            (sample.name, sample.labels.get("outcome") or sample.labels.get("status") or ""): sample.value
            for family in families
            for sample in family.samples
            if sample.labels["model_id"] == service.model_id and "le" not in sample.labels
        }

    told = [ask(service, IMAGE).answer["is_anomalous"] for _ in range(3)]
    ask(service, b"no image")
    body, headers = form([("a.png", IMAGE), ("b.png", b"")]).values()
    ask(service, body, headers=headers)
    outcome = "anomalous" if told[0] else "normal"
    found = counted()
    assert found["raydiff_images_total", outcome] == 4
    assert found["raydiff_images_total", "not_scored"] == 2
    assert (found["raydiff_requests_total", "200"], found["raydiff_requests_total", "422"]) == (4, 1)
    assert found["raydiff_score_seconds_count", ""] == 6


def test_answers_are_as_the_api_is_described(service):
    described = ask(service, path="/openapi.json", method="GET").answer
    routes = {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert routes == {("/healthz", "get"), ("/v1/model", "get"), ("/v1/score", "post")}

    def check(told: Told, path: str, method: str) -> None:
        schema = described["paths"][path][method]["responses"][str(told.status)]["content"]["application/json"][
            "schema"
        ]
        jsonschema.validate(told.answer, {**schema, "components": described["components"]})

    check(ask(service, path="/healthz", method="GET"), "/healthz", "get")
    check(ask(service, path="/v1/model", method="GET"), "/v1/model", "get")
    files = [("a.png", IMAGE), ("b.png", b"")]
    for told in (
        ask(service, IMAGE, "/v1/score?maps=1&picture=1"),
        ask(service, b""),
        ask(service, IMAGE, "/v1/score?page=0"),
        ask(service, **form(files)),
        ask(service, **form(files[1:])),
    ):
        check(told, "/v1/score", "post")


def test_the_page_asks_for_nothing_from_elsewhere(service):
    page = ask(service, path="/", method="GET")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    text = page.answer["content"].decode()
    assert not re.search(r"<script>|<style| style=| on\w+=", text)  # the policy would not have them
    scripts = ["docs.js", "api.js", "viewer.js", "plot.js", "gallery.js", "result.js"]
    for name in [*re.findall(r'(?:src|href)="([\w.]+)"', text), *scripts]:
        told = ask(service, path=f"/{name}", method="GET")
        assert told.status == 200
        text += told.answer["content"].decode()
    places = set(re.findall(r"(?:https?:)?//[\w.]+", text)) - {"http://www.w3.org"}  # names of XML's, not addresses
    assert not places


@pytest.mark.parametrize("given", [{}, {"model": ""}, {"model": "m", "max_byte": 5}, {"model": "m", "max_bytes": 0}])
def test_wrong_arguments_are_refused(given):
    with pytest.raises(SettingsError):
        build(given)


def test_it_is_a_serve_application_whose_arguments_may_be_text():
    arguments = {"model": "m", "max_bytes": "5"}  # as `serve run` gives them
    assert Arguments.parse(arguments).max_bytes == 5
    assert isinstance(build(arguments), Application)
