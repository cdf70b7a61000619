"""The paper's ablation: GLAD where each image must find a step of its own (ADS), without fusion.

raydiff tune --out runs/may --model glad --save-as glad_own_steps --space tune_spaces/glad_own_steps.py
"""

from typing import cast

from raydiff.methods.glad import GLADScore
from raydiff.selection.space import Candidates, Stage, Stages, load_space

_WHOLE = {stage.name: stage for stage in load_space("glad")}
_STARTS = cast(Candidates, _WHOLE["start_step"].candidates)


def switch_distances(chosen: GLADScore, finished: Stages) -> Candidates:
    """Those of the whole space but never."""
    candidates = _WHOLE["switch_distance"].grid(chosen, finished)
    return {"switch_distance": tuple(each["switch_distance"] for each in candidates if each["switch_distance"])}


STAGES = [
    Stage(name="start_step", candidates={"fusion": (False,)} | _STARTS, fixed=_WHOLE["start_step"].fixed),
    *(_WHOLE[name] for name in ("blur_sigma", "top_pixels", "least_step", "probing")),
    Stage(name="switch_distance", candidates=switch_distances),
    _WHOLE["pixel_weight"],
    _WHOLE["denoising_steps"],
]
