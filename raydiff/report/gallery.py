"""The images worth a look: worst misses, worst false alarms, borderline ones, each with its heat map."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from raydiff import storage
from raydiff.errors import RaydiffError
from raydiff.images import pages
from raydiff.images.decode import decode
from raydiff.images.levels import Levels
from raydiff.images.masks import read_mask
from raydiff.images.overlay import map_scale, overlay
from raydiff.report.runs import ANOMALOUS, NORMAL, UNKNOWN, Run
from raydiff.scoring.maps import read_map

PER_GROUP = 6
THUMBNAIL = 256  # longest side, pixels
_JPEG_QUALITY = 82
_SCALE_MAPS = 8  # maps that one category's colour scale is taken from


@dataclass(frozen=True)
class Tile:
    """One image of the gallery. Pictures are JPEG bytes; None where there is nothing to show."""

    uri: str
    category: str
    defect: str | None
    score: float
    p_value: float | None
    threshold: float | None
    verdict: str
    wrong: bool
    image: bytes | None
    heat: bytes | None  # the image with its heat map and the true mask's outline, as far as they exist
    problem: str | None  # why a picture is missing


@dataclass(frozen=True)
class Group:
    """Some images of one kind."""

    title: str
    note: str
    tiles: list[Tile]


def groups(run: Run, per_group: int = PER_GROUP, shown: Callable[[], None] = lambda: None) -> list[Group]:
    """The gallery of one run; `shown` is called after each image. Images are read one at a time."""
    distance = distances(run)
    scales: dict[int, tuple[float, float] | None] = {}
    made = []
    for title, note, rows in pick(run, distance, per_group):
        tiles = []
        for row in rows:
            category = int(run.category[row])
            if category not in scales:
                scales[category] = _scale(run, category)
            tiles.append(_tile(run, row, scales[category]))
            shown()
        made.append(Group(title, note, tiles))
    return made


def distances(run: Run) -> NDArray[np.float64]:
    """How far each score is above its alarm threshold, in interquartile ranges of the category's normal ones.

    Scores of unlike categories become comparable by it. Unknown labels stand in where a category has no
    labelled normal image, and the median where there is no threshold. NaN where there is no score.
    """
    distance = np.full(len(run.score), np.nan)
    for category in range(len(run.categories)):
        mine = run.scored & (run.category == category)
        if not mine.any():
            continue
        usual = next(
            scores
            for scores in (run.score[mine & (run.label == label)] for label in (NORMAL, UNKNOWN, ANOMALOUS))
            if len(scores)
        )
        low, middle, high = np.quantile(usual, [0.25, 0.5, 0.75])
        centre = np.where(np.isfinite(run.threshold[mine]), run.threshold[mine], middle)
        distance[mine] = (run.score[mine] - centre) / (high - low or 1.0)
    return distance


def pick(run: Run, distance: NDArray[np.float64], per_group: int) -> list[tuple[str, str, list[int]]]:
    """(title, note, rows) of each group that has an image; no image is in two groups."""
    taken: set[int] = set()

    def nearest(key: NDArray[np.float64], among: NDArray[np.bool_]) -> list[int]:
        rows = np.flatnonzero(among & np.isfinite(distance))
        first = rows[np.argsort(key[rows], kind="stable")]
        chosen = [int(row) for row in first[: per_group + len(taken)] if int(row) not in taken][:per_group]
        taken.update(chosen)
        return chosen

    bad, good = run.label == ANOMALOUS, run.label == NORMAL
    if run.held_out:
        highest = nearest(-distance, np.ones(len(distance), bool))
        found = [
            ("Highest held-out", "held-out normal images with the highest scores: is each of them normal?", highest)
        ]
        return [group for group in found if group[2]]
    found = [
        ("Worst misses", "anomalous images with the lowest scores", nearest(distance, bad)),
        ("Worst false alarms", "normal images with the highest scores", nearest(-distance, good)),
        (
            "Highest unlabelled",
            "images without a label with the highest scores",
            nearest(-distance, ~(bad | good)),
        ),
        (
            "Borderline",
            "images nearest to the alarm threshold",
            nearest(np.abs(distance), np.isfinite(run.threshold)),
        ),
    ]
    return [group for group in found if group[2]]


def _tile(run: Run, row: int, scale: tuple[float, float] | None) -> Tile:
    label, alarm = int(run.label[row]), bool(run.alarm[row])
    threshold = float(run.threshold[row]) if np.isfinite(run.threshold[row]) else None
    words = {
        (ANOMALOUS, True): "caught",
        (ANOMALOUS, False): "missed",
        (NORMAL, True): "false alarm",
        (NORMAL, False): "passed",
        (UNKNOWN, True): "alarm",
        (UNKNOWN, False): "no alarm",
    }
    image, heat, problem = _pictures(run, row, scale)
    return Tile(
        uri=run.cell("uri", row),
        category=run.categories[int(run.category[row])],
        defect=run.cell("defect", row),
        score=float(run.score[row]),
        p_value=run.cell("p_value", row),
        threshold=threshold,
        verdict=words[label, alarm] if threshold is not None else "",
        wrong=threshold is not None and label != UNKNOWN and alarm != (label == ANOMALOUS),
        image=image,
        heat=heat,
        problem=problem,
    )


def _pictures(run: Run, row: int, scale: tuple[float, float] | None) -> tuple[bytes | None, bytes | None, str | None]:
    """Thumbnail, thumbnail with heat and outline, and why one of them is missing."""
    try:
        levels = Levels.kept(run.model["settings"]["train"]) if run.model else None
        own = levels.of(run.cell("category", row)) if levels else None
        found = pages.read(run.cell("uri", row))
        full = decode(found.data, levels=own, page=found.page)
    except RaydiffError as error:
        return None, None, str(error)
    shrink = THUMBNAIL / max(full.shape[:2])
    height, width = (max(1, round(side * min(1.0, shrink))) for side in full.shape[:2])
    small = np.asarray(Image.fromarray(full).resize((width, height), Image.Resampling.BOX))
    heat, problem = small, None
    map_uri, mask_uri = run.cell("map_uri", row), run.cell("mask_uri", row)
    try:
        if map_uri and map_uri.endswith(".png"):  # laid over its image already
            laid = Image.fromarray(decode(storage.read_bytes(map_uri)))
            heat = np.asarray(laid.resize((width, height), Image.Resampling.BOX))
        elif map_uri and scale:
            heat = overlay(heat, _resize_map(read_map(map_uri), width, height), *scale)
        if mask_uri:
            heat = outline(heat, read_mask(mask_uri))
    except RaydiffError as error:
        problem = str(error)
    return _jpeg(small), _jpeg(heat) if heat is not small else None, problem


def outline(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image (H, W, 3) with a white line, black outside, around the true defect.

    The mask may have another size; a defect smaller than a pixel of the image still gets its line.
    """
    height, width = image.shape[:2]
    share = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    inside = ndimage.binary_dilation(np.asarray(share) > 0)
    drawn = image.copy()
    drawn[ndimage.binary_dilation(inside, iterations=2) & ~inside] = 0
    drawn[ndimage.binary_dilation(inside) & ~inside] = 255
    return drawn


