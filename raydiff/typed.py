"""Commands as whoever started this can type them next: their programs, and places relative to their folder."""

from __future__ import annotations

import os
import sys
import sysconfig

from raydiff import storage

FOLDER = "RAYDIFF_TYPED_IN"  # in a job: the folder in which it was submitted, which is not the one it runs in
JOB = "RAY_JOB_SUBMISSION_ID"  # in a job; Ray sets it


def program(name: str) -> str:
    """`raydiff` or `python`: with the way to it, where it is in an environment that the shell does not name.

    Of a job that was submitted elsewhere nothing is known of that.
    """
    elsewhere = bool(os.environ.get(JOB)) and not os.environ.get(FOLDER)
    named = sys.prefix in (sys.base_prefix, os.environ.get("VIRTUAL_ENV"))
    return name if elsewhere or named else _below_folder(os.path.join(sysconfig.get_path("scripts"), name))


def place(uri: str) -> str:
    """A URI or a path, short where it lies below the folder."""
    return _below_folder(uri) if storage.is_local(uri) else uri


def _below_folder(path: str) -> str:
    folder = os.environ.get(FOLDER) or os.getcwd()
    return os.path.relpath(path, folder) if path.startswith(f"{folder}{os.sep}") else path
