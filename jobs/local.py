"""Run a job on a Ray cluster of its own: start one here, submit the command, show its log, end the cluster.

    python jobs/local.py python jobs/train_all.py --data "$PWD/demo/images" --out "$PWD/demo/run"

What `make demo` does. Paths have to be absolute: a job runs in a copy of the working directory, which Ray removes. The
exit status is that of `ray job submit`; Ctrl-C ends the job and the cluster.
"""

import signal
import sys
from types import FrameType

from raydiff.cluster.local import local_cluster
from raydiff.errors import RaydiffError
from raydiff.progress import console


def main(command: list[str]) -> int:
    """Run the command as a job; its exit status."""
    if command[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    if not command:
        print("error: which command? As in: python jobs/local.py python jobs/train_all.py --help", file=sys.stderr)
        return 2
    console.print("starting Ray on this machine")
    try:
        with local_cluster() as cluster:
            console.print(f"Ray is up, its job server at {cluster.dashboard}", markup=False)
            return cluster.submit(command)
    except RaydiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _end(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
