"""Calibrating a model that has learnt, and counting what that comes to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import pyarrow as pa

from raydiff.learning.judged import CALIBRATE, TEACH
from raydiff.learning.outcome import Alarms
from raydiff.learning.scored import Scored
from raydiff.model.calibration import Calibration


class Recalibrated(NamedTuple):
    """A calibration from a run's own normals and images judged normal."""

    calibration: Calibration
    own: list[Scored]  # the run's normals in it
    judged: list[Scored]  # images judged normal in it
    uncounted: int  # images judged normal that are of no category of the run's


def recalibrated(
    before: Calibration, normals: pa.Table, uses: Mapping[str, str], scored: Mapping[str, Scored]
) -> Recalibrated:
    """The thresholds of a model that has learnt, for the rate (and the reach) that it had before.

    Nothing calibrates whose content has taught, and no content twice.

    Args:
        before: of the model that has learnt.
        normals: the run's own that calibrate, as an image table.
        uses: of the judged images, by URI.
        scored: all of them, by URI, by the model that it is now.

    Raises:
        DataError: if there is not one score.
    """
    taught = {scored[uri].content for uri, use in uses.items() if use == TEACH} - {None}
    scores: dict[str, list[float]] = defaultdict(list)
    own, known = [], set()
    for uri, category in zip(normals["uri"].to_pylist(), normals["category"].to_pylist(), strict=True):
        each = scored[uri]
        if each.score is not None and each.content not in taught:
            scores[category].append(each.score)
            own.append(each._replace(category=category))
            known.add(each.content)
    readable = [scored[uri] for uri, use in uses.items() if use == CALIBRATE and scored[uri].score is not None]
    fresh = [each for each in readable if each.content not in known]
    counted = [each for each in fresh if each.category in before.categories and each.category in scores]
    for each in counted:
        scores[str(each.category)].append(float(each.score or 0.0))
    found = Calibration.fit(scores, before.rate, before.shared_with_tuning).at(before.rate, before.all.reach)
    return Recalibrated(found, own, counted, len(fresh) - len(counted))


def alarms(
    uses: Mapping[str, str],
    use: str,
    before: tuple[Calibration, Mapping[str, Scored]],
    after: tuple[Calibration, Mapping[str, Scored]],
) -> tuple[Alarms, list[str]]:
    """Alarms on the judged images of one use, before and after, and the URIs of those that alarm no more.

    Images that could not be read now or then are left out.
    """
    images = was = now = 0
    gone = []
    for uri, theirs in uses.items():
        then, later = before[1][uri], after[1][uri]
        if theirs != use or then.score is None or later.score is None:
            continue
        images += 1
        alarmed, alarms_now = then.alarms(before[0]), later.alarms(after[0])
        was, now = was + alarmed, now + alarms_now
        if alarmed and not alarms_now:
            gone.append(uri)
    return Alarms(images, was, now), gone
