"""The steps of a run, each a function over a run folder: what `raydiff <step>` and the jobs do.

Each step reads what the one before has written, so they can run in one job or one by one, today and tomorrow. What only
one of them needs is imported there: torch, Serve, Train, Tune and matplotlib take seconds each.
"""

from raydiff.steps.indexing import check_enough, index, split
from raydiff.steps.reporting import evaluate, report, results
from raydiff.steps.scoring import calibrate, calibrate_to_budget, check_tested, has_test_images, score, serving
from raydiff.steps.training import check_recipe, train
from raydiff.steps.tuning import choice, chosen, sweep, tune, tunings

__all__ = [
    "calibrate",
    "calibrate_to_budget",
    "check_enough",
    "check_recipe",
    "check_tested",
    "choice",
    "chosen",
    "evaluate",
    "has_test_images",
    "index",
    "report",
    "results",
    "score",
    "serving",
    "split",
    "sweep",
    "train",
    "tune",
    "tunings",
]
