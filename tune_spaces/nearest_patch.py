"""nearest_patch's score settings: over how many neighbours the distance is averaged."""

from raydiff.selection.space import Stage

STAGES = [Stage(name="neighbours", candidates={"neighbours": (1, 2, 4, 8)})]
