"""The paper's ablation: GLAD by plain denoising, without steps of an image's own and without fusion.

    raydiff tune --out runs/may --model glad --save-as glad_plain --space tune_spaces/glad_plain.py

The model without anomaly-oriented training is trained with `--set glad.anomaly_oriented=false`.
"""

from typing import cast

from raydiff.selection.space import Candidates, Stage, load_space

_WHOLE = {stage.name: stage for stage in load_space("glad")}

_STARTS = cast(Candidates, _WHOLE["start_step"].candidates)

STAGES = [
    Stage(name="start_step", candidates={"switch_distance": (None,), "least_step": (0,)} | _STARTS),
    *(_WHOLE[name] for name in ("blur_sigma", "top_pixels", "pixel_weight", "denoising_steps")),
]
