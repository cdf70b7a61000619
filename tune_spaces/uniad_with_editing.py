"""UniAD after LafitE's feature editing (table 4 of LafitE's paper), whether or not it is better: K alone is chosen.

raydiff tune --out runs/may --model uniad --save-as uniad_with_editing --space tune_spaces/uniad_with_editing.py
"""

from raydiff.selection.space import Stage

STAGES = [Stage(name="neighbours", candidates={"feature_editing": (True,), "neighbours": (1, 2, 4, 8)})]
