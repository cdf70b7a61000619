"""Parts of a GPU check that go wrong, each in its own way."""

import os
import sys
import time

from raydiff.errors import DataError
from raydiff.gpu_check.results import Row

REFUSED = "ray", "optuna", "s3fs", "typer", "matplotlib"


def fine(job):
    """All is well, and nothing is loaded that a bare machine lacks."""
    yield Row("loaded", {"names": [name for name in REFUSED if sys.modules.get(name)]}, passed=True)


def raises(job):
    """Finds one thing, then fails."""
    yield Row("before", {"value": 1.5})
    raise DataError("no such\nthing")


def hangs(job):
    """Finds one thing, then never ends."""
    yield Row("before", {"value": 2})
    time.sleep(3600)


def crashes(job):
    """Ends without a word."""
    yield Row("before", {"value": 3})
    os._exit(7)
