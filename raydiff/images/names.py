"""What the names of files and folders say, and nothing else: images, masks, splits, what a NAS or a system leaves."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
MASKS = "ground_truth"
NORMAL = ("good", "ok", "normal")  # MVTec AD and MPDD; BTAD; VisA
ABNORMAL = ("abnormal", "anomaly", "anomalous", "bad", "defect", "defects", "defective", "ko", "ng", "nok")

# The split of what lies in a folder of such a name. A validation set is of normals: they train, or are held out.
SPLITS = {
    **dict.fromkeys(("train", "validation", "val"), "train"),
    **dict.fromkeys(("test", "test_public", "test_private", "test_private_mixed"), "test"),
}
UNLABELLED = ("test_private", "test_private_mixed")  # MVTec AD 2: images with no folder that says what they show

RGB = "rgb"  # MVTec 3D-AD: the pictures, where a scene is measured in several ways
MASK_FOLDERS = ("gt", MASKS, "groundtruth", "mask", "masks", "label", "labels")
# What else is measured of the same scene, each in a folder of its own.
CHANNELS = ("xyz", "depth", "normals", "pointcloud", "pcd", "ir", "infrared", "thermal", "nir", "uv", "heatmap")

_OUTPUTS = "anomaly_maps"  # what scoring writes, should it lie inside its input
# Thumbnails, waste baskets, snapshots and repairs of Synology, QNAP, NetApp, ZFS, Windows, macOS and Linux.
_SYSTEM = re.compile(
    r"@eadir|#recycle|#snapshot|@tmp|@appstore|@sharebin|@recycle|@recently-snapshot|@__thumb|~snapshot|\$recycle\.bin|"
    r"recycler|system volume information|found\.\d{3}|lost\+found|__macosx|network trash folder|temporary items",
    re.IGNORECASE,
)
_MASK_WORDS = r"masks?|gt|labels?|ground_?truth|seg|segmentation|annotation"
_OF_MASK = re.compile(rf"(.+)([-_. ](?:{_MASK_WORDS}))", re.IGNORECASE)


def is_image(path: str) -> bool:
    """Whether a path below a folder of images names one, by its extension and by the folders above it."""
    hidden = path.rpartition("/")[2].startswith(".")
    return path.lower().endswith(IMAGE_EXTENSIONS) and not hidden and folder_left_out(path) is None


def folder_left_out(path: str) -> str | None:
    """The first folder of a path that holds no images: hidden, a NAS's or the system's, or of our own maps."""
    for folder in path.split("/")[:-1]:
        if folder.startswith(".") or folder == _OUTPUTS or _SYSTEM.fullmatch(folder):
            return folder
    return None


def is_text(path: str) -> bool:
    """Whether a path can be written as UTF-8; a local file of an old system may have a name that is just bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: str) -> str:
    """A path as UTF-8, bytes that are none written out."""
    return path.encode("utf-8", "backslashreplace").decode()


def base_of_mask(stem: str) -> tuple[str, str] | None:
    """Whose mask a file is called to be, and by which ending: `x_GT` -> (`x`, `_GT`); None for no mask's name."""
    match = _OF_MASK.fullmatch(stem)
    return (match[1], match[2]) if match else None


def stem(path: str) -> str:
    """A path without its extension."""
    folder, slash, file = path.rpartition("/")
    return folder + slash + file.rpartition(".")[0]


def category_of(path: str, categories: Collection[str]) -> str | None:
    """Which of some categories an image to be scored shows: the first of its folders so named, or else the only one.

    A category `dataset/name` is two folders.
    """
    parts = path.split("/")[:-1]
    only = next(iter(categories)) if len(categories) == 1 else None
    names = (name for at in range(len(parts)) for name in ("/".join(parts[at : at + 2]), parts[at]))
    return next((name for name in names if name in categories), only)


def few(names: Sequence[str]) -> str:
    """Some names in words: the first four, and how many more there are."""
    shown = ", ".join(names[:4])
    if len(names) > 4:
        return f"{shown} and {len(names) - 4} more"
    return shown or "nothing"
