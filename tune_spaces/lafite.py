"""LafitE's score settings, searched in the order of the paper (section 3.4) and a little further.

T' with feature editing off (figure 6 of the paper); T' with editing on and off, because edited features want less
corruption: the paper's own order, T' without editing and then K at that T', can end in a corner far from the best. Then
K with T' fixed, how many DDIM steps lead back, and whether the mean over several T' is better; each step costs another
call of the U-Net, so more of them must be worth it. At most 18 trials, each scoring the pseudo-validation set once.
"""

from raydiff.methods.lafite import LafitEScore
from raydiff.selection.space import Stage, Stages

CORRUPTION_STEPS = {"corruption_steps": ((100,), (250,), (400,), (550,), (700,), (850,))}

WORTH_A_CALL = 0.005  # AUROC


def several_steps(chosen: LafitEScore, finished: Stages) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The chosen T' alone, and the mean over it and its neighbours."""
    (step,) = chosen.corruption_steps
    near = tuple(other for other in (step - 150, step, step + 150) if 100 <= other <= 850)
    return {"corruption_steps": ((step,), near)}


STAGES = [
    Stage(name="corruption_step", candidates=CORRUPTION_STEPS, fixed={"feature_editing": False}),
    Stage(name="feature_editing", candidates={"feature_editing": (True, False)} | CORRUPTION_STEPS),
    Stage(name="neighbours", candidates={"neighbours": (1, 2, 4, 8)}),
    Stage(name="denoising_steps", candidates={"denoising_steps": (1, 2, 5)}, margin=WORTH_A_CALL),
    Stage(name="several_steps", candidates=several_steps, margin=WORTH_A_CALL),
]
