"""The paper's ablation: LafitE's space with feature editing off throughout, and nothing of the bank.

    raydiff tune --out runs/may --model lafite --save-as lafite_without_editing \\
        --space tune_spaces/lafite_without_editing.py
"""

from raydiff.selection.space import Stage, load_space

_WITH_EDITING = {stage.name: stage for stage in load_space("lafite")}

STAGES = [
    Stage(name="feature_editing", candidates={"feature_editing": (False,)}),
    _WITH_EDITING["corruption_step"],
    _WITH_EDITING["denoising_steps"],
    _WITH_EDITING["draws"],
    _WITH_EDITING["several_steps"],
]
