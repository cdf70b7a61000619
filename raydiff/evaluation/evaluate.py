"""From a score table and its anomaly maps to metrics per category, their mean and their worst."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image
from pydantic import BaseModel, ConfigDict

from raydiff.errors import DataError, ImageError, StorageError, StorageUnavailable
from raydiff.images.decode import resize_mask
from raydiff.images.mask_faults import fault
from raydiff.images.masks import read_mask
from raydiff.metrics.binned import BinnedPixelMetrics
from raydiff.metrics.curve import OneClassError, PixelMetrics
from raydiff.metrics.exact import auroc, average_precision, f1_max, pixel_curve
from raydiff.metrics.pixels import Pixels, split
from raydiff.progress import Phase, phase
from raydiff.scoring.maps import read_map
from raydiff.scoring.table import read_parts

# A category with more pixels than this is evaluated with binned metrics. Exact ones hold some 10 bytes a pixel, 2 GB
# at most; every category of MVTec AD is below it at its original size.
EXACT_PIXELS = 200_000_000
FIRST_LOOK_PIXELS = 4_000_000  # normal pixels that place the bins
UNUSABLE_KEPT = 50  # masks that are named with their reason; the count is always whole

_COLUMNS = [
    "uri",
    "category",
    "label",
    "defect",
    "mask_uri",
    "score",
    "is_anomalous",
    "map_uri",
    "method",
    "model_id",
    "error",
]
LOWER_IS_BETTER = {"false_alarm_rate"}


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DefectEvaluation(_Result):
    """One kind of defect against all normals of its category."""

    images: int
    image_auroc: float | None


class CategoryEvaluation(_Result):
    """One category. A metric that cannot be computed (no labels, no masks, no threshold) is None."""

    images: int  # scored images of the test split, those of unknown label included
    anomalous: int  # of these, the ones labelled anomalous
    maps: int  # of these, the ones whose maps the pixel metrics are made from
    image_auroc: float | None
    image_ap: float | None
    image_f1_max: float | None
    pixel_auroc: float | None
    pixel_ap: float | None
    pixel_f1_max: float | None
    aupro: float | None
    false_alarm_rate: float | None  # alarms among normals, at the calibrated threshold
    recall: float | None  # alarms among anomalies, at the calibrated threshold
    defects: dict[str, DefectEvaluation]


METRICS = tuple(name for name, field in CategoryEvaluation.model_fields.items() if field.annotation == float | None)


class UnusableMask(_Result):
    """A mask that leaves its image out of the pixel metrics, and why."""

    uri: str
    category: str
    reason: str


class Unusable:
    """Masks that cannot be used: how many, and the first of them."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[UnusableMask] = []

    def add(self, row: dict[str, Any], reason: str) -> None:
        """Take in the mask of one row."""
        self.count += 1
        if len(self.first) < UNUSABLE_KEPT:
            self.first.append(UnusableMask(uri=row["mask_uri"], category=row["category"], reason=reason))


class Worst(_Result):
    """The category in which a metric is worst."""

    category: str
    value: float


class Evaluation(_Result):
    """What `evaluate` found; `model_dump(mode="json")` is its JSON form."""

    method: str
    model_id: str
    scores_uri: str
    size: int | None  # the side that maps and masks were resized to; None: original size
    pixel_metrics: str  # "exact", or "binned" if that was so for any category
    images: int  # scored images of the test split
    errors: int  # images of the test split that could not be scored
    unusable_masks: int = 0  # anomalous images that their mask leaves out of the pixel metrics
    unusable: tuple[UnusableMask, ...] = ()  # the first of these
    categories: dict[str, CategoryEvaluation]
    mean: dict[str, float | None]  # over the categories that have the metric, each weighing the same
    worst: dict[str, Worst | None]


