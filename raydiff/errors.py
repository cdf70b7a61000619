"""Every error that raydiff raises on purpose, so that a caller can tell a bad input from a defect of ours.

All carry one sentence that names the thing, what was expected and what to do.
"""


class RaydiffError(Exception):
    """Base of all errors below; the command line prints its text without a traceback."""


CHECK_FILES = "check the files, or whether these credentials may read them"


def of_file(uri: str, reason: str) -> str:
    """What is wrong with a file, with the name of it once: what a store says of it has the name already."""
    return reason if reason.startswith(uri) else f"{uri}: {reason}"


class DataError(RaydiffError):
    """A folder, table or set of images is not what was asked for."""


class ImageError(RaydiffError):
    """One image cannot be used. Its text becomes the `error` of the image's row; it never ends a job."""


class StorageError(RaydiffError):
    """A URI cannot be read or written: unknown scheme, missing bucket, refused credentials, dead endpoint."""


class StorageUnavailable(StorageError):
    """The store does not answer, or answers that it cannot now; trying again later may help."""


class SettingsError(RaydiffError):
    """A setting is unknown, of the wrong type or out of its range."""


class ModelFolderError(RaydiffError):
    """A model folder is missing, incomplete, changed since it was written, or of another format."""


class ClusterError(RaydiffError):
    """The Ray cluster cannot do what is asked: not reachable, or without the CPUs or GPUs wanted."""


class Stopped(RaydiffError):
    """A bulk run could not go on. What is finished is kept; the same command goes on from there."""
