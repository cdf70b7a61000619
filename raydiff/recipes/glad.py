"""GLAD's published results (Yao et al., ECCV 2024, arXiv 2406.07487): Stable Diffusion 1.4, trained on.

The authors chose thresholds, first steps, the weight of pixels and checkpoints for each category by test labels
(their issues 14 and 42). Here all score settings come from made anomalies and the last weights are taken, so these
recipes do not promise the published numbers. DTD's textures and Stable Diffusion's folder are given with --set:
texture_sources=["URI of DTD","self"], pretrained=URI.
"""

from __future__ import annotations

from typing import Any

from raydiff.recipes.recipe import MEAN, Recipe

_METRICS = ("image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")
_HARDWARE = "one A6000, 48 GB, batch 32"
_ONE_CATEGORY: dict[str, Any] = {"train_steps": 4_000}
_TEXTURES: dict[str, Any] = {"texture_sources": ("procedural", "self")}


def glad_mvtec() -> Recipe:
    """GLAD on MVTec AD, a model a category, 512 pixels.

    raydiff recipe glad_mvtec --data MVTEC --out OUT

    Published: image AUROC .993, pixel AUROC .986; a user who ran the released weights has .987 / .985 and AUPRO .949.
    On an A6000 of 48 GB; hours are not stated. Measured: not run.
    """
    return _single("GLAD on MVTec AD, a model a category", {"image_auroc": 0.993, "pixel_auroc": 0.986})


def glad_mpdd() -> Recipe:
    """GLAD on MPDD, a model a category, 512 pixels.

    raydiff recipe glad_mpdd --data MPDD --out OUT

    Published: image AUROC .975, from a third party's note of the paper. On an A6000 of 48 GB; hours are not stated.
    Measured: not run.
    """
    return _single("GLAD on MPDD, a model a category", {"image_auroc": 0.975}, "a third party's note of the paper")


def glad_visa() -> Recipe:
    """GLAD on VisA, a model a category, compared at 256 pixels.

    raydiff recipe glad_visa --data VISA --out OUT

    Published: image AUROC .995, from a third party's note of the paper (another says .992), with DINO trained on the
    data set, which is not done here. On an A6000 of 48 GB; hours are not stated. Measured: not run.
    """
    return _single("GLAD on VisA, a model a category", {"image_auroc": 0.995}, "a third party's note of the paper")


def glad_pcb_bank() -> Recipe:
    """GLAD on PCB-Bank, a model a category, compared at 256 pixels.

    raydiff recipe glad_pcb_bank --data PCB --out OUT

    Published: image AUROC .987, from a third party's note of the paper, with DINO and the autoencoder trained on the
    data set, which is not done here. On an A6000 of 48 GB; hours are not stated. Measured: not run.
    """
    return _single("GLAD on PCB-Bank, a model a category", {"image_auroc": 0.987}, "a third party's note of the paper")


def glad_mvtec_multi() -> Recipe:
    """GLAD on MVTec AD, one model for all 15 categories.

    raydiff recipe glad_mvtec_multi --data MVTEC --out OUT

    Published: image AUROC .975, AP .991, F1-max .966; pixel AUROC .974, AP .608, F1-max .607, AUPRO .930. 20,000 steps
    at batch 32 on an A6000 of 48 GB; hours are not stated. Measured: not run.
    """
    published = dict(zip(_METRICS, (0.975, 0.991, 0.966, 0.974, 0.608, 0.607, 0.930), strict=True))
    return _multi("GLAD on MVTec AD, one model", published)


def glad_mpdd_multi() -> Recipe:
    """GLAD on MPDD, one model for all 6 categories.

    raydiff recipe glad_mpdd_multi --data MPDD --out OUT

    Published in a table that is a picture in the authors' repository; its numbers are not known to us. 3,000 steps at
    batch 32 (the authors' checkpoint) on an A6000 of 48 GB. Measured: not run.
    """
    return _multi("GLAD on MPDD, one model", {}, {"train_steps": 3_000})


def glad_visa_multi() -> Recipe:
    """GLAD on VisA, one model for all 12 categories.

    raydiff recipe glad_visa_multi --data VISA --out OUT

    Published in a table that is a picture in the authors' repository; its numbers are not known to us. 20,000 steps at
    batch 32 on an A6000 of 48 GB. Measured: not run.
    """
    return _multi("GLAD on VisA, one model", {})


def glad_pcb_bank_multi() -> Recipe:
    """GLAD on PCB-Bank, one model for all 7 categories.

    raydiff recipe glad_pcb_bank_multi --data PCB --out OUT

    Published in a table that is a picture in the authors' repository; its numbers are not known to us. 20,000 steps at
    batch 32 on an A6000 of 48 GB. Measured: not run.
    """
    return _multi("GLAD on PCB-Bank, one model", {})


def _single(title: str, mean: dict[str, float], source: str = "the paper") -> Recipe:
    return _recipe(title, True, mean, source, _ONE_CATEGORY)


def _multi(title: str, mean: dict[str, float], settings: dict[str, Any] | None = None) -> Recipe:
    return _recipe(title, False, mean, "the paper" if mean else "not known to us", settings or {})


def _recipe(title: str, per_category: bool, mean: dict[str, float], source: str, settings: dict[str, Any]) -> Recipe:
    return Recipe(
        title=title,
        method="glad",
        settings=_TEXTURES | settings,
        per_category=per_category,
        evaluation_size=256,
        published={MEAN: mean} if mean else {},
        source=source,
        hardware=_HARDWARE,
        hours="not stated",
    )
