"""The images worth a look: worst misses, worst false alarms, borderline ones, each with its heat map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from raydiff.errors import RaydiffError
from raydiff.images.levels import Levels
from raydiff.images.overlay import map_scale
from raydiff.report.pictures import THUMBNAIL, Pictures, pictures, resize_map
from raydiff.report.runs import ANOMALOUS, NORMAL, UNKNOWN, Run
from raydiff.scoring.maps import read_map

PER_GROUP = 6
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


def groups(run: Run, per_group: int = PER_GROUP, told: Callable[[], None] = lambda: None) -> list[Group]:
    """The gallery of one run; `told` is called after each image. Images are read one at a time."""
    distance = distances(run)
    scales: dict[int, tuple[float, float] | None] = {}
    made = []
    for title, note, rows in pick(run, distance, per_group):
        tiles = []
        for row in rows:
            category = int(run.category[row])
            if category not in scales:
                scales[category] = colour_scale(run, category)
            tiles.append(_tile(run, row, scales[category]))
            told()
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
    image, heat, problem = shown(run, row, scale)
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


def shown(
    run: Run,
    row: int,
    scale: tuple[float, float] | None,
    mapped: bool = True,
    outlined: bool = True,
    side: int = THUMBNAIL,
) -> Pictures:
    """The pictures of one row of a run's score table.

    Args:
        scale: ends of the map's colours; None where there are none.
        mapped: whether its map is shown.
        outlined: whether the true defect is outlined, where it is known.
        side: the longest of a picture, pixels.
    """
    levels = Levels.kept(run.model["settings"]["train"]) if run.model else None
    (told,) = run.table.slice(row, 1).to_pylist()
    left_out = {name: None for name, there in (("map_uri", mapped), ("mask_uri", outlined)) if not there}
    return pictures(told | left_out, scale, levels, side=side)


def colour_scale(run: Run, category: int) -> tuple[float, float] | None:
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
                maps.append(resize_map(read_map(run.cell("map_uri", int(row))), THUMBNAIL, THUMBNAIL))
            except RaydiffError:
                continue  # its own tile, if it has one, says so
        if maps:
            return map_scale(maps)
    return None
