"""The large demo set: what is drawn, that it is the same each time, and how small its defects are."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from raydiff.errors import DataError
from raydiff.images.large_demo import LARGEST, PRODUCTS, SMALLEST, draw
from raydiff.images.survey import find_images

SMALL = {"train": 2, "test_good": 1, "test_defective": 6, "height": 300, "width": 420}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large") / "images"
    draw(str(folder), **SMALL)
    return folder


def pixels(file) -> np.ndarray:
    return np.asarray(Image.open(file))


def test_it_is_a_data_set_in_mvtecs_layout(drawn):
    found = find_images(str(drawn)).to_pylist()
    assert sorted({row["category"] for row in found}) == sorted(PRODUCTS)
    for name, product in PRODUCTS.items():
        own = [row for row in found if row["category"] == name]
        counts = {split: sum(row["split"] == split for row in own) for split in ("train", "test")}
        assert counts == {"train": 2, "test": 7}
        assert {row["defect"] for row in own if row["label"] == 1} == set(product.flaws)
        assert all(row["mask_uri"] for row in own if row["label"] == 1)
    assert {pixels(row["uri"]).shape for row in found} == {(300, 420)}


def test_defects_are_a_few_pixels_wide_and_can_be_seen(drawn):
    for file in sorted(drawn.glob("*/ground_truth/*/*.png")):
        mask = pixels(file) > 0
        image = pixels(drawn / file.parts[-4] / "test" / file.parts[-2] / file.name.replace("_mask.png", ".jpg"))
        _, count = ndimage.label(mask, np.ones((3, 3)))
        assert count == 1
        area = mask.sum()
        assert np.pi * SMALLEST**2 / 8 < area < 1.2 * np.pi * LARGEST**2 / 4
        around = ndimage.binary_dilation(mask, iterations=6) & ~ndimage.binary_dilation(mask, iterations=2)
        assert abs(float(image[mask].mean()) - float(image[around].mean())) > 10


def test_the_same_seed_draws_the_same_and_another_others(drawn, tmp_path):
    draw(str(drawn), **SMALL)  # is there already
    draw(str(tmp_path / "again"), **SMALL)
    draw(str(tmp_path / "other"), seed=1, **SMALL)
    for file in drawn.glob("*/t*/*/*.jpg"):
        place = file.relative_to(drawn)
        assert (tmp_path / "again" / place).read_bytes() == file.read_bytes()
        assert (tmp_path / "other" / place).read_bytes() != file.read_bytes()


def test_a_folder_of_other_images_is_refused(drawn):
    with pytest.raises(DataError, match="holds other demo images"):
        draw(str(drawn), **{**SMALL, "train": 3})
