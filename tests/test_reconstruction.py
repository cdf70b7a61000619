"""What a method takes an image for, as a picture: of the method, of images in tiles, over HTTP and on the page."""

from __future__ import annotations

import browser
import numpy as np
import pytest
import torch
from conftest import fitted, made_images, with_defect
from test_page import DONE, site
from test_service import ask, encoded, picture, started

from raydiff import cluster, methods
from raydiff.model.calibration import Calibration
from raydiff.model.folder import Model
from raydiff.model.scorer import score_images

MAKERS = ("diffusion_ad", "glad")


def seeing(name: str, **settings) -> Model:
    method, _ = fitted(name, made_images(8), **settings)
    return Model(method, method.ScoreSettings())


def as_it_is(model: Model, monkeypatch) -> None:
    """Have the method take each image for what it is."""
    method = model.method
    if method.name == "diffusion_ad":
        monkeypatch.setattr(method, "reconstruct", lambda images, keys, score, draw=0: images)
    else:
        monkeypatch.setattr(method, "_encode", lambda images: images)
        monkeypatch.setattr(method, "_denoised", lambda latents, keys, score: (latents, {}))
        monkeypatch.setattr(method, "_decode", lambda latents: latents)


def test_only_methods_that_make_pictures_say_so():
    assert [name for name in methods.names() if seeing(name).method.reconstructs] == sorted(MAKERS)
    for name in set(methods.names()) - set(MAKERS):
        assert seeing(name).reconstruction(made_images(1)[0]) is None


@pytest.mark.parametrize("name", MAKERS)
def test_a_picture_is_made_of_the_image_alone_and_scores_stay(name):
    model = seeing(name)
    images = with_defect(made_images(3, seed=9))
    before = score_images(model.method, images, model.score_settings).scores
    found = [model.reconstruction(image) for image in images]
    assert {(each.dtype, each.shape) for each in found} == {(np.dtype(np.uint8), images[0].shape)}
    np.testing.assert_array_equal(model.reconstruction(images[1]), found[1])
    np.testing.assert_array_equal(score_images(model.method, images, model.score_settings).scores, before)


@pytest.mark.parametrize("name", MAKERS)
def test_it_is_what_the_score_is_computed_from(name, monkeypatch):
    model = seeing(name)
    (image,) = made_images(1, seed=9)
    seen, decode = [], model.method._decode if name == "glad" else model.method._segment
    if name == "glad":
        monkeypatch.setattr(model.method, "_decode", lambda latents: seen.append(decode(latents)) or seen[-1])
    else:
        monkeypatch.setattr(model.method, "_segment", lambda images, made: seen.append(made) or decode(images, made))
    model.score_seen([image])
    wanted = torch.nn.functional.interpolate(seen[-1][:1], image.shape[:2], mode="bilinear", align_corners=False)
    wanted = wanted[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255
    np.testing.assert_allclose(model.reconstruction(image).astype(float), wanted, atol=0.51)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("view", [{}, {"tile": 32, "overlap": 8}])
def test_of_a_method_that_takes_images_for_themselves_it_is_the_image(name, view, monkeypatch):
    model = seeing(name, view=view)
    as_it_is(model, monkeypatch)
    (image,) = made_images(1, 75 if view else 32, seed=4)
    np.testing.assert_allclose(model.reconstruction(image).astype(int), image, atol=1)  # tiles fade in float32


def test_it_is_given_over_http_where_it_is_asked_for(tmp_path, monkeypatch):
    model = seeing("diffusion_ad")
    model.save(str(tmp_path))
    service = started(str(tmp_path), monkeypatch)
    (image,) = made_images(1, 50, seed=2)
    assert ask(service, path="/v1/model", method="GET").answer["reconstructs"] is True
    assert ask(service, encoded(image)).answer["reconstruction"] is None
    told = ask(service, encoded(image), "/v1/score?reconstruction=true").answer
    wanted = model.reconstruction(model.view.seen(image, model.image_size))
    shown = picture(told["reconstruction"])[..., :3]  # a JPEG of what is mostly noise: its brightness is kept
    assert np.corrcoef(shown.mean(2).ravel(), wanted.mean(2).ravel())[0, 1] > 0.98
    assert told["map_box"] == [0, 0, 50, 50]


@pytest.mark.browser
def test_the_page_lays_it_over_the_image(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(cluster, "use_assigned_device", lambda: "cpu")
    model = seeing("diffusion_ad")
    model.calibration = Calibration.fit({"bolt": model.score(list(made_images(12, seed=5))).scores.tolist()}, 0.1)
    model.save(str(tmp_path / "model"))
    (tmp_path / "odd.png").write_bytes(encoded(with_defect(made_images(1, 40, seed=9))[0]))
    layer = "(at => !at.hidden && at.complete && at.naturalWidth)(document.getElementById('made'))"
    with site(str(tmp_path / "model")) as url, browser.opened(tmp_path_factory.mktemp("profile")) as tab:
        tab.size(900, 700)
        tab.open(url)
        tab.wait("document.getElementById('model').textContent.includes('diffusion_ad')")
        tab.choose("#files", tmp_path / "odd.png")
        tab.wait(DONE)
        assert not tab.ask(layer)
        tab.ask("document.getElementById('reconstruct').click()")
        tab.wait(layer)
        assert tab.ask("document.getElementById('made').naturalWidth") == model.image_size
        assert tab.ask("document.getElementById('made').style.width") == "40px"
        tab.ask("document.getElementById('reconstruct').click()")
        tab.wait("document.getElementById('made').hidden")
        assert tab.errors == []
