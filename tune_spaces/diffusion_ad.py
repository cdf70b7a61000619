"""DiffusionAD's score settings: both corruptions, the weight of the guidance, draws of noise, pixels in the score.

The paper's 200 and 400 were found on test sets, for long trainings; a short one may want others. Each draw of noise
costs all three network calls again, so more of them must be worth it. At most 19 trials.
"""

from raydiff.selection.space import Stage

WORTH_A_DRAW = 0.005  # AUROC

STAGES = [
    Stage(name="steps", candidates={"small_step": (50, 100, 200), "large_step": (300, 400, 600)}),
    Stage(name="guidance_weight", candidates={"guidance_weight": (0.0, 0.5, 1.0, 2.0)}),
    Stage(name="top_pixels", candidates={"top_pixels": (10, 50, 200, 800)}),
    Stage(name="noise_draws", candidates={"noise_draws": (1, 2, 4)}, margin=WORTH_A_DRAW),
]
