"""Metrics of a run's scored test images.

ray job submit --working-dir . -- python jobs/evaluate.py --out s3://plant/runs/may --model lafite
"""

from raydiff import cli
from raydiff.cli.run_commands import evaluate

if __name__ == "__main__":
    cli.run(evaluate)
