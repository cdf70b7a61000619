"""The rivals' score settings: none is chosen, they are measured as they are published."""

from raydiff.selection.space import Stage

STAGES = [Stage(name="as_published", candidates={"blur_sigma": (0.0,)})]
