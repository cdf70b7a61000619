"""The layouts of folders, one entry each; the first one that fits is taken. One more is one more entry, and its file.

Folders that the user names himself (`sorted_folders`) and tables are not among them: these are never guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from raydiff.errors import DataError, SettingsError
from raydiff.images.layouts.found import Folder, Layout
from raydiff.images.layouts.label_folders import label_folders_layout, why_label_folders
from raydiff.images.layouts.marked import marked_layout, why_marked
from raydiff.images.layouts.mvtec import mvtec_layout, why_mvtec
from raydiff.images.layouts.plain import plain_layout, why_plain
from raydiff.images.layouts.real_iad import REAL_IAD
from raydiff.images.layouts.visa import VISA
from raydiff.images.names import few

AUTO = "auto"


class Known(NamedTuple):
    """A layout."""

    name: str  # as --layout takes it
    looked_for: str  # what tells it
    why: Callable[[Folder], str | None]  # in a few words why a folder is of it; None where it is not
    read: Callable[[Folder], Layout]  # what it makes of such a folder


LAYOUTS = (
    Known("visa", "split_csv/1cls.csv beside <category>/Data/", VISA.why, VISA.layout),
    Known("real-iad", "realiad_jsons/<category>.json beside realiad_1024/", REAL_IAD.why, REAL_IAD.layout),
    Known(
        "dagm",
        "nothing but images in Train/ and Test/, and masks of some of them in Label/ below",
        why_label_folders,
        label_folders_layout,
    ),
    Known("mvtec", "folders called train, validation, test or ground_truth", why_mvtec, mvtec_layout),
    Known("marked", "masks beside their images, as NAME_label.bmp beside NAME.jpg", why_marked, marked_layout),
    Known(
        "plain",
        "images of normals alone: no masks, and no folder called test or ground_truth",
        why_plain,
        plain_layout,
    ),
)


def names() -> list[str]:
    """What --layout takes."""
    return [AUTO, *(known.name for known in LAYOUTS)]


def parse(text: str) -> Known | None:
    """The layout that --layout names; None for `auto`, the one that fits.

    Raises:
        SettingsError: if there is none of that name.
    """
    found = next((known for known in LAYOUTS if known.name == text), None)
    if found is None and text != AUTO:
        raise SettingsError(f"--layout {text!r} is no layout; there are {', '.join(names())}")
    return found


def recognised(folder: Folder, given: Known | None = None) -> tuple[Known, str]:
    """Of which layout a folder with images is, and why.

    Args:
        given: the layout that it has to be of, whichever fits better.

    Raises:
        DataError: if it is not of that one.
    """
    for known in LAYOUTS if given is None else [given]:
        if (why := known.why(folder)) is not None:
            return known, why
    assert given is not None, "plain is what no other layout is"
    known, why = recognised(folder)
    tops = {path.partition("/")[0] + "/" * ("/" in path) for path in (*folder.images, *folder.ignored)}
    raise DataError(
        f"{folder.uri} is not of the layout {given.name}: looked for {given.looked_for}; found {few(sorted(tops))}, "
        f"which --layout {known.name} reads ({why})"
    )
