"""What a memory bank lacks of further normal images, against brute force, and that it stays a cover."""

import numpy as np
import pytest
import torch
from conftest import ListedExamples, fitted, made_images, with_defect

from raydiff import methods
from raydiff.methods.further_patches import _Drawn
from raydiff.model.scorer import examples_of
from raydiff.nn.memory_bank import cover_radius, extension, greedy_coreset

BANKED = [name for name in methods.names() if hasattr(methods.get(name), "bank_rows")]


class Further(ListedExamples):
    """Examples that know their images."""

    def __init__(self, examples, images=None):
        super().__init__(examples)
        self.images = images or [f"{place}.png" for place in range(len(examples))]


def farthest_first(vectors, bank, radius, most):
    """The plain loop."""
    vectors, known, taken = vectors.double(), bank.double(), []
    for _ in range(most):
        nearest = torch.cdist(vectors, known).amin(1)
        if nearest.max() <= radius:
            break
        taken.append(int(nearest.argmax()))
        known = torch.cat([known, vectors[taken[-1]][None]])
    return taken


@pytest.mark.parametrize(("radius", "most"), [(1.5, 100), (2.5, 100), (0.5, 7), (100.0, 5), (0.0, 0)])
def test_the_extension_is_the_plain_loops(radius, most):
    torch.manual_seed(0)
    bank, vectors = torch.randn(20, 4), torch.randn(60, 4) * 1.5
    found = extension(vectors, bank, radius, most).tolist()
    assert found == farthest_first(vectors, bank, radius, most)
    assert len(found) == len(set(found)) <= most


def test_without_a_radius_all_are_taken_and_none_twice():
    vectors = torch.zeros(5, 3)
    assert sorted(extension(vectors, torch.zeros(1, 3), -1.0, 9).tolist()) == [0, 1, 2, 3, 4]
    assert len(extension(vectors[:0], torch.zeros(1, 3), 1.0, 9)) == 0


def test_of_more_than_so_many_those_drawn_are_drawn_evenly():
    shares = np.zeros(40)
    for seed in range(300):
        drawn = _Drawn(10, torch.Generator().manual_seed(seed))
        for image in range(40):
            drawn.add(torch.full((1, 2), float(image)), image)
        pool = drawn.pool()
        assert pool.vectors[:, 0].long().tolist() == pool.images.tolist()
        assert len(set(pool.images.tolist())) == 10
        shares[pool.images.numpy()] += 1
    # each is in a quarter of the draws: 75 of 300, with a deviation of 7.5
    assert np.abs(shares - 75).max() < 4 * 7.5


@pytest.mark.parametrize("name", BANKED)
def test_a_bank_that_has_learnt_covers_what_it_was_taught_and_keeps_what_it_knew(name):
    method, known = fitted(name, made_images(8))
    new = with_defect(made_images(6, seed=5))
    examples = examples_of(method, new)
    before = method.memory_bank.clone()
    radius = cover_radius(before)
    found = method.learn(Further(examples), seed=0)
    assert torch.equal(method.memory_bank[: len(before)], before)
    assert len(method.memory_bank) == len(before) + found.added
    assert found.added > 0
    assert not found.full
    vectors = method.standardised(examples).permute(0, 2, 3, 1).flatten(0, 2)
    assert torch.cdist(vectors.double(), method.memory_bank.double()).amin(1).max() <= radius * (1 + 1e-4)
    assert method.learn(Further(known.examples), seed=0).added == 0  # nothing of what it was trained on is new
    assert method.learn(Further(examples), seed=0).added == 0
    assert method.bank_categories.tolist() == [0] * len(method.memory_bank)


def test_what_is_new_later_is_told_by_the_radius_of_before():
    method, _ = fitted("nearest_patch", made_images(8))
    radius = method.cover_radii.clone()
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    method.learn(Further(examples_of(method, noise[:1])), seed=0)  # its last vectors lie far from all others
    assert torch.equal(method.cover_radii, radius)
    later = examples_of(method, with_defect(made_images(6, seed=5)))
    found = method.learn(Further(later), seed=0)
    assert found.added > 0
    vectors = method.standardised(later).permute(0, 2, 3, 1).flatten(0, 2)
    reach = torch.cdist(vectors.double(), method.memory_bank.double()).amin(1).max()
    assert reach <= float(radius[0, 0]) * (1 + 1e-4)


