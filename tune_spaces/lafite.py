"""LafitE's score settings: reconstruction first, then what the memory bank adds, then what more calls are worth.

T' with feature editing off (figure 6 of the paper). At that T', with editing or without, and with the distance to the
bank beside the reconstruction's. With editing, T' again: edited features want less corruption. Then K with T' fixed,
how many DDIM steps lead back, how many draws of noise are averaged, and whether the mean over several T' is better;
each of these costs more calls of the network, so they must be worth it. At most 25 trials, each scoring the
pseudo-validation set once.
"""

from raydiff.methods.lafite import LafitEScore
from raydiff.selection.space import Stage, Stages

Steps = dict[str, tuple[tuple[int, ...], ...]]
CORRUPTION_STEPS: Steps = {"corruption_steps": ((100,), (250,), (400,), (550,), (700,))}

WORTH_A_CALL = 0.005  # of the score


def edited_steps(chosen: LafitEScore, finished: Stages) -> Steps:
    """Every T', if the features are edited; else that which is chosen already."""
    return CORRUPTION_STEPS if chosen.feature_editing else {"corruption_steps": (chosen.corruption_steps,)}


def several_steps(chosen: LafitEScore, finished: Stages) -> Steps:
    """The chosen T' alone, and the mean over it and its neighbours."""
    (step,) = chosen.corruption_steps
    near = tuple(other for other in (step - 150, step, step + 150) if 100 <= other <= 700)
    return {"corruption_steps": ((step,), near)}


STAGES = [
    Stage(name="corruption_step", candidates=CORRUPTION_STEPS, fixed={"feature_editing": False}),
    Stage(name="feature_editing", candidates={"feature_editing": (False, True), "bank_weight": (0.0, 0.5, 0.7)}),
    Stage(name="edited_corruption_step", candidates=edited_steps),
    Stage(name="neighbours", candidates={"neighbours": (1, 2, 4, 8)}),
    Stage(name="denoising_steps", candidates={"denoising_steps": (1, 2, 5)}, margin=WORTH_A_CALL),
    Stage(name="draws", candidates={"draws": (1, 4)}, margin=WORTH_A_CALL),
    Stage(name="several_steps", candidates=several_steps, margin=WORTH_A_CALL),
]
