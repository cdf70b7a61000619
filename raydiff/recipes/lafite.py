"""LafitE's published results (Yao et al., arXiv 2307.08059): one model for all categories."""

from __future__ import annotations

from raydiff.recipes.recipe import MEAN, Published, Recipe

_SOURCE = "the paper's tables, mean of 5 seeds"
_HARDWARE = "one RTX 3090, 24 GB"
_MVTEC = {
    "bottle": (1.000, 0.984),
    "cable": (0.972, 0.973),
    "capsule": (0.968, 0.989),
    "hazelnut": (1.000, 0.984),
    "metal_nut": (0.998, 0.968),
    "pill": (0.980, 0.967),
    "screw": (0.954, 0.995),
    "toothbrush": (0.929, 0.988),
    "transistor": (0.996, 0.974),
    "zipper": (0.994, 0.983),
    "carpet": (0.998, 0.987),
    "grid": (0.999, 0.985),
    "leather": (1.000, 0.992),
    "tile": (1.000, 0.932),
    "wood": (0.987, 0.943),
    MEAN: (0.985, 0.976),
}
_MPDD = {
    "bracket_black": (0.985, 0.993),
    "bracket_brown": (0.965, 0.995),
    "bracket_white": (0.924, 0.984),
    "connector": (0.967, 0.991),
    "metal_plate": (1.000, 0.987),
    "tubes": (0.948, 0.992),
    MEAN: (0.965, 0.990),
}


def lafite_mvtec() -> Recipe:
    """LafitE on MVTec AD, one model for all 15 categories.

    raydiff recipe lafite_mvtec --data MVTEC --out OUT

    Published: image AUROC .985, pixel AUROC .976 (5 seeds; .982 and .974 without editing). On one RTX 3090; hours are
    not stated, 1,000 epochs of 3,629 images at batch 64 are 56,700 steps. Measured: not run.
    """
    return _recipe("LafitE on MVTec AD", _MVTEC, {"train_steps": 56_700})


def lafite_mpdd() -> Recipe:
    """LafitE on MPDD, one model for all 6 categories.

    raydiff recipe lafite_mpdd --data MPDD --out OUT

    Published: image AUROC .965, pixel AUROC .990 (5 seeds; .936 and .983 without editing). On one RTX 3090; hours are
    not stated, 1,000 epochs of 888 images at batch 64 are 13,900 steps. Measured: not run.
    """
    return _recipe("LafitE on MPDD", _MPDD, {"train_steps": 13_900})


def _recipe(title: str, table: dict[str, tuple[float, float]], settings: dict[str, int]) -> Recipe:
    published: Published = {
        name: {"image_auroc": image, "pixel_auroc": pixel} for name, (image, pixel) in table.items()
    }
    return Recipe(
        title=title,
        method="lafite",
        settings=settings,
        per_category=False,
        evaluation_size=224,
        published=published,
        source=_SOURCE,
        hardware=_HARDWARE,
        hours="not stated",
    )
