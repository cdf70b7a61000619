"""GLAD's score settings, in the order in which they matter.

How much corruption, by plain denoising, which is what the rest adapts; whether a position is compared with its like or
with any; blur and pixels in the score, whose best depends on the image size; from where on the image itself takes over;
how far the two estimates must part for an image to find a step of its own, relative to how far they part on normal
images, because that distance depends on backbone and model; then fusion and the weights of pixels and latents. Many
denoising steps cost as many network calls, so they must be worth it. At most 17 trials.
"""

from raydiff.methods.glad import GLADScore
from raydiff.selection.space import Candidates, Stage, Stages

FEW, MANY = 5, 15  # denoising steps
UNREACHED = 2.0  # the greatest cosine distance: probing measures and never switches
WORTH_THE_STEPS = 0.005  # of the score


def least_steps(chosen: GLADScore, finished: Stages) -> Candidates:
    """None, and half of the corruption that was chosen."""
    return {"least_step": (0, chosen.start_step // 2)}


def switch_distances(chosen: GLADScore, finished: Stages) -> Candidates:
    """Never, and what a tenth or half of the held-out normal images reach."""
    measured = next(stage["trials"][0] for stage in finished if stage["name"] == "probing")
    deciles = measured["normal_details"]["probing_score"]
    return {"switch_distance": (None, deciles[9], deciles[5])}


PLAIN = {"switch_distance": None, "least_step": 0}

STAGES = [
    Stage(
        name="start_step",
        candidates={"start_step": (150, 300, 500, 800), "denoising_steps": (FEW,)},
        fixed=PLAIN,
    ),
    Stage(name="reach", candidates={"reach": (None, 1)}, fixed=PLAIN),
    Stage(name="blur_sigma", candidates={"blur_sigma": (1.5, 3.0, 6.0)}, fixed=PLAIN),
    Stage(name="top_pixels", candidates={"top_pixels": (10, 50, 250)}, fixed=PLAIN),
    Stage(name="least_step", candidates=least_steps, fixed={"switch_distance": None}),
    Stage(name="probing", candidates={"switch_distance": (UNREACHED,)}),
    Stage(name="switch_distance", candidates=switch_distances),
    Stage(name="fusion", candidates={"fusion": (True, False)}),
    Stage(name="pixel_weight", candidates={"pixel_weight": (0.0, 1.0)}),
    Stage(name="latent_weight", candidates={"latent_weight": (0.0, 1.0)}),
    Stage(name="denoising_steps", candidates={"denoising_steps": (FEW, MANY)}, margin=WORTH_THE_STEPS),
]
