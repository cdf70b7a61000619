"""The paper's ablation: GLAD where each image must find a step of its own and is fused there (ADS and SAFF).

raydiff tune --out runs/may --model glad --save-as glad_fusion --space tune_spaces/glad_fusion.py
"""

from pathlib import Path
from typing import cast

from raydiff.selection.space import Candidates, Stage, load_space

_OWN_STEPS = {stage.name: stage for stage in load_space("glad", str(Path(__file__).with_name("glad_own_steps.py")))}
_STARTS = cast(Candidates, _OWN_STEPS["start_step"].candidates)

STAGES = [
    Stage(name="start_step", candidates=_STARTS | {"fusion": (True,)}, fixed=_OWN_STEPS["start_step"].fixed),
    *list(_OWN_STEPS.values())[1:],
]
