"""What images there are: three layouts, one image table.

- **MVTec AD** (MPDD and BTAD share it): `<category>/train/good/`, `<category>/test/<defect>/` and masks
  `<category>/ground_truth/<defect>/<stem>_mask.png` (or `<stem>`, with any image extension). The root may be
  one category, a folder of categories, or a folder of such folders: each of these is then a dataset.
- **Folder of normals**: images in the folder itself, or one folder a category.
- **Table**: CSV or Parquet, see `own_table`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from raydiff import storage
from raydiff.errors import DataError
from raydiff.images import own_table, table

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

_SPLITS = ("train", "test")
MASKS = "ground_truth"
_NORMAL = ("good", "ok")  # MVTec AD and MPDD; BTAD
_ABNORMAL = ("abnormal", "anomaly", "anomalous", "bad", "defect", "defects", "defective", "ko", "ng", "nok")
_OUTPUTS = "anomaly_maps"  # what scoring writes, should it lie inside its input


@dataclass(frozen=True)
class Found:
    """The images of a folder or table, and what else lay there (paths relative to it)."""

    images: pa.Table  # the image table
    layout: str
    ignored: tuple[str, ...] = ()  # files that are no images, or hidden
    misplaced: tuple[str, ...] = ()  # images in the MVTec AD layout, but at no place that has a meaning
    unused_masks: tuple[str, ...] = ()  # masks that fit no image


class _Row(NamedTuple):
    """In the order of `table.SCHEMA`."""

    uri: str
    dataset: str
    category: str
    split: str
    label: int | None
    defect: str | None = None
    mask_uri: str | None = None


class _Folder(NamedTuple):
    uri: str
    images: dict[str, str]  # path relative to the folder -> uri
    ignored: tuple[str, ...]


def find_images(uri: str, score_uri: str | None = None) -> pa.Table:
    """The image table of the folder or table at `uri`.

    `score_uri` is a folder of images to score: they become rows of split test with no label. It has one
    folder a category; where there is but one category, its folders are free.

    Raises:
        DataError: if the layout is none of the above, saying what was looked for and what was found.
        StorageError: if a URI cannot be listed or read.
    """
    return survey(uri, score_uri).images


def survey(uri: str, score_uri: str | None = None) -> Found:
    """As `find_images`, with an account of the files that are not in the table."""
    uri = storage.absolute(uri)
    if own_table.is_table(uri):
        if score_uri is not None:
            raise DataError(f"{uri} is a table: list the images to score in it, with split test")
        return Found(own_table.read(uri), "table")

    folder = _list(uri)
    to_score = None if score_uri is None else _list(storage.absolute(score_uri))
    if to_score is not None:
        folder, to_score = _apart(folder, to_score)
    if not folder.images:
        raise DataError(
            f"{uri} holds no images; looked for {', '.join(IMAGE_EXTENSIONS)} as <category>/train/good/<image> "
            f"(MVTec AD layout), <image> or <category>/<image> (normals); found {_few(folder.ignored)}"
        )
    inside = {part.lower() for path in folder.images for part in path.split("/")[:-1]}
    if inside.intersection((*_SPLITS, MASKS)):
        layout = "MVTec AD layout"
        rows, misplaced, unused_masks = _mvtec_rows(folder)
    else:
        layout, misplaced, unused_masks = "folder of normals", (), ()
        rows = _normal_rows(folder)
    ignored = folder.ignored
    if to_score is not None:
        rows += _rows_to_score(to_score, {row.category for row in rows})
        ignored += to_score.ignored
    return Found(_as_table(rows, uri), layout, ignored, misplaced, unused_masks)


def is_image(path: str) -> bool:
    """Whether a path below a folder of images names one, by its extension; hidden files and our own maps do not."""
    hidden = any(part.startswith(".") or part in ("__MACOSX", _OUTPUTS) for part in path.split("/"))
    return path.lower().endswith(IMAGE_EXTENSIONS) and not hidden


def category_of(path: str, categories: Collection[str]) -> str | None:
    """Which of some categories an image to be scored shows: the first of its folders so named, or else the only one.

    A category `dataset/name` is two folders.
    """
    parts = path.split("/")[:-1]
    only = next(iter(categories)) if len(categories) == 1 else None
    names = (name for at in range(len(parts)) for name in ("/".join(parts[at : at + 2]), parts[at]))
    return next((name for name in names if name in categories), only)


def _list(uri: str) -> _Folder:
    fs, path = storage.filesystem(uri)
    root = path if storage.is_local(uri) else fs.unstrip_protocol(path)
    images, ignored = {}, []
    for file in storage.list_files(uri):
        relative = file[len(root) :].lstrip("/")
        if is_image(relative):
            images[relative] = file
        else:
            ignored.append(relative)
    return _Folder(uri, images, tuple(ignored))


def _apart(normals: _Folder, to_score: _Folder) -> tuple[_Folder, _Folder]:
    """Two folders without the one in the other, should one lie inside the other."""
    if normals.uri == to_score.uri:
        raise DataError(f"{normals.uri} cannot hold the normals and the images to score; use two folders")
    in_normals = set(to_score.images.values()) & set(normals.images.values())
    outer = normals if len(normals.uri) < len(to_score.uri) else to_score
    kept = outer._replace(images={path: uri for path, uri in outer.images.items() if uri not in in_normals})
    return (kept, to_score) if outer is normals else (normals, kept)


def _mvtec_rows(folder: _Folder) -> tuple[list[_Row], tuple[str, ...], tuple[str, ...]]:
    """Rows, misplaced images and unused masks."""
    placed: list[tuple[str, tuple[str, ...], str, str, str]] = []
    masks: dict[str, str] = {}
    misplaced: list[str] = []
    for path in folder.images:
        parts = path.split("/")
        # From the right, so that a dataset may be called "test"; a folder and a file must follow.
        at = next((i for i in range(len(parts) - 3, -1, -1) if parts[i].lower() in (*_SPLITS, MASKS)), None)
        if at is None:
            misplaced.append(path)
            continue
        key = _stem("/".join([*parts[:at], *parts[at + 1 :]]))
        if parts[at].lower() == MASKS:
            masks.setdefault(key, path)
        else:
            placed.append((path, tuple(parts[:at]), parts[at].lower(), parts[at + 1], key))
    if not placed:
        raise DataError(
            f"{folder.uri} looks like the MVTec AD layout, but looked for <category>/train/good/<image> and "
            f"<category>/test/<defect>/<image> in vain; found {_few(list(folder.images))}"
        )

    names = _category_names({prefix for _, prefix, *_ in placed}, folder.uri)
    rows, used = [], set()
    for path, prefix, split, group, key in placed:
        label = 0 if group.lower() in _NORMAL else 1
        mask = next((masks[name] for name in (f"{key}_mask", key) if label and name in masks), None)
        used.add(mask)
        rows.append(
            _Row(
                folder.images[path],
                *names[prefix],
                split,
                label,
                group if label else "good",
                folder.images[mask] if mask else None,
            )
        )
    unused = [path for path in masks.values() if path not in used and path.split("/")[-2].lower() not in _NORMAL]
    return rows, tuple(misplaced), tuple(unused)


def _category_names(prefixes: Collection[tuple[str, ...]], root: str) -> dict[tuple[str, ...], tuple[str, str]]:
    """Dataset and category of each folder that holds train/ or test/; a category's name is unique."""
    above, _, name = root.rpartition("://")[2].rpartition("/")
    names = {}
    for prefix in prefixes:
        if prefix:
            names[prefix] = ("/".join(prefix[:-1]) or name, prefix[-1])
        else:  # the root is a category itself
            names[prefix] = (storage.name(above) or name, name)
    times = Counter(category for _, category in names.values())
    return {
        prefix: (dataset, category if times[category] == 1 else f"{dataset}/{category}")
        for prefix, (dataset, category) in names.items()
    }


