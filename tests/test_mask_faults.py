"""What is wrong with masks, and what their sizes have in common."""

from __future__ import annotations

import numpy as np
import pytest

from raydiff.images.mask_faults import OtherSize, fault, one_factor


def sizes(*pairs):
    return [OtherSize(mask, image) for mask, image in pairs]


def test_a_mask_is_held_against_its_image():
    mask = np.zeros((4, 6), bool)
    assert fault(mask, (4, 6, 3)) == "the mask is all black: it marks no defect"
    mask[1, 2] = True
    assert fault(mask, (4, 6, 3)) is None
    found = fault(mask, (6, 4, 3))
    assert found == OtherSize((4, 6), (6, 4))
    assert str(found) == "the mask is 6 x 4 pixels, its image 4 x 6"


@pytest.mark.parametrize("factor", [0.25, 0.5, 1 / 3, 2.0])
def test_one_factor_is_said_whatever_was_rounded(factor):
    images = [(480, 640), (301, 777), (99, 1000)]
    found = sizes(*(((round(h * factor), round(w * factor)), (h, w)) for h, w in images))
    assert (
        one_factor(found) == f"all 3 are {factor:.3g} times as large as their images: bring them to their images' size"
    )


@pytest.mark.parametrize(
    "found",
    [
        [],
        sizes(((240, 320), (480, 640))),  # one says nothing of all
        sizes(((240, 320), (480, 640)), ((480, 640), (480, 640))),
        sizes(((240, 320), (480, 640)), ((240, 640), (480, 640))),  # squeezed
        sizes(((640, 480), (480, 640)), ((640, 480), (480, 640))),  # turned
    ],
)
def test_no_factor_is_made_up(found):
    assert one_factor(found) == ""