def _scale(run: Run, category: int) -> tuple[float, float] | None:
    """The colour scale of a category: its calibration's, as for heat maps written beside a score table.

    Without a calibration it comes from maps of normal images, spread over the range of their scores. Unlabelled
    images stand in where no normal one has a map: most of an archive is normal.
    """
    if run.calibration is not None:
        return run.calibration.of(run.categories[category]).colour_scale()
    is_map = pc.fill_null(pc.ends_with(run.table["map_uri"], ".tiff"), False).to_numpy()
    has_map = is_map & run.scored & (run.category == category)
    for label in (NORMAL, UNKNOWN, ANOMALOUS):
        rows = np.flatnonzero(has_map & (run.label == label))
        if not len(rows):
            continue
        rows = rows[np.argsort(run.score[rows], kind="stable")]
        maps = []
        for row in rows[np.unique(np.linspace(0, len(rows) - 1, _SCALE_MAPS).astype(int))]:
            try:
                maps.append(_resize_map(read_map(run.cell("map_uri", int(row))), THUMBNAIL, THUMBNAIL))
            except RaydiffError:
                continue  # its own tile, if it has one, says so
        if maps:
            return map_scale(maps)
    return None


def _resize_map(anomaly_map: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    resized = Image.fromarray(anomaly_map).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, format="JPEG", quality=_JPEG_QUALITY)
    return sink.getvalue()
