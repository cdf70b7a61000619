"""The generic suite: every registered method trains a little, saves, loads, scores, resumes, and refuses bad input."""

import functools

import numpy as np
import pytest
import torch
from conftest import (
    LAFITES_UNET,
    SLOW_TO_LEARN,
    TO_BE_CHOSEN,
    TRAINED,
    ListedExamples,
    fitted,
    made_images,
    tiny_score,
    tiny_settings,
    with_defect,
)
from sklearn.metrics import roc_auc_score

import raydiff
from raydiff import methods
from raydiff.errors import SettingsError
from raydiff.model import scorer
from raydiff.model.scorer import examples_of, image_key, score_examples, score_images
from raydiff.training.loop import TrainingLoop

every_method = pytest.mark.parametrize("name", methods.names())
UNETS = {"lafite": LAFITES_UNET}  # the others have nothing else
trained_methods = pytest.mark.parametrize("name", TRAINED)


@functools.cache
def train_a_little(name):
    """The same for all tests, none of which changes it."""
    method, examples = fitted(name, made_images(12))
    if method.trained is None:
        return method
    loop = TrainingLoop(method, examples, seed=0)
    while not loop.finished:
        loop.advance()
    return loop.finish()


@pytest.mark.parametrize("name", sorted(set(methods.names()) - SLOW_TO_LEARN))
def test_a_little_training_tells_defects_from_normals(name):
    method = train_a_little(name)
    normal = made_images(12, seed=5)
    found = score_images(method, np.concatenate([normal, with_defect(normal)]), method.ScoreSettings(blur_sigma=1))
    assert found.maps.shape == (24, 32, 32)
    assert found.maps.dtype == np.float32
    assert np.isfinite(found.maps).all()
    assert roc_auc_score([0] * 12 + [1] * 12, found.scores) > 0.9
    inside = found.maps[12:, 8:16, 8:16].mean()
    assert inside > 1.2 * found.maps[12:, 20:, 20:].mean()


@every_method
def test_a_saved_model_scores_to_the_bit_the_same(name, tmp_path):
    method = train_a_little(name)
    images = made_images(3, seed=9)
    model = raydiff.Model(method, tiny_score(name))
    model.save(str(tmp_path / "model"))
    loaded = raydiff.load(str(tmp_path / "model"), "cpu")
    assert loaded.id == model.id
    np.testing.assert_array_equal(loaded.score(images).scores, model.score(images).scores)
    np.testing.assert_array_equal(loaded.score(images).maps, model.score(images).maps)


@every_method
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_score_does_not_depend_on_batch_or_neighbours(name, chunk, monkeypatch):
    monkeypatch.setitem(scorer.CHUNK, "cpu", chunk)
    method = train_a_little(name)
    images = made_images(9, seed=3)
    settings = tiny_score(name)
    together = score_images(method, images, settings)
    for order in ([8, 2, 5, 0, 1, 3, 4, 6, 7], [4], [7, 4], [4] * 6):
        again = score_images(method, images[order], settings)
        np.testing.assert_array_equal(again.scores, together.scores[order])
        np.testing.assert_array_equal(again.maps, together.maps[order])


@every_method
def test_scores_of_kept_examples_are_those_of_the_images(name):
    method = train_a_little(name)
    images = made_images(4, seed=3)
    settings = tiny_score(name)
    kept = score_examples(method, examples_of(method, images), [image_key(i) for i in images], settings)
    np.testing.assert_array_equal(kept.scores, score_images(method, images, settings).scores)


@every_method
def test_images_of_any_size_are_resized(name):
    model = raydiff.Model(train_a_little(name), tiny_score(name))
    found = model.score([made_images(1, 50)[0], made_images(1, 20)[0][:, :9]])
    assert found.scores.shape == (2,)
    assert model.score([]).maps.shape == (0, 32, 32)


@every_method
@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)]
)
def test_an_array_that_is_no_rgb_image_is_refused(name, image):
    with pytest.raises(SettingsError, match=r"image 0 is .*uint8 RGB"):
        raydiff.Model(train_a_little(name), tiny_score(name)).score([image])


