"""What the cells of a user's table mean: labels, splits, names and places, in the words that people use."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import unquote

import pyarrow as pa

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import table
from raydiff.images.levels import DEPTHS
from raydiff.images.names import (
    ABNORMAL_WORDS,
    IMAGE_EXTENSIONS,
    NORMAL_WORDS,
    TEST_WORDS,
    TRAIN_WORDS,
    VALIDATION_WORDS,
)
from raydiff.images.pages import file_of
from raydiff.images.tables.files import Batch
from raydiff.images.tables.notes import Notes

T = TypeVar("T")

NO_NAMES = ("nan", "null")  # of defects; a region may be called NA, and a category null
MISSING = ("", "nan", "null", "none", "na", "n/a", "<na>", "nat")  # what writers put where there is no value
_NORMAL = ("0", "false", *NORMAL_WORDS)
_ANOMALOUS = ("1", "true", *ABNORMAL_WORDS)
_LABELS = {**dict.fromkeys(_NORMAL, 0), **dict.fromkeys(_ANOMALOUS, 1)}
# Of defects. Where labels say what is normal, the first three may also stand for a defect that nobody has named.
_NO_DEFECT_OR_NAME = ("none", "-", "--", "0")
_NO_DEFECT = ("no defect", "no defects", "no anomaly", "defect free")
_LABEL_MEANS = {0: "0 (normal)", 1: "1 (anomalous)", None: "unknown"}
_LABEL_RULE = "must be 0 or 1, normal or anomalous, good or bad, OK or NG, false or true, or empty where unknown"
VALIDATION = "validation"
_SPLITS = {
    **dict.fromkeys(TRAIN_WORDS, "train"),
    **dict.fromkeys(TEST_WORDS, "test"),
    **dict.fromkeys((*VALIDATION_WORDS, "dev"), VALIDATION),
}
_NUMBER = re.compile(r"([01])[.,]0+")
# What a relative path does not have, which is to be put behind its folder and no more.
_NOT_PLAIN = re.compile(rf"^[/~.]|[:\\]|/[./]|^(?:{'|'.join(MISSING)})$", re.IGNORECASE)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")


def label_of(value: object) -> int | None:
    """0 normal, 1 anomalous, None unknown.

    Raises:
        ValueError: if it is no word for any of them.
    """
    word = _word(value)
    if word not in _LABELS and word not in MISSING:
        raise ValueError
    return _LABELS.get(word)


class Cells:
    """The cells of some rows.

    Args:
        batch: the rows.
        where: the table, for messages.
        notes: what is said of them.
    """

    def __init__(self, batch: Batch, where: str, notes: Notes) -> None:
        self.batch, self.where, self.notes = batch, where, notes

    def labels(self, name: str) -> list[int | None]:
        """0 normal, 1 anomalous, None unknown.

        Raises:
            DataError: naming the row of a value that is none of that.
        """

        def meaning(value: object) -> int | None:
            found = label_of(value)
            if _word(value) not in ("", "0", "1"):
                self.notes.word(name, str(value), _LABEL_MEANS[found])
            return found

        return self._each(name, meaning, _LABEL_RULE)

    def depths(self, name: str) -> list[int | None]:
        """Bits of a camera, None where nothing is said.

        Raises:
            DataError: naming the row of a value that is none of `levels.DEPTHS`.
        """

        def meaning(value: object) -> int | None:
            word = re.sub(r"\.0+$", "", _word(value))  # what pandas makes of integers beside missing values
            if word in MISSING:
                return None
            if word not in map(str, DEPTHS):
                raise ValueError
            return int(word)

        return self._each(name, meaning, f"is none of {', '.join(map(str, DEPTHS))}; leave it empty where files say it")

    def labels_of_defects(self, name: str, beside_labels: bool = False) -> list[int | None]:
        """The labels that the names of defects say; beside labels, what says no more than that there is no name says
        nothing."""

        def meaning(value: object) -> int | None:
            word = _word(value)
            if beside_labels:
                return None if word in _NO_DEFECT_OR_NAME or word in MISSING else int(not _is_no_defect(word))
            found = 0 if _is_no_defect(word) else None if word in MISSING else 1
            self.notes.word(name, str(value), _LABEL_MEANS[found])
            return found

        return self._each(name, meaning, "")

    def splits(self, name: str) -> list[str]:
        """train, test or `VALIDATION`.

        Raises:
            DataError: as `labels`.
        """

        def meaning(value: object) -> str:
            found = _SPLITS.get(_word(value))
            if found is None:
                raise ValueError
            if value != found:
                meant = "train where normal, else test" if found == VALIDATION else found
                self.notes.word(name, str(value), meant)
            return found

        return self._each(name, meaning, "must be train, test or val", missing=False)

    def names(self, name: str, required: bool) -> list[str | None]:
        """Text; whole numbers become their digits.

        Raises:
            DataError: naming the row that is empty where a value is required.
        """
        kind = self._kind(name)
        if not (
            table.is_text(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)
        ):
            raise DataError(f"{self.where}: column {name!r} holds {kind}; it must hold text")
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            self.notes.say(f"column {name!r}: its numbers are taken for names")

        def meaning(value: object) -> str | None:
            if isinstance(value, float):
                if value != value:
                    return None
                if not value.is_integer():
                    raise ValueError
                return str(int(value))
            text = str(value)
            return None if not text or (not required and text.lower() in NO_NAMES) else text

        rule = "must be text or a whole number"
        found = self._each(name, meaning, rule)
        if required and None in found:
            row = found.index(None)
            raise DataError(f"{self._at(name, row)}: {self._value(name, row)!r} must not be empty")
        return found

    def places(self, name: str, folder: str, required: bool) -> list[str | None]:
        """URIs; relative ones start from `folder`.

        Raises:
            DataError: naming the row that is empty where a value is required, or that no path here leads to.
        """
        kind = self._kind(name)
        if not (table.is_text(kind) or pa.types.is_null(kind)):
            raise DataError(f"{self.where}: column {name!r} holds {kind}; it must hold paths or URIs")
        given = self.batch.columns[name].to_pylist()
        below = resolved("", folder)
        special = [row for row, uri in enumerate(given) if uri is None or _NOT_PLAIN.search(uri)]
        found = [below + uri if uri else None for uri in given]
        try:
            for row in special:
                uri = given[row]
                found[row] = resolved(uri, folder) if uri and uri.lower() not in MISSING else None
        except ValueError:
            raise self._of_windows(name, given) from None
        if required and None in found:
            row = found.index(None)
            raise DataError(f"{self._at(name, row)}: {given[row]!r} must not be empty")
        relative = (given[row] for row in special if given[row] and "://" not in given[row])
        if any("\\" in uri and not uri.startswith("/") for uri in relative):
            self.notes.say(f"column {name!r}: \\ in relative paths is taken for /")
        return found

    def images(self, name: str, folder: str) -> list[str | None]:
        """As `places`, of files that are named as images are.

        Raises:
            DataError: as `places`, and naming the row of one that is not.
        """
        found = self.places(name, folder, required=True)
        for row, uri in enumerate(found):
            if uri and not file_of(uri).lower().endswith(IMAGE_EXTENSIONS):
                raise DataError(
                    f"{self._at(name, row)}: {self._value(name, row)!r} does not name an image file "
                    f"({', '.join(IMAGE_EXTENSIONS)}); leave the row out, or name the image"
                )
        return found

    def _of_windows(self, name: str, given: Sequence[str | None]) -> DataError:
        row = next(row for row, uri in enumerate(given) if uri and _is_of_windows(uri))
        uri = str(given[row])
        others = [uri for uri in given if uri]
        prefix = posixpath.commonprefix(others)
        prefix = prefix[: max(prefix.rfind("\\"), prefix.rfind("/")) + 1]
        what = f"{prefix!r}, with which the other rows begin too," if len(others) > 1 and prefix else "its beginning"
        return DataError(
            f"{self._at(name, row)}: {uri!r} is a path of a Windows machine, which is not reached from here; replace "
            f"{what} by the path or URI that the folder has here"
        )

    def _each(self, name: str, meaning: Callable[[object], T], rule: str, missing: bool = True) -> list[T]:
        """What each value means; each is looked at once. A value that means nothing raises ValueError."""
        column = self.batch.columns[name]
        kind = self._kind(name)
        if pa.types.is_nested(kind):
            raise DataError(f"{self.where}: column {name!r} holds {kind}; each value {rule}")
        coded = column.combine_chunks() if pa.types.is_dictionary(column.type) else None
        coded = coded if coded is not None else column.combine_chunks().dictionary_encode("encode")
        codes = coded.indices.to_pylist()
        found: list[T] = []
        for code, value in enumerate(coded.dictionary.to_pylist()):
            try:
                if value is None and not missing:
                    raise ValueError
                found.append(meaning("" if value is None else value))
            except ValueError:
                if code not in codes:  # a dictionary may know more words than its rows use
                    found.append(None)  # type: ignore[arg-type]
                    continue
                raise DataError(f"{self._at(name, codes.index(code))}: {value!r} {rule}") from None
        if None in codes:
            if not missing:
                raise DataError(f"{self._at(name, codes.index(None))}: None {rule}")
            nothing = meaning("")
            return [nothing if code is None else found[code] for code in codes]
        return [found[code] for code in codes]

    def _kind(self, name: str) -> pa.DataType:
        kind = self.batch.columns[name].type
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    def _value(self, name: str, row: int) -> object:
        return self.batch.columns[name][row].as_py()

    def _at(self, name: str, row: int) -> str:
        return f"{self.where}: column {name!r}, {self.batch.row(row)}"


def resolved(uri: str, folder: str) -> str:
    """A place as any process finds it.

    Raises:
        ValueError: if it is on a Windows machine.
    """
    if _is_of_windows(uri):
        raise ValueError
    if "\\" in uri and "://" not in uri and not uri.startswith("/"):
        uri = uri.replace("\\", "/")
    if uri.startswith("file://"):
        uri = storage.absolute(_path_of_file(uri))
    elif uri.startswith("~/"):
        uri = os.path.expanduser(uri)
    if uri.startswith("/"):  # one spelling an image
        return posixpath.normpath(uri) if "/." in uri or "//" in uri else uri
    if "://" in uri:
        return uri
    scheme, mark, path = folder.rpartition("://")
    whole = f"{path}/{uri}"
    if not uri:
        return scheme + mark + whole
    return scheme + mark + (posixpath.normpath(whole) if "/." in whole or "//" in whole else whole)


def _is_of_windows(uri: str) -> bool:
    """Whether a path has a drive or a server, as a path or after file://."""
    if uri.startswith("file://"):
        host, _, path = uri.removeprefix("file://").partition("/")
        return host.lower() not in ("", "localhost") or bool(_WINDOWS.match(path))
    return bool(_WINDOWS.match(uri)) or (uri.startswith("//") and not uri.startswith("///"))


def _path_of_file(uri: str) -> str:
    """The path in a file:// URI, in which a %20 is a space unless a file has such a name."""
    path = uri.removeprefix("file://")
    path = path[path.index("/") :]
    if "%" not in path or os.path.exists(path):
        return path
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        return path


def _word(value: object) -> str:
    """A value as text to be looked up: case and spaces do not count, and 1.0 is 1."""
    word = str(value).strip().lower()
    number = _NUMBER.fullmatch(word)
    return number[1] if number else word


def _is_no_defect(word: str) -> bool:
    return word in _NORMAL or word in _NO_DEFECT_OR_NAME or re.sub(r"[\s_-]+", " ", word) in _NO_DEFECT


def defect_named(defect: str | None, label: int | None) -> str | None:
    """The name of a defect in an image table; "good" for normals that are not called otherwise."""
    if not defect:
        return "good" if label == 0 else None
    word = _word(defect)
    if not _is_no_defect(word) or word in _NORMAL[1:] or (word == "0" and label == 1):
        return "good" if label == 0 and word in MISSING else defect
    return "good" if label == 0 else None
