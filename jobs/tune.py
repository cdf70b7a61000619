"""Tune a trained model of a run on made anomalies.

ray job submit --working-dir . -- python jobs/tune.py --out s3://plant/runs/may --model lafite --search optuna
"""

from raydiff import cli

if __name__ == "__main__":
    cli.run(cli.tune)
