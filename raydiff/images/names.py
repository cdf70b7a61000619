"""What the names of files and folders say, and nothing else: images, masks, splits, what a NAS or a system leaves."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

IMAGE_EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".avif"),
    *(".jp2", ".j2k", ".j2c", ".jpc", ".pgm", ".ppm", ".pnm", ".pbm", ".dcm", ".dicom"),
)
MASKS = "ground_truth"
NORMAL = ("good", "ok", "normal")  # MVTec AD and MPDD; BTAD; VisA
# What people write of an image, in a table or as a word in a folder's name.
NORMAL_WORDS = (
    *(*NORMAL, "normals", "okay", "pass", "passed", "accepted", "io", "i.o.", "gut", "flawless", "intact"),
    *("undamaged", "uncracked", "unbroken", "nodefect", "nodefects", "nondefective", "nocrack"),
)
ABNORMAL_WORDS = (
    *("abnormal", "anomaly", "anomalies", "anomalous", "bad", "ko", "ng", "nok", "nio", "n.i.o.", "nogood", "notok"),
    *("defect", "defects", "defective", "defected", "defekt", "schlecht", "fehler", "ausschuss", "scrap"),
    *("fail", "failed", "fault", "faults", "faulty", "reject", "rejects", "rejected", "broken", "damaged", "cracked"),
)
# Folders alone are called so: the first in Kaggle's casting set, the rest as one kind of defect.
_ABNORMAL_FOLDERS = ("def", "scratch", "scratches", "scratched", "crack", "cracks", "dent", "dents", "damage")
_NEGATIONS = ("no", "non", "not", "without", "free")
# Which of the two is normal differs: a positive of a test for cracks has one.
_OPPOSITES = {"positive", "negative"}
_WORDS = re.compile(r"[_\-. \d]+|(?<=[a-z])(?=[A-Z])")

# What people call splits, in a table or as a folder.
TRAIN_WORDS, TEST_WORDS, VALIDATION_WORDS = ("train", "training"), ("test", "testing"), ("validation", "valid", "val")
# The split of what lies in a folder of such a name. A validation set is of normals: they train, or are held out.
SPLITS = {
    **dict.fromkeys((*TRAIN_WORDS, *VALIDATION_WORDS), "train"),
    **dict.fromkeys((*TEST_WORDS, "test_public", "test_private", "test_private_mixed"), "test"),
}
UNLABELLED = ("test_private", "test_private_mixed")  # MVTec AD 2: images with no folder that says what they show

RGB = "rgb"  # MVTec 3D-AD: the pictures, where a scene is measured in several ways
# Words that say nothing of what a folder's images show.
_NOTHING = (*SPLITS, "image", "images", "img", "imgs", "pictures", "data", "parts", "part", "samples", "sample", "all")
MASK_FOLDERS = ("gt", MASKS, "groundtruth", "mask", "masks", "label", "labels")
# What else is measured of the same scene, each in a folder of its own.
CHANNELS = ("xyz", "depth", "normals", "pointcloud", "pcd", "ir", "infrared", "thermal", "nir", "uv", "heatmap")

DRAWN = ".raydiff-demo.json"  # what images that raydiff drew are marked with
INGESTED = ".raydiff-ingest.json"  # the mark of a folder that an archive was unpacked into, see `ingested`
_OUTPUTS = "anomaly_maps"  # what scoring writes, should it lie inside its input
# Thumbnails, waste baskets, snapshots and repairs of Synology, QNAP, NetApp, ZFS, Windows, macOS and Linux.
_SYSTEM = re.compile(
    r"@eadir|#recycle|#snapshot|@tmp|@appstore|@sharebin|@recycle|@recently-snapshot|@__thumb|~snapshot|\$recycle\.bin|"
    r"recycler|system volume information|found\.\d{3}|lost\+found|__macosx|network trash folder|temporary items|"
    r"thumbs|thumbnails",
    re.IGNORECASE,
)
_MASK_WORDS = r"masks?|gt|labels?|ground_?truth|seg|segmentation|annotation"
_MASK_OF = re.compile(r"((?:mask|gt)[-_. ])(.+)", re.IGNORECASE)
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
    """Whose mask a file is called to be, and by which ending or beginning: `x_GT` -> (`x`, `_GT`); None for none."""
    if match := _OF_MASK.fullmatch(stem):
        return match[1], match[2]
    match = _MASK_OF.fullmatch(stem)
    return (match[2], match[1]) if match else None


def said_by(folder: str) -> int | None:
    """What the words in a folder's name say of its images: 0 normal, 1 not normal, None nothing."""
    words = _words(folder)
    normal, abnormal = words & set(NORMAL_WORDS), words & {*ABNORMAL_WORDS, *_ABNORMAL_FOLDERS}
    if words & set(_NEGATIONS) and bool(normal) != bool(abnormal):  # defect_free, not_ok
        return int(bool(normal))
    return 1 if abnormal else 0 if normal else None


def not_all_normal(folders: Collection[str]) -> bool:
    """Whether folders beside each other cannot all hold normals, by their names.

    A word for normals says nothing of the others where it is a part of a product's name (`ok_button`).
    """
    said = {folder: said_by(folder) for folder in folders}
    plainly = any(
        label == 0 and not _words(folder) - {*NORMAL_WORDS, *ABNORMAL_WORDS, *_NEGATIONS, *_NOTHING}
        for folder, label in said.items()
    )
    opposites = set().union(*map(_words, folders)) if folders else set()
    return 1 in said.values() or (plainly and None in said.values()) or opposites >= _OPPOSITES


def _words(folder: str) -> set[str]:
    """The words of a folder's name, lower case: split at `_`, `-`, `.`, spaces, digits and capitals; `i.O.` is io."""
    whole = re.sub(r"[. ]", "", folder).lower()
    known = whole in NORMAL_WORDS or whole in ABNORMAL_WORDS
    return {whole} if known else {word.lower() for word in _WORDS.split(folder) if word}


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
