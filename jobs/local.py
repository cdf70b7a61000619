"""Run a job on a Ray cluster of its own: start one here, submit the command, show its log, end the cluster.

    python jobs/local.py python jobs/train_all.py --data "$PWD/demo/images" --out "$PWD/demo/run"

What `make demo` does. Paths have to be absolute: a job runs in a copy of the working directory, which Ray removes. The
exit status is the command's; Ctrl-C ends the job and the cluster. Of what Ray says only warnings and errors are shown;
`--verbose` before the command shows the submission's lines, too, and behind it, with a job of raydiff's, the job's.
"""

import signal
import sys
from types import FrameType

from raydiff import verbosity
from raydiff.errors import RaydiffError
from raydiff.progress import console


def main(command: list[str]) -> int:
    """Run the command as a job; its exit status."""
    if command[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    if command[:1] == ["--verbose"]:
        command = command[1:]
        verbosity.show_all()
    else:
        verbosity.hush()
    if not command:
        print("error: which command? As in: python jobs/local.py python jobs/train_all.py --help", file=sys.stderr)
        return 2
    console.print("starting Ray on this machine")
    from raydiff.cluster.local import local_cluster  # after something was said: it takes seconds

    try:
        with local_cluster() as cluster:
            console.print(f"Ray is up, its job server at {cluster.dashboard}; the job begins", markup=False)
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