def test_a_model_from_before_radii_were_kept_has_them_of_its_bank():
    images = np.concatenate([made_images(8), 255 - made_images(8, seed=1) // 3])
    method, _ = fitted("nearest_patch", images, categories=["bright"] * 8 + ["dark"] * 8)
    expected = [[cover_radius(method.memory_bank[rows])] for rows in method.bank_rows()]
    assert torch.allclose(method.cover_radii, torch.tensor(expected))
    state = {name: value for name, value in method.state_dict().items() if name != "cover_radii"}
    again = type(method).untrained(method.settings)
    again.load_trained(state)
    assert torch.equal(again.cover_radii, method.cover_radii)


def test_what_is_learnt_comes_back_from_a_file(tmp_path):
    from raydiff.model.folder import Model, load

    method, _ = fitted("nearest_patch", made_images(8))
    new = with_defect(made_images(4, seed=5))
    before = Model(method, method.ScoreSettings()).score(list(new)).scores
    method.learn(Further(examples_of(method, new)), seed=0)
    model = Model(method, method.ScoreSettings())
    model.save(str(tmp_path / "model"))
    scores = load(str(tmp_path / "model"), "cpu").score(list(new)).scores
    assert np.array_equal(scores, model.score(list(new)).scores)
    assert (scores < before).all()


def test_a_bank_grows_to_twice_what_training_gives_it_and_says_that_it_is_full():
    method, _ = fitted("nearest_patch", made_images(8), bank_size=20)
    found = method.learn(Further(examples_of(method, with_defect(made_images(30, seed=5)))), seed=0)
    assert found.full
    assert len(method.memory_bank) == 40


def test_each_category_learns_for_itself():
    images = np.concatenate([made_images(8), 255 - made_images(8, seed=1) // 3])
    method, _ = fitted("nearest_patch", images, categories=["bright"] * 8 + ["dark"] * 8)
    before = torch.bincount(method.bank_categories).tolist()
    kept = [method.memory_bank[rows].clone() for rows in method.bank_rows()]
    dark = method.categories.index("dark")
    examples = examples_of(method, with_defect(255 - made_images(6, seed=7) // 3))
    assert method.likely_categories(examples) == ["dark"] * 6
    found = method.learn(Further(examples), seed=0)
    after = torch.bincount(method.bank_categories).tolist()
    assert after[1 - dark] == before[1 - dark]
    assert after[dark] == before[dark] + found.added > before[dark]
    for rows, was in zip(method.bank_rows(), kept, strict=True):
        assert torch.equal(method.memory_bank[rows][: len(was)], was)


def test_several_backbones_learn_as_many_patches_each():
    other = {"name": "efficientnet_b0", "weights": "random", "stages": [0, 1], "grid": 4}
    method, _ = fitted("nearest_patch", made_images(8), further_backbones=[other])
    before = len(method.memory_bank)
    examples = examples_of(method, with_defect(made_images(4, seed=5)))
    radii = [cover_radius(part) for part in method.memory_bank.split(method.parts, 1)]
    found = method.learn(Further(examples), seed=0)
    assert len(method.memory_bank) == before + found.added
    vectors = method.standardised(examples).permute(0, 2, 3, 1).flatten(0, 2).split(method.parts, 1)
    for part, bank, radius in zip(vectors, method.memory_bank.split(method.parts, 1), radii, strict=True):
        assert torch.cdist(part.double(), bank.double()).amin(1).max() <= radius * (1 + 1e-4)


def test_an_image_far_from_all_others_is_named():
    method, _ = fitted("nearest_patch", made_images(12))
    odd = with_defect(made_images(6, seed=5))
    odd[5] = np.random.default_rng(0).integers(0, 256, odd[5].shape, np.uint8)  # like none of the others
    found = method.learn(Further(examples_of(method, odd)), seed=0)
    assert max(found.alone, key=found.alone.get) == "5.png"
    radius = found.alone["5.png"]
    twins = np.concatenate([odd, odd[5:]])
    again, _ = fitted("nearest_patch", made_images(12))
    names = [f"{place}.png" for place in range(7)]
    assert again.learn(Further(examples_of(again, twins), names), seed=0).alone["5.png"] < radius / 2


def test_tiles_of_one_image_are_no_company_to_each_other():
    method, _ = fitted("nearest_patch", made_images(12))
    noise = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    twice = examples_of(method, np.concatenate([noise, noise]))
    apart = method.learn(Further(twice, ["a.png", "a.png"]), seed=0).alone
    again, _ = fitted("nearest_patch", made_images(12))
    together = again.learn(Further(twice, ["a.png", "b.png"]), seed=0).alone
    assert apart["a.png"] > 1
    assert together["a.png"] < 0.01 * apart["a.png"]


def test_a_bank_that_was_chosen_greedily_has_the_radius_that_is_taken_for_its():
    torch.manual_seed(0)
    vectors = torch.randn(300, 5)
    bank = vectors[greedy_coreset(vectors, 40, torch.Generator().manual_seed(0))]
    assert len(extension(vectors, bank, cover_radius(bank) * (1 + 1e-6), 100)) == 0
