"""What a model learnt comes to: its alarms on the judged images and on its own normals, before and after."""

from __future__ import annotations

from typing import NamedTuple

from raydiff.learning.judged import Judged
from raydiff.learning.mixture import Mixture
from raydiff.methods.base import Learnt
from raydiff.model.calibration import Calibration, CategoryCalibration
from raydiff.model.interval import CONFIDENCE, clopper_pearson

SHOWN = 5  # images that are printed of a kind
TOLD = 1000  # and that a document holds


class Alarms(NamedTuple):
    """How many of some images raise an alarm, before and after."""

    images: int
    before: int
    after: int

    def said(self) -> str:
        """In words, with the interval of the share after."""
        if not self.images:
            return "there are none"
        low, high = clopper_pearson(self.after, self.images)
        share = f"{self.after / self.images:.2%}, {low:.2%} to {high:.2%} at {CONFIDENCE:.0%}"
        return f"{self.before:,} before, {self.after:,} after ({share}) of {self.images:,}"


class Outcome(NamedTuple):
    """What came of a learning."""

    parent: str  # id of the model that learnt
    model: str  # id of what it became
    method: str
    own: Alarms  # of the run's normals that calibrate
    calibrating: Alarms  # of the images judged normal that calibrate
    teaching: Alarms  # of those that taught
    defects: Alarms  # of those judged defective
    lost: list[str]  # of these those that raised an alarm before and do not any more
    mixtures: dict[str, Mixture]  # what calibrates, by category
    uncounted: int  # images judged normal that do not, because they are of no category that the model knows
    spare: int  # and those of which there are more than the share of alarms takes
    unread: int  # judged, but not readable any more
    teachable: bool  # whether there is anything to be taught
    learnt: Learnt | None
    steps: int  # by gradients
    alone: list[str]  # judged normal and far from all others
    judged: Judged
    calibration: Calibration  # of the new model

    def sentences(self) -> list[str]:
        """What was learnt, what it comes to, and what is promised."""
        return [*self._learnt(), *self._came_to(), *self._promise(), *self._to_look_at()]

    def _learnt(self) -> list[str]:
        told = [f"{self.teaching.images:,} images judged normal taught"]
        if self.learnt is not None:
            full = ", which is as many as it may hold" if self.learnt.full else ""
            told.append(f"{self.learnt.added:,} patches are new to the memory bank{full}")
        if self.steps:
            told.append(f"the network took {self.steps:,} further steps on old and new images")
        if not self.teachable:
            told.append(f"{self.method} has nothing to be taught, so all images judged normal calibrate")
        return ["; ".join(told)]

    def _came_to(self) -> list[str]:
        return [
            f"alarms on images judged normal that taught nothing: {self.calibrating.said()}",
            f"alarms on images judged normal that taught: {self.teaching.said()}",
            f"alarms on images judged defective: {self.defects.said()}",
            f"alarms on the run's own held-out normals: {self.own.said()}",
        ]

    def _promise(self) -> list[str]:
        told = [self._promise_of(name, mixture) for name, mixture in self.mixtures.items()]
        said = {_plain(name, own, self.calibration.rate) for name, own in self.calibration.categories.items()}
        return told + [sentence for sentence in self.calibration.sentences() if sentence not in said]

    def _promise_of(self, name: str, mixture: Mixture) -> str:
        share = self.judged.alarm_shares.get(name)
        archive = f"; of its images in the archive {share:.1%} raised one" if share is not None else ""
        quiet = f", and {mixture.quiet:,} that had not alarmed" if mixture.quiet else ""
        made = (
            f"{mixture.alarmed:,} of the {mixture.images:,} images that calibrate had alarmed and were judged normal"
            f"{quiet}{archive}"
        )
        if not self.calibration.categories[name].promised:
            return f"{name}: {made}"
        return (
            f"{name}: promised are at most {self.calibration.rate:.2%} false alarms on normal images of which no more "
            f"than {mixture.share_alarmed:.1%} are like those that alarmed: {made}"
        )

    def _to_look_at(self) -> list[str]:
        told = []
        for count, what in (
            (self.judged.unsure, "are judged unsure"),
            (self.judged.missing, "are not in the score table"),
            (self.judged.unreadable, "could not be scored"),
            (self.unread, "cannot be read any more"),
            (self.judged.repeated, "have the bytes of another"),
            (self.judged.left, "are more of a kind than are used"),
            (self.uncounted, "are normal, but of no category that the model is calibrated for"),
            (self.spare, "alarmed and are normal, but would be a larger share of what calibrates than of the archive"),
        ):
            if count:
                told.append(f"left out: {count:,} judged images that {what}")
        told += _listed(
            "the run takes these for normal, and they are judged defective; take them out", self.judged.doubted
        )
        told += _listed("alarmed before and do not any more, though judged defective:", self.lost)
        pairs = [f"{each.normal[0]} (normal) and {each.defect[0]} (defect)" for each in self.judged.contradictions]
        told += _listed("the same content has two verdicts, and counted for nothing; look again at", pairs)
        told += _listed("judged normal, but far from all other normal images; look again at", self.alone)
        return told


def _plain(name: str, own: CategoryCalibration, rate: float) -> str:
    """What `Calibration.sentences` says of a category that keeps its promise by itself."""
    return f"{name}: at most {rate:.2%} false alarms, from {own.normals} normal images"


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return [f"{what} {', '.join(names[:SHOWN])}{more}"]
