"""Tune trained models of a run on made anomalies: each over its method's space, one table and one plot at the end.

    ray job submit --working-dir . -- python jobs/tune.py --out s3://plant/runs/may --scheduler asha --trials-per-gpu 4

Without --model all models are tuned that are called as their method. OUT/tuning has a JSON file a model, trials.csv
with a row a trial and trials.svg. Run again with the same --out after its driver was killed, it does the missing trials
only. Ray Tune leaves pickles in OUT/work/ray_tune: who can write there can run code in whoever loads them, so keep
OUT/work private. Nothing of raydiff reads them.
"""

from raydiff import cli
from raydiff.cli.run_commands import tune

if __name__ == "__main__":
    cli.run(tune)