def evaluate(scores_uri: str, size: int | None = None) -> Evaluation:
    """Metrics of a score table's test split.

    Image metrics are made from rows with a label. Pixel metrics are made from rows with an anomaly map: a
    normal image has an empty mask, an anomalous one without a mask is left out. So is one whose mask cannot be read,
    has another size or marks nothing; it is counted and named. Rows with an error only count as errors. One category's
    pixels are in memory at a time, and of more than `EXACT_PIXELS` only histograms.

    Args:
        scores_uri: folder of the score table.
        size: side that maps (bilinear) and masks (nearest) are resized to; None leaves the original size.

    Raises:
        DataError: if there is no image of the test split, the table is of several models, or a map is unfit.
        StorageError: if the table or a map cannot be read.
        StorageUnavailable: if a mask's store does not answer.
    """
    rows = _test_rows(scores_uri)
    if not rows.num_rows:
        raise DataError(f"{scores_uri} holds no image whose split is 'test', so there is nothing to evaluate")
    scored = rows.filter(pc.is_null(rows["error"]))
    _check_scores(scored)
    method, model_id = (_only(rows, column, scores_uri) for column in ("method", "model_id"))
    names = sorted(scored["category"].unique().to_pylist())
    with_pixels = scored.filter(_has_pixels())
    categories = {}
    kinds = set()
    unusable = Unusable()
    with phase("evaluation", with_pixels.num_rows, "maps") as progress:
        for name in names:
            of_category = pc.field("category") == name
            pixels = with_pixels.filter(of_category)
            before = unusable.count
            metrics, kind = _pixel_metrics(_read_pixels(pixels, size, progress, unusable))
            kinds.add(kind)
            maps = pixels.num_rows - (unusable.count - before)
            categories[name] = _category(scored.filter(of_category), metrics, maps)
    return Evaluation(
        method=method,
        model_id=model_id,
        scores_uri=scores_uri,
        size=size,
        pixel_metrics="binned" if "binned" in kinds else "exact",
        images=scored.num_rows,
        errors=rows.num_rows - scored.num_rows,
        unusable_masks=unusable.count,
        unusable=tuple(unusable.first),
        categories=categories,
        mean={metric: mean_over(categories, metric) for metric in METRICS},
        worst={metric: _worst(categories, metric) for metric in METRICS},
    )


def _test_rows(scores_uri: str) -> pa.Table:
    is_test = pc.field("split") == "test"
    return pa.concat_tables([part.filter(is_test).select(_COLUMNS) for part in read_parts(scores_uri)])


def _check_scores(scored: pa.Table) -> None:
    bad = scored.filter(pc.fill_null(pc.is_nan(scored["score"]), True))
    if bad.num_rows:
        raise DataError(f"{bad['uri'][0]} has neither a score nor an error in its score table; score it again")


def _has_pixels() -> pc.Expression:
    is_normal = pc.field("label") == 0
    is_masked = (pc.field("label") == 1) & pc.field("mask_uri").is_valid()
    return pc.field("map_uri").is_valid() & (is_normal | is_masked)


def _only(rows: pa.Table, column: str, scores_uri: str) -> str:
    values = rows[column].unique().to_pylist()
    if len(values) > 1:
        raise DataError(
            f"{scores_uri} mixes scores of {len(values)} values of {column} ({values[0]}, {values[1]}, ...); "
            "score each model into its own folder"
        )
    return str(values[0])


