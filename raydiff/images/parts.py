"""Which physical part an image shows: a column `part` of a user's table, or what is found in the images' paths."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from raydiff.errors import DataError, SettingsError
from raydiff.images import table
from raydiff.images.layouts.found import Finding
from raydiff.images.names import few

OPTION = "--part-from"


class PartPattern:
    """What says in an image's path which part it shows.

    Args:
        pattern: a regular expression, searched for in the path below the folder of the data. Its group `part`, or else
            its first group, or else all that it matches, names the part.

    Raises:
        SettingsError: if it is no regular expression.
    """

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        try:
            self._compiled = re.compile(pattern)
        except re.error as error:
            raise SettingsError(
                f"{OPTION} {pattern!r} is not a regular expression ({error}); give one as in {OPTION} '_(\\d+)_'"
            ) from None
        named = table.PART in self._compiled.groupindex
        self._group: str | int = table.PART if named else min(self._compiled.groups, 1)

    @classmethod
    def parse(cls, pattern: str | None) -> PartPattern | None:
        """Of an option that may be left out.

        Raises:
            SettingsError: if it is no regular expression.
        """
        return None if pattern is None else cls(pattern)

    def part(self, path: str) -> str | None:
        """The part that a path names; None where it names none."""
        match = self._compiled.search(path)
        return (match[self._group] or None) if match else None

    def parts(self, uris: Sequence[str], folders: Collection[str]) -> list[str | None]:
        """The parts that the images' paths below `folders` name; a path that is below none of them is taken whole."""
        below = sorted((folder.rstrip("/") + "/" for folder in folders), key=len, reverse=True)
        return [
            self.part(next((uri.removeprefix(folder) for folder in below if uri.startswith(folder)), uri))
            for uri in uris
        ]

    def claimed(self, source: str) -> str:
        """What scores of a source's images, grouped so, are noted to be of."""
        return f"{source} ({OPTION} {self.pattern!r})"

    def unfit(self, uri: str) -> DataError:
        """What is to be said where no path names a part; of `uri`, for one."""
        return DataError(
            f"{OPTION} {self.pattern!r} names a part in no image's path; mend it to fit paths as {few([uri])}"
        )


def unclaimed(noted: str) -> str:
    """The source that scores are noted to be of, whether its images were grouped or not (see `PartPattern.claimed`)."""
    return noted.partition(f" ({OPTION} ")[0]


def with_parts(images: pa.Table, pattern: PartPattern, folders: Collection[str]) -> pa.Table:
    """An image table with the column `part`, as its images' paths below `folders` name them.

    Raises:
        DataError: if the table has such a column, or no path names a part.
    """
    found = with_column(images, pattern, folders)
    if len(found) and found[table.PART].null_count == len(found):
        raise pattern.unfit(found["uri"][0].as_py())
    return found


def with_column(images: pa.Table, pattern: PartPattern, folders: Collection[str]) -> pa.Table:
    """As `with_parts`, of some images of many: none of them need name a part.

    Raises:
        DataError: if the table has such a column.
    """
    if table.PART in images.column_names:
        raise DataError(f"the table has a column {table.PART!r}; leave {OPTION} out, or the column")
    parts = pattern.parts(images["uri"].to_pylist(), folders)
    return images.append_column(table.PART, pa.array(parts, pa.string()))


def findings(images: pa.Table) -> list[Finding]:
    """What is to be said of an image table's parts; nothing where it has no such column."""
    if table.PART not in images.column_names:
        return []
    normal = pc.and_(pc.equal(images["split"], "train"), pc.fill_null(pc.equal(images["label"], 0), False))
    found = []
    alone = images.filter(pc.and_(normal, pc.is_null(images[table.PART])))["uri"].to_pylist()
    if alone:
        what = "normals to train on of which nothing says the part; each is taken for a part of its own"
        found.append(Finding(what, tuple(alone), len(alone)))
    trained, tested = _counts(images.filter(normal)), _counts(images.filter(pc.equal(images["split"], "test")))
    if both := sorted(trained.keys() & tested.keys()):
        what = "parts with images in train and in test, which a test cannot tell from parts that were learned"
        names = (
            f"{category}, part {part}: {trained[category, part]} to train on, {tested[category, part]} to test"
            for category, part in both
        )
        found.append(Finding(what, tuple(names), len(both)))
    return found


def _counts(images: pa.Table) -> Counter[tuple[str, str]]:
    pairs = zip(images["category"].to_pylist(), images[table.PART].to_pylist(), strict=True)
    return Counter((category, part) for category, part in pairs if part is not None)
