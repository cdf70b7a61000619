"""DiffusionAD's published results (Zhang et al., arXiv 2303.08730): a model a category, from scratch, 256 pixels.

The authors keep the checkpoint that is best on the test set, looked at every 50 epochs; here the last weights count.
DTD's textures are given with --set texture_sources=["URI of DTD","self"]; their saliency masks of the products are not
published, so `foreground` finds them (docs/methods.md).
"""

from __future__ import annotations

from raydiff.recipes.recipe import MEAN, Recipe

_HARDWARE = "one A100, 80 GB, batch 16"
_HOURS = "16 a category (a user's report)"


def diffusion_ad_mvtec() -> Recipe:
    """DiffusionAD on MVTec AD.

    raydiff recipe diffusion_ad_mvtec --data MVTEC --out OUT

    Published: image AUROC .997, AUPRO .957, pixel AP .761. 3,000 epochs on an A100, 16 hours a category by a user's
    report. Measured: not run.
    """
    return _recipe("DiffusionAD on MVTec AD", {"image_auroc": 0.997, "aupro": 0.957, "pixel_ap": 0.761})


def diffusion_ad_visa() -> Recipe:
    """DiffusionAD on VisA.

    raydiff recipe diffusion_ad_visa --data VISA --out OUT

    Published: image AUROC .988, pixel AUROC .989. 3,000 epochs on an A100, 16 hours a category by a user's report.
    Measured: not run.
    """
    return _recipe("DiffusionAD on VisA", {"image_auroc": 0.988, "pixel_auroc": 0.989})


def diffusion_ad_dagm() -> Recipe:
    """DiffusionAD on DAGM.

    raydiff recipe diffusion_ad_dagm --data DAGM --out OUT

    Published: image AUROC .996. 3,000 epochs on an A100, 16 hours a category by a user's report. Measured: not run.
    """
    return _recipe("DiffusionAD on DAGM", {"image_auroc": 0.996})


def diffusion_ad_mpdd() -> Recipe:
    """DiffusionAD on MPDD.

    raydiff recipe diffusion_ad_mpdd --data MPDD --out OUT

    Published: image AUROC .962 (a third party's note says .959). 3,000 epochs on an A100, 16 hours a category by a
    user's report. Measured: not run.
    """
    return _recipe("DiffusionAD on MPDD", {"image_auroc": 0.962})


def _recipe(title: str, mean: dict[str, float]) -> Recipe:
    return Recipe(
        title=title,
        method="diffusion_ad",
        settings={"texture_sources": ("procedural", "self")},
        per_category=True,
        evaluation_size=256,
        published={MEAN: mean},
        source="the paper's abstract page",
        hardware=_HARDWARE,
        hours=_HOURS,
    )
