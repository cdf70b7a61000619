"""What a tuning of score settings will try, and on how many images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raydiff.methods.base import ScoreSettings
from raydiff.selection.pseudo_validation import PseudoValidationSettings
from raydiff.selection.space import Stage
from raydiff.selection.staged_search import GUESSED


class TuningSets(NamedTuple):
    """Images that each trial of a tuning scores."""

    normals: int
    made: int  # anomalies
    test: int  # labelled images, scored beside them

    @property
    def images(self) -> int:
        """All of them."""
        return sum(self)


def tuning_sets(
    held_out: Mapping[str, int], normal: Mapping[str, int], anomalous: Mapping[str, int], size: PseudoValidationSettings
) -> TuningSets:
    """The sets of a run, from its images by category: held out to tune, and labelled ones of its test set."""
    usable = [count for count in held_out.values() if count >= 2]
    return TuningSets(
        normals=sum(min(count, size.normals) for count in usable),
        made=len(usable) * size.anomalies,
        test=sum(min(count, size.normals) for count in normal.values())
        + sum(min(count, size.anomalies) for count in anomalous.values()),
    )


def grid(stages: Sequence[Stage], start: ScoreSettings) -> list[list[ScoreSettings]]:
    """The settings that each stage tries, as far as can be told before: as if the first candidate always won.

    What an earlier stage has tried is not tried again. Candidates that depend on results are guessed.
    """
    chosen, found = start, []
    known: set[str] = set()
    for stage in stages:
        try:
            candidates = stage.grid(chosen, [])
        except Exception:  # of the user's code, which asks for results that are not there yet
            found.append([chosen] * GUESSED)
            continue
        tried = {
            settings.model_dump_json(): settings
            for settings in (chosen.changed(**stage.fixed | candidate) for candidate in candidates)
        }
        found.append([settings for text, settings in tried.items() if text not in known])
        known |= tried.keys()
        chosen = chosen.changed(**candidates[0])
    return found


def trials_seconds(stages: Sequence[int], costs: Sequence[float], images: int, parallel: int) -> float:
    """Seconds of all trials, stage after stage, so many at a time.

    Args:
        stages: how many trials each has.
        costs: seconds an image of each trial, in the stages' order.
    """
    total, place = 0.0, 0
    for count in stages:
        own = costs[place : place + count]
        place += count
        total += -(-count // parallel) * (sum(own) / count if count else 0.0) * images
    return total
