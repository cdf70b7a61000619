"""Calibrating a model that has learnt, and counting what that comes to."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple

import pyarrow as pa

from raydiff.learning.judged import CALIBRATE, TEACH, side
from raydiff.learning.mixture import Mixture
from raydiff.learning.outcome import Alarms
from raydiff.learning.scored import Scored
from raydiff.model.calibration import Calibration


class Recalibrated(NamedTuple):
    """A calibration from a run's own normals and images judged normal."""

    calibration: Calibration
    own: list[Scored]  # the run's normals in it
    judged: list[Scored]  # images judged normal in it
    mixtures: dict[str, Mixture]  # by category
    uncounted: int  # images judged normal that are of no category of the run's
    spare: int  # and that had raised an alarm and are more than the share of alarms takes


def recalibrated(
    before: Calibration,
    normals: pa.Table,
    uses: Mapping[str, str],
    scored: Mapping[str, Scored],
    alarmed: Collection[str],
    alarm_shares: Mapping[str, float],
) -> Recalibrated:
    """The thresholds of a model that has learnt, for the rate (and the reach) that it had before.

    Nothing calibrates whose content has taught, and no content twice. Most images are judged because they raised an
    alarm, and these stand for such images alone: they are no larger a share of a category's images that calibrate than
    alarms are of its images in the archive, but for one image. Where there are more, those are taken whose content has
    the lowest hash.

    Args:
        before: of the model that has learnt.
        normals: the run's own that calibrate, as an image table.
        uses: of the judged images, by URI.
        scored: all of them, by URI, by the model that it is now.
        alarmed: those of the judged ones, by URI, that had raised an alarm.
        alarm_shares: of the categories, as of `Judged`; one that is absent bounds nothing.

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
    categories = before.categories.keys() & scores.keys()
    quiet, loud, uncounted = [], [], 0
    for uri, each in ((uri, scored[uri]) for uri, use in uses.items() if use == CALIBRATE):
        if each.score is None or each.content in known:
            continue
        if each.category not in categories:
            uncounted += 1
        elif uri in alarmed:
            loud.append(each)
        else:
            quiet.append(each)
    _add(scores, quiet)
    taken = _as_many_as_alarm(loud, {name: len(found) for name, found in scores.items()}, alarm_shares)
    _add(scores, taken)
    found = Calibration.fit(scores, before.rate, before.shared_with_tuning).at(before.rate, before.all.reach)
    counts = [Counter(str(each.category) for each in some) for some in (own, quiet, taken)]
    mixtures = {name: Mixture(*(count[name] for count in counts)) for name in found.categories}
    return Recalibrated(found, own, quiet + taken, mixtures, uncounted, len(loud) - len(taken))


def _add(scores: dict[str, list[float]], more: list[Scored]) -> None:
    for each in more:
        scores[str(each.category)].append(float(each.score or 0.0))


def _as_many_as_alarm(
    alarmed: list[Scored], others: Mapping[str, int], alarm_shares: Mapping[str, float]
) -> list[Scored]:
    """Of images that had raised an alarm as many a category as have, beside the others, the share that alarms have."""
    taken: dict[str, int] = defaultdict(int)
    found = []
    for each in sorted(alarmed, key=lambda each: side(each.content or "")):
        name = str(each.category)
        share = alarm_shares.get(name, 1.0)
        taken[name] += 1
        if share >= 1 or taken[name] <= math.ceil(share / (1 - share) * others[name]):
            found.append(each)
    return found


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
