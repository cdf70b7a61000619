"""LafitE's score settings, searched in the paper's order (section 3.4) and two stages more.

First T' with feature editing off, then K with T' fixed; then whether editing helps at all, T' once more with what that
chose (edited features want less corruption), how many DDIM steps lead back, and whether the mean over several T' is
better. At most 18 trials, each scoring the pseudo-validation set once.
"""

from raydiff.methods.lafite import LafitEScore
from raydiff.selection.space import Stage

CORRUPTION_STEPS = {"corruption_steps": ((100,), (250,), (400,), (550,), (700,), (850,))}


def several_steps(chosen: LafitEScore) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The chosen T' alone, and the mean over it and its neighbours."""
    (step,) = chosen.corruption_steps
    near = tuple(other for other in (step - 150, step, step + 150) if 100 <= other <= 850)
    return {"corruption_steps": ((step,), near)}


STAGES = [
    Stage(name="corruption_step", candidates=CORRUPTION_STEPS, fixed={"feature_editing": False}),
    Stage(name="neighbours", candidates={"neighbours": (1, 2, 4, 8)}),
    Stage(name="feature_editing", candidates={"feature_editing": (True, False)}),
    Stage(name="corruption_step_again", candidates=CORRUPTION_STEPS),
    Stage(name="denoising_steps", candidates={"denoising_steps": (1, 2, 5)}),
    Stage(name="several_steps", candidates=several_steps),
]
