"""UniAD as its authors have it: nothing to choose, feature editing off.

    raydiff tune --out runs/may --model uniad --save-as uniad_without_editing \\
        --space tune_spaces/uniad_without_editing.py
"""

from raydiff.selection.space import Stage

STAGES = [Stage(name="feature_editing", candidates={"feature_editing": (False,)})]
