"""What the columns of a user's table are: those of an image table, those that are carried along, and the rest."""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

import pyarrow as pa

from raydiff.errors import DataError
from raydiff.images import table
from raydiff.images.names import IMAGE_EXTENSIONS
from raydiff.images.tables.notes import Notes
from raydiff.scoring.table import SCHEMA as SCORES

KNOWN = (*table.SCHEMA.names, table.ROI, table.BIT_DEPTH, table.PART, table.TIME)
PREFIX = "given_"  # of a column that would have the name of one of the score table's own

# Names that people give to one of ours; to ignore such a column would lose what it says.
_MEANT = {
    **dict.fromkeys(("mask", "masks", "mask_path", "mask_file", "mask_url", "ground_truth"), "mask_uri"),
    **dict.fromkeys(("roi", "roi_path", "roi_mask", "region_of_interest"), "roi_uri"),
    **dict.fromkeys(("lbl", "labels", "is_label"), "label"),
    **dict.fromkeys(("class_name", "categories"), "category"),
}
_MEANT_URI = (
    *("url", "path", "file", "filename", "file_name", "filepath", "file_path"),
    *("image", "image_path", "image_file", "image_uri", "image_url", "img", "img_path"),
)
_CLOSE = 0.8  # of difflib's ratio: lable and label, spilt and split, but not date and dataset
_GUESSED = tuple(name for name in KNOWN if name != table.PART)  # parts, art and port are other things than a part
# Taken for the label where there is none; they hold true and false, or 1 and 0.
_LABELS = ("is_anomalous", "is_anomaly", "anomalous", "anomaly", "is_defective", "defective", "is_defect")
ADVICE = "; give a folder of images, or a table whose first line names its columns (docs/input.md)"
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # what pandas writes beside its columns


class Columns(NamedTuple):
    """Names in the user's table by those that they get."""

    known: dict[str, str]  # of the image table, `roi_uri`, `bit_depth`, `part` and `time`
    extra: dict[str, pa.Field]  # by their names in the user's table; the field has the new name and type

    @property
    def wanted(self) -> list[str]:
        """All that are to be read, as the user's table names them."""
        return [*self.known.values(), *self.extra]


def settle(schema: pa.Schema, where: str, notes: Notes) -> Columns:
    """What each column of a table is.

    Raises:
        DataError: if one is there twice, seems to be misspelt, or `uri` is missing.
    """
    names = [name for name in schema.names if not _INDEX.fullmatch(name.strip())]
    for name in schema.names:
        if name not in names:
            notes.say(f"index column {name!r} left out" if name.strip() else "a column without a name left out")
    known: dict[str, str] = {}
    others = []
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{where}: column {name!r} is there twice; take one out")
        ours = plain(name)
        if ours not in KNOWN:
            others.append(name)
        elif ours in known:
            raise DataError(f"{where}: columns {known[ours]!r} and {name!r} are both {ours!r}; take one out")
        else:
            known[ours] = name
            if name != ours:
                notes.say(f"column {name!r} is {ours!r}")
    for name in others:
        meant = _meant(plain(name))
        if meant and meant not in known and plain(name) not in _LABELS:
            raise DataError(
                f"{where}: unknown column {name!r}; did you mean {meant!r}? Rename it so, or to something else to have "
                "it carried into the score table"
            )
    if "uri" not in known:
        if data := next((name for name in names if name.lower().endswith(IMAGE_EXTENSIONS)), None):
            raise DataError(
                f"{where}: column 'uri' is missing, and the first line looks like data ({data!r}); put a line with the "
                "columns' names above it"
            )
        near = [name for name in others if plain(name) in _MEANT_URI]
        hint, advice = (f"; is {near[0]!r} it? Rename it", "") if len(near) == 1 else ("", ADVICE)
        raise DataError(f"{where}: column 'uri' is missing{hint}; found: {', '.join(names[:20]) or 'none'}{advice}")
    if "label" not in known:
        labels = [name for name in others if plain(name) in _LABELS]
        if len(labels) > 1:
            raise DataError(
                f"{where}: columns {labels[0]!r} and {labels[1]!r} may both say what is normal; which is the label? "
                "Rename it so"
            )
        if labels:
            known["label"] = labels[0]
            others.remove(labels[0])
            notes.say(f"column {labels[0]!r} is 'label'")
    return Columns(known, _carried(schema, others, notes))


def _carried(schema: pa.Schema, names: list[str], notes: Notes) -> dict[str, pa.Field]:
    taken = {name.lower() for name in (*SCORES.names, *KNOWN)}
    ours = {name for name in names if name.lower() in taken}
    found: dict[str, pa.Field] = {}
    for name in sorted(names, key=lambda name: name in ours):  # the others keep their names
        kind = _kept(schema.field(name).type)
        if kind is None:
            notes.say(f"column {name!r} left out, because it holds {schema.field(name).type} and no plain values")
            continue
        new = name
        while new.lower() in taken:
            new = PREFIX + new
        taken.add(new.lower())  # to many readers of tables, names that differ in case are one
        found[name] = pa.field(new, kind)
    same = [repr(name) for name, field in found.items() if field.name == name]
    if same:
        notes.say(f"carried into the score table: {', '.join(same)}")
    for name, field in found.items():
        if field.name != name:
            notes.say(f"column {name!r} is carried as {field.name!r}, because that name is taken")
    return found


def plain(name: str) -> str:
    """A name without what is easily written otherwise: case, spaces around it, and what joins its words."""
    joined = re.sub(r"[\s-]+", "_", name.strip())
    if joined.lower() in KNOWN:
        return joined.lower()
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", joined).lower()  # maskPath


def _meant(name: str) -> str | None:
    near = difflib.get_close_matches(name, _GUESSED, n=1, cutoff=_CLOSE)
    return _MEANT.get(name) or (near[0] if near else None)


def _kept(kind: pa.DataType) -> pa.DataType | None:
    """The type in which a column is carried, None where it has parts, or bytes of which there may be any number."""
    if isinstance(kind, pa.BaseExtensionType):
        return _kept(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _kept(kind.value_type)
    if pa.types.is_null(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_float16(kind):
        return pa.float32()
    bytes_ = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return None if pa.types.is_nested(kind) or any(is_kind(kind) for is_kind in bytes_) else kind
