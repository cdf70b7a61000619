"""GLAD's score settings, in the order in which they act on an image.

How much corruption (by plain denoising, which is what the rest adapts); from where on the image itself takes over; how
far the two estimates must part for an image to find a step of its own, relative to how far they part on normal images,
because that distance depends on backbone and model; then fusion, the pixels' weight and the pixels in the score. More
denoising steps cost as many more network calls, so they must be worth it. At most 19 trials.
"""

from raydiff.methods.glad import GLADScore
from raydiff.selection.space import Candidates, Stage, Stages

FEW = 10  # denoising steps, while there is much to try
WORTH_THE_STEPS = 0.005  # AUROC


def least_steps(chosen: GLADScore, finished: Stages) -> Candidates:
    """None, a quarter and half of the corruption that was chosen."""
    return {"least_step": tuple(round(share * chosen.start_step) for share in (0.0, 0.25, 0.5))}


def switch_distances(chosen: GLADScore, finished: Stages) -> Candidates:
    """Never, and what the most, a tenth, or half of the held-out normal images reach."""
    tried = next(stage for stage in finished if stage["name"] == "least_step")
    trial = next(each for each in tried["trials"] if each["settings"]["least_step"] == chosen.least_step)
    deciles = trial["normal_details"]["probing_score"]
    return {"switch_distance": (None, deciles[10], deciles[9], deciles[5])}


STAGES = [
    Stage(
        name="start_step",
        candidates={"start_step": (150, 300, 450, 650), "denoising_steps": (FEW,)},
        fixed={"switch_distance": None, "least_step": 0},
    ),
    Stage(name="least_step", candidates=least_steps, fixed={"switch_distance": None}),
    Stage(name="switch_distance", candidates=switch_distances),
    Stage(name="fusion", candidates={"fusion": (True, False)}),
    Stage(name="pixel_weight", candidates={"pixel_weight": (0.0, 0.5, 1.0, 2.0)}),
    Stage(name="top_pixels", candidates={"top_pixels": (50, 250, 1000)}),
    Stage(name="denoising_steps", candidates={"denoising_steps": (FEW, 25)}, margin=WORTH_THE_STEPS),
]
