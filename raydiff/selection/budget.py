"""Thresholds from a budget of alarms: as many a day as people can look at, on an archive like one that was scored.

All categories have one rule. An image's distance is how far its score lies above the middle of its category's normal
scores, in ways from there to the threshold that the false-alarm rate gives; the farthest images of the archive, as many
as the budget allows, raise an alarm. The distance that parts them from the rest is the thresholds' reach
(`CategoryCalibration.reach`). If fewer than that lie beyond the rate's own thresholds, the rate is raised to the next
of RATES at which as many do.

What is promised: on fresh images that are exchangeable with the calibration's normals, at most the rate, as without a
budget, because a reach only moves thresholds up. A rate that was raised was chosen by looking at scores, and its
promise holds no more exactly than that choice is independent of the calibration's normals.

What is not promised: the number of alarms on another archive. The scored one is counted exactly; the next one has its
own defects, days and drift. Nor is what is told beside it a promise. An archive's own alarms are not exchangeable with
the calibration's normals. The share of these normals above the thresholds has an interval that takes them for
independent, but the thresholds lean on them: it describes, and tests nothing. And verdicts tell how many of the judged
defects raise an alarm: where people judge what alarmed, that is more than the share of all defects.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydiff.errors import DataError, SettingsError
from raydiff.model.calibration import Calibration
from raydiff.model.interval import CONFIDENCE, clopper_pearson
from raydiff.scoring import table
from raydiff.scoring.columns import by_category, read_columns
from raydiff.verdicts import table as verdicts

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
MOST_ALARMS = 1_000_000  # of an archive; as many scores of each category are held


class Budget(NamedTuple):
    """What can be looked at."""

    alarms_per_day: float
    images_per_day: float | None = None  # None: the score table says how many days there are


class Share(NamedTuple):
    """How many of some images raise an alarm, and the shares that this is compatible with (Clopper and Pearson)."""

    alarms: int
    images: int
    low: float
    high: float

    @classmethod
    def of(cls, alarms: int, images: int) -> Share:
        """With its interval."""
        return cls(alarms, images, *clopper_pearson(alarms, images))

    def said(self) -> str:
        """In words."""
        share = f"{self.alarms / self.images:.2%}" if self.images else "nothing"
        return f"{self.alarms:,} of {self.images:,}, {share} ({self.low:.2%} to {self.high:.2%} at {CONFIDENCE:.0%})"


class Outcome(NamedTuple):
    """Thresholds from a budget, and what they come to."""

    calibration: Calibration
    budget: Budget
    asked_rate: float  # the calibration's is higher where the budget asks for more alarms
    days: float
    images: int  # of the archive that were counted
    without_day: int  # that were not, because nothing says of which day they are
    alarms_before: int  # by the thresholds of before
    alarms: int
    most_in_a_day: int | None  # None where days are not known
    normals: Share  # of the calibration
    categories: dict[str, Share]  # and of each category
    defects: Share | None  # judged ones; None where there are no verdicts
    judged_normals: Share | None

    @property
    def alarms_per_day(self) -> float:
        """On the scored archive."""
        return self.alarms / self.days

    def sentences(self) -> list[str]:
        """What was found, and what is not promised."""
        worst = f", at most {self.most_in_a_day:,} in one" if self.most_in_a_day is not None else ""
        archive = (
            f"{self.alarms_per_day:.4g} alarms a day on the archive ({self.alarms:,} of {self.images:,} images in "
            f"{self.days:.4g} days{worst}); by the thresholds of before {self.alarms_before / self.days:.4g}. Another "
            "archive may raise more or fewer"
        )
        normals = (
            f"of the calibration's own normals, which thresholds lean on, raise an alarm: {self.normals.said()}; this "
            "is no promise"
        )
        lines = [archive, normals]
        if self.calibration.rate > self.asked_rate:
            lines.append(
                f"the false-alarm rate is raised from {self.asked_rate:.2%} to {self.calibration.rate:.2%}, because "
                "the archive raises fewer alarms than the budget allows; it was chosen by looking at scores, so that "
                "its promise is not exact"
            )
        if self.without_day:
            lines.append(f"{self.without_day:,} images are of no known day and were left out")
        if self.defects and self.judged_normals:
            lines.append(f"of the images judged defective raise an alarm: {self.defects.said()}")
            lines.append(f"of the images judged normal raise an alarm: {self.judged_normals.said()}")
        return lines


def fit(scores_uri: str, calibration: Calibration, budget: Budget, rate: float) -> Outcome:
    """The thresholds with which a scored archive raises as many alarms a day as a budget allows, and no more.

    The score table is read three times, part by part. What is held grows with its days, the verdicts, and the alarms
    that the budget allows the whole archive, for each category.

    Args:
        scores_uri: folder of the archive's score table; the verdicts beside it are looked at.
        calibration: of the model that made the scores.
        rate: the false-alarm rate whose thresholds no threshold is below, unless the budget asks for more alarms.

    Raises:
        SettingsError: if the budget is no number above 0, or allows more than MOST_ALARMS.
        DataError: if there is no score table or nothing in it, its days are asked for and not known, or even at the
            last of RATES fewer images raise an alarm.
    """
    if not all(0 < given < math.inf for given in budget if given is not None):
        raise SettingsError("--alarms-per-day and --images-per-day are numbers above 0, as in --alarms-per-day 20")
    days, without_day = _days(scores_uri, budget)
    alarms = budget.alarms_per_day * days * (1 + 1e-12)
    if alarms > MOST_ALARMS:
        raise SettingsError(
            f"{budget.alarms_per_day:g} alarms a day are {alarms:.4g} of the archive, more than {MOST_ALARMS:,}; give "
            "fewer, or more --images-per-day"
        )
    allowed = math.floor(alarms)
    dated = budget.images_per_day is None
    highest = _highest(scores_uri, calibration, dated, allowed + 1)
    for candidate in (rate, *(each for each in RATES if each > rate)):
        found = calibration.at(candidate)
        beyond = sum(int((scores > found.of(name).threshold).sum()) for name, scores in highest.items())
        if beyond >= allowed:
            break
    else:
        raise DataError(
            f"{scores_uri}: {allowed:,} alarms are allowed, but even at a false-alarm rate of {candidate:.0%} no more "
            f"than {beyond:,} images raise one; give a smaller --alarms-per-day"
        )
    distances = [1 + (scores - found.of(name).of_rate) / found.of(name).way for name, scores in highest.items()]
    fitted = found.at(found.rate, _reach(np.concatenate([np.empty(0), *distances]), allowed))
    return _counted(scores_uri, calibration, fitted, budget, rate, days, without_day)


def _reach(distances: np.ndarray, allowed: int) -> float:
    """Halfway between the last distance that raises an alarm and the first that does not; of equal ones none does."""
    ordered = np.sort(distances)[::-1]
    if len(ordered) <= allowed:
        return 1.0
    first = float(ordered[allowed])
    above = ordered[ordered > first]
    last = float(above[-1]) if len(above) else first + 1e-6 * max(abs(first), 1.0)
    return max(1.0, (first + last) / 2)


def _days(scores_uri: str, budget: Budget) -> tuple[float, int]:
    """How many days the archive is of, and how many of its images are left out because theirs is not known."""
    rows = without = 0
    days: set[date] = set()
    for part in read_columns(table.parts(scores_uri), ["day"]):
        rows += len(part)
        without += part["day"].null_count
        days.update(part["day"].unique().drop_null().to_pylist())
    if not rows:
        raise DataError(f"{scores_uri} holds no images; score some first")
    if budget.images_per_day is not None:
        return rows / budget.images_per_day, 0
    if not days:
        raise DataError(f"{scores_uri} knows no image's day; give --images-per-day, how many images a day has")
    return len(days), without


def _highest(scores_uri: str, calibration: Calibration, dated: bool, count: int) -> dict[str, np.ndarray]:
    """The highest scores of each category, (count,) at most."""
    found: dict[str, np.ndarray] = {}
    for part in _scored(scores_uri, dated, []):
        for name, mine in by_category(part, calibration.categories):
            together = np.concatenate([found.get(name, np.empty(0)), part["score"].to_numpy()[mine]])
            found[name] = together if len(together) <= count else np.partition(together, -count)[-count:]
    return found


def _scored(scores_uri: str, dated: bool, more: list[str]) -> Iterator[pa.Table]:
    """The rows that have a score and, if asked for, a day."""
    for part in read_columns(table.parts(scores_uri), ["category", "category_guessed", "day", "score", *more]):
        kept = part.filter(pc.is_valid(part["score"]))
        yield kept.filter(pc.is_valid(kept["day"])) if dated else kept


def _counted(
    scores_uri: str,
    before: Calibration,
    fitted: Calibration,
    budget: Budget,
    asked_rate: float,
    days: float,
    without_day: int,
) -> Outcome:
    """What thresholds come to, counted on the archive, its verdicts and the calibration's normals."""
    newest = verdicts.newest(verdicts.read(scores_uri))
    judged = dict(zip(newest["uri"].to_pylist(), newest["verdict"].to_pylist(), strict=True))
    dated = budget.images_per_day is None
    images = alarms_before = 0
    by_day: Counter[date | None] = Counter()
    by_verdict: Counter[tuple[str, bool]] = Counter()
    for part in _scored(scores_uri, dated, ["uri"]):
        scores, alarms = part["score"].to_numpy(), np.zeros(len(part), bool)
        for name, mine in by_category(part, fitted.categories):
            alarms[mine] = scores[mine] > fitted.of(name).threshold
            alarms_before += int((scores[mine] > before.of(name).threshold).sum())
        images += len(part)
        by_day.update(part["day"].filter(pa.array(alarms)).to_pylist())
        for place, uri in enumerate(part["uri"].to_pylist() if judged else ()):
            if uri in judged:
                by_verdict[judged[uri], bool(alarms[place])] += 1
    categories = {
        name: Share.of(sum(score > fitted.of(name).threshold for score in own.scores), own.normals)
        for name, own in fitted.categories.items()
    }
    normals = Share.of(
        sum(each.alarms for each in categories.values()), sum(each.images for each in categories.values())
    )
    said = {
        name: Share.of(by_verdict[name, True], by_verdict[name, True] + by_verdict[name, False])
        for name in verdicts.VERDICTS
    }
    return Outcome(
        calibration=fitted,
        budget=budget,
        asked_rate=asked_rate,
        days=days,
        images=images,
        without_day=without_day,
        alarms_before=alarms_before,
        alarms=by_day.total(),
        most_in_a_day=max(by_day.values(), default=0) if dated else None,
        normals=normals,
        categories=categories,
        defects=said[verdicts.DEFECT] if judged else None,
        judged_normals=said[verdicts.NORMAL] if judged else None,
    )