def _normal_rows(folder: _Folder) -> list[_Row]:
    siblings = defaultdict(set)
    for path in folder.images:
        parts = path.split("/")
        for depth, part in enumerate(parts[:-1]):
            siblings[tuple(parts[:depth])].add(part)
    for names in siblings.values():
        lower = {name.lower() for name in names}
        if lower & set(_ABNORMAL) or (lower & set(_NORMAL) and lower - set(_NORMAL)):
            raise DataError(
                f"{folder.uri} was taken for a folder of normals, but it holds folders {_few(sorted(names))}, "
                "which cannot all be normal; move them to <category>/train/good/ and <category>/test/<defect>/ "
                "(MVTec AD layout), or give the folder of normals alone"
            )
    name = storage.name(folder.uri)
    rows = []
    for path, uri in folder.images.items():
        category = path.split("/")[0] if "/" in path else name
        rows.append(_Row(uri, name, category, "train", 0, "good"))
    return rows


def _rows_to_score(folder: _Folder, categories: Collection[str]) -> list[_Row]:
    if not folder.images:
        raise DataError(f"{folder.uri} holds no images to score; found {_few(folder.ignored)}")
    dataset = storage.name(folder.uri)
    rows, lost = [], []
    for path, uri in folder.images.items():
        named = category_of(path, categories)
        if named is None:
            lost.append(path)
        else:
            rows.append(_Row(uri, dataset, named, "test", None))
    if lost:
        raise DataError(
            f"{folder.uri}: looked for one folder a category ({_few(sorted(categories))}), which says what the "
            f"images show; found {_few(lost)}"
        )
    return rows


def _as_table(rows: list[_Row], where: str) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, table.SCHEMA, strict=True)]
    return table.validate(pa.table(arrays, schema=table.SCHEMA), where)


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    if len(names) > 4:
        return f"{shown} and {len(names) - 4} more"
    return shown or "nothing"
