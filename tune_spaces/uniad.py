"""UniAD's score settings: K with feature editing, and at that K whether to edit.

The paper has nothing to choose: its own way is without editing, and is kept unless editing is better. At most 6 trials.
"""

from raydiff.selection.space import Stage

STAGES = [
    Stage(name="neighbours", candidates={"neighbours": (1, 2, 4, 8)}, fixed={"feature_editing": True}),
    Stage(name="feature_editing", candidates={"feature_editing": (False, True)}),
]