def _category(rows: pa.Table, pixel: PixelMetrics | None, maps: int) -> CategoryEvaluation:
    labelled = rows.filter(pc.field("label").is_valid())
    scores = labelled["score"].to_numpy()
    labels = labelled["label"].to_numpy() == 1
    defect = np.asarray(labelled["defect"].to_pylist(), dtype=object)
    defects = {}
    for name in sorted({name for name in defect[labels] if name is not None}):
        of_defect = labels & (defect == name)
        against_normals = of_defect | ~labels
        image_auroc = _or_none(auroc, scores[against_normals], labels[against_normals])
        defects[name] = DefectEvaluation(images=int(of_defect.sum()), image_auroc=image_auroc)
    return CategoryEvaluation(
        images=rows.num_rows,
        anomalous=int(labels.sum()),
        maps=maps,
        image_auroc=_or_none(auroc, scores, labels),
        image_ap=_or_none(average_precision, scores, labels),
        image_f1_max=_or_none(f1_max, scores, labels),
        pixel_auroc=pixel and pixel.auroc,
        pixel_ap=pixel and pixel.average_precision,
        pixel_f1_max=pixel and pixel.f1_max,
        aupro=pixel and pixel.aupro,
        false_alarm_rate=pc.mean(rows.filter(pc.field("label") == 0)["is_anomalous"]).as_py(),
        recall=pc.mean(rows.filter(pc.field("label") == 1)["is_anomalous"]).as_py(),
        defects=defects,
    )


def _or_none(metric: Any, scores: np.ndarray, labels: np.ndarray) -> float | None:
    try:
        return float(metric(scores, labels))
    except OneClassError:
        return None


def _read_pixels(rows: pa.Table, size: int | None, progress: Phase, unusable: Unusable) -> Iterator[Pixels]:
    """The pixels of each row's map, in an order that makes the first of them a fair sample.

    Masks that leave their image out are added to `unusable`.
    """
    for index in np.random.default_rng(0).permutation(rows.num_rows):
        row = {column: rows[column][index].as_py() for column in ("map_uri", "mask_uri", "label", "category")}
        anomaly_map = read_map(row["map_uri"])
        progress.advance(note=row["category"])
        mask = np.zeros(anomaly_map.shape, dtype=bool)
        if row["label"] == 1:
            try:
                mask = _read_mask(row["mask_uri"], anomaly_map.shape)
            except StorageUnavailable:
                raise
            except (ImageError, StorageError) as error:
                unusable.add(row, str(error))
                continue
        if size is not None:
            anomaly_map = np.asarray(Image.fromarray(anomaly_map).resize((size, size), Image.Resampling.BILINEAR))
            mask = resize_mask(mask, size)
        try:
            yield split(anomaly_map, mask)
        except DataError as error:
            raise DataError(f"{row['map_uri']}: {error}") from None


def _read_mask(uri: str, shape: tuple[int, ...]) -> np.ndarray:
    mask = read_mask(uri)
    if found := fault(mask, shape):
        raise ImageError(str(found))
    return mask


def _pixel_metrics(images: Iterator[Pixels]) -> tuple[PixelMetrics | None, str]:
    """The metrics of one category, exact or, once its pixels are too many to be held, binned."""
    held: list[Pixels] = []
    pixels = 0
    binned: BinnedPixelMetrics | None = None
    for image in images:
        if binned is not None:
            binned.add(image)
            continue
        held.append(image)
        pixels += image.normal.size + image.anomalous.size
        if pixels > EXACT_PIXELS:
            step = pixels // FIRST_LOOK_PIXELS + 1
            binned = BinnedPixelMetrics.from_normal_pixels(np.concatenate([kept.normal[::step] for kept in held]))
            for kept in held:
                binned.add(kept)
            held.clear()
    kind = "exact" if binned is None else "binned"
    try:
        return pixel_curve(held).pixel_metrics() if binned is None else binned.compute(), kind
    except OneClassError:
        return None, kind


def mean_over(categories: dict[str, CategoryEvaluation], metric: str) -> float | None:
    """The mean of a metric over the categories that have it, each weighing the same."""
    values = [getattr(category, metric) for category in categories.values()]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _worst(categories: dict[str, CategoryEvaluation], metric: str) -> Worst | None:
    known = [(getattr(category, metric), name) for name, category in categories.items()]
    known = [(value, name) for value, name in known if value is not None]
    if not known:
        return None
    value, name = max(known) if metric in LOWER_IS_BETTER else min(known)
    return Worst(category=name, value=value)