@every_method
def test_an_unknown_setting_is_refused_with_a_hint(name):
    with pytest.raises(SettingsError, match="did you mean 'blur_sigma'"):
        methods.get(name).ScoreSettings.parse({"blur_sgima": 2})
    with pytest.raises(SettingsError, match="did you mean 'image_size'"):
        tiny_settings(name, imagesize=64)


@every_method
def test_presets_are_whole(name):
    for preset in ("demo", "small", "paper"):
        methods.recipe(name, preset, TO_BE_CHOSEN.get(name))
    with pytest.raises(SettingsError, match="no preset 'huge'"):
        methods.recipe(name, "huge")


@trained_methods
def test_training_follows_its_seed_and_resumes_exactly(name):
    def losses(seed, stop_at=None):
        method, examples = fitted(name, made_images(10))
        loop = TrainingLoop(method, examples, seed)
        found = []
        while not loop.finished:
            if loop.step == stop_at:
                state = loop.state()
                trained_so_far = method.state_dict()
                method, _ = fitted(name, made_images(10), seed=77)
                method.load_trained({key: value.clone() for key, value in trained_so_far.items()})
                torch.nn.init.zeros_(next(method.trained.parameters()))
                loop = TrainingLoop(method, examples, seed)
                loop.load_state(state)
            found.append(loop.advance())
        return found, loop.finish().state_dict()

    whole, state = losses(0)
    again, _ = losses(0)
    resumed, resumed_state = losses(0, stop_at=7)
    other, _ = losses(1)
    assert again == whole
    assert resumed == whole
    assert other != whole
    for key, value in state.items():
        assert torch.equal(resumed_state[key], value), key


@trained_methods
def test_networks_train_in_the_precision_asked_for_and_score_in_their_own(name, monkeypatch):
    def loss_and_scores(precision):
        torch.manual_seed(0)
        method = methods.get(name)(tiny_settings(name, precision=precision, **UNETS.get(name, {}))).eval()
        images = made_images(8)
        examples = ListedExamples(examples_of(method, images))
        method.fit_statistics(examples, 0)
        scores = score_images(method, images, tiny_score(name)).scores  # untrained: the same networks
        return TrainingLoop(method, examples, seed=0).advance(), scores

    (exact, scores), (low, low_scores) = map(loss_and_scores, ("float32", "bfloat16"))
    assert low != exact
    assert low == pytest.approx(exact, rel=0.05)
    np.testing.assert_array_equal(scores, low_scores)
    for can, wanted in (({}, exact), ({"avx512_bf16": False}, exact), ({"amx_bf16": True}, low)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda can=can: can)
        auto, auto_scores = loss_and_scores("auto")
        assert auto == wanted
        np.testing.assert_array_equal(scores, auto_scores)


@pytest.mark.parametrize("name", methods.names())
def test_examples_need_no_network_that_is_trained(name):
    images = torch.from_numpy(made_images(3))
    settings = tiny_settings(name, **UNETS.get(name, {}))
    whole, part = (make(settings).eval() for make in (methods.get(name), methods.get(name).for_examples))
    assert torch.equal(part.example(images), whole.example(images))
    assert part.example_key() == whole.example_key()
    weights = [sum(map(torch.Tensor.numel, method.parameters())) for method in (part, whole)]
    assert weights[0] < weights[1] or name == "nearest_patch"


@trained_methods
def test_only_what_is_trained_changes(name):
    method, examples = fitted(name, made_images(6), **UNETS.get(name, {}))
    before = {key: value.clone() for key, value in method.state_dict().items()}
    loop = TrainingLoop(method, examples, seed=0)
    loop.advance()
    own = {id(value) for value in method.trained.parameters()}
    for key, value in method.named_parameters():
        assert (id(value) in own) == (not torch.equal(before[key], value.detach())) or value.grad is None, key
    own |= {id(value) for value in method.trained.buffers()}  # running statistics
    for key, value in method.named_buffers():
        if key in before and id(value) not in own:
            assert torch.equal(before[key], value), key


def test_there_is_no_method_of_an_unknown_name():
    with pytest.raises(SettingsError, match=r"no method 'lafit'; the methods are .*lafite"):
        methods.get("lafit")


def test_listed_examples_are_a_store():
    assert len(ListedExamples(torch.zeros(7, 2))) == 7
