"""DiffusionAD's score settings: both corruptions, the weight of the guidance, pixels in the score, draws of noise.

The paper's 200 and 400 were found on test sets, for long trainings. After short ones the corruptions and the guidance
moved the AUROC by a hundredth on real images, the number of pixels by a tenth, so the first two are searched coarsely.
Each draw of noise costs all three network calls again, so more of them must be worth it. At most 10 trials.
"""

from raydiff.selection.space import Stage

WORTH_A_DRAW = 0.005  # of the score

STAGES = [
    Stage(name="steps", candidates={"small_step": (100, 200), "large_step": (400, 600)}),
    Stage(name="guidance_weight", candidates={"guidance_weight": (0.0, 1.0, 2.0)}),
    Stage(name="top_pixels", candidates={"top_pixels": (10, 50, 200, 800)}),
    Stage(name="noise_draws", candidates={"noise_draws": (1, 2)}, margin=WORTH_A_DRAW),
]
