"""The paper's ablation: LafitE's score settings with feature editing off.

    raydiff tune --out runs/may --model lafite --save-as lafite_without_editing \\
        --space tune_spaces/lafite_without_editing.py
"""

from raydiff.selection.space import Stage
from tune_spaces.lafite import STEPS, several_steps

STAGES = [
    Stage(
        name="corruption_step",
        candidates={"corruption_steps": tuple((step,) for step in STEPS), "feature_editing": (False,)},
    ),
    Stage(name="denoising_steps", candidates={"denoising_steps": (1, 2, 5)}),
    Stage(name="several_steps", candidates=several_steps),
]
