"""What the report says in sentences, each one computed from the runs' numbers."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raydiff.images.pages import Pages
from raydiff.model.calibration import Calibration
from raydiff.report.runs import Run
from raydiff.selection.champion import REFERENCE, passed_over

COMPARED = {"image_auroc": "image AUROC", "aupro": "AUPRO"}
MAX_TEXT = 400  # characters of one setting
_DIGITS = 3  # as the tables show; numbers that agree so far count as equal


@dataclass(frozen=True)
class Verdict:
    """A diffusion method against the reference in one metric; `lost` where it is not better in the mean."""

    lost: bool
    mean: str
    categories: str


def calibration_sentence(calibration: Calibration | None, category: str) -> str:
    """What the alarm threshold of a category promises, or why it promises nothing."""
    if calibration is None:
        return "Not calibrated: no alarm threshold, no promise."
    used, rate = calibration.of(category), percent(calibration.rate)
    borrowed = category in calibration.categories and not calibration.is_own(category)
    normals = f"{used.normals:,} held-out normal images"
    normals += "" if category in calibration.categories else " of all categories together"
    if used.promised and borrowed:
        said = (
            f"Promises at most {rate} false alarms if its normal scores, told by their own mean and deviation, spread "
            f"as those of the {normals} of all categories do; its own "
            f"{calibration.categories[category].normals:,} are too few to promise it alone."
        )
    elif used.promised:
        said = f"Promises at most {rate} false alarms on images like the {normals} it was set from."
    else:
        lowest = f"{100 * used.lowest_rate:.3g} %"
        said = f"Warning: {rate} false alarms cannot be promised from {normals}; {lowest} is the lowest they allow."
    if calibration.all.reach > 1:
        said += " The threshold lies further out than that takes, for a budget of alarms."
    if category in calibration.shared_with_tuning:
        said += " Tuning saw the same images, so the rate may come out somewhat higher."
    return said


def made_alarms(model: Mapping[str, Any] | None, category: str) -> str:
    """How many made anomalies of a category raise an alarm, as calibration found; empty where none were made."""
    counts = ((model or {}).get("card") or {}).get("made_anomalies", {}).get(category)
    return f" Of {counts['made']} made anomalies {counts['alarms']} raise an alarm." if counts else ""


def promised(calibration: Calibration | None, category: str) -> bool:
    """Whether the wanted false-alarm rate is promised for this category itself, on images that tuning has not seen."""
    if calibration is None or category in calibration.shared_with_tuning:
        return False
    return calibration.of(category).promised and calibration.is_own(category)


def untested(runs: Sequence[Run]) -> str:
    """What the report shows of runs that have no images to test on; empty where every run has some."""
    held_out = [run for run in runs if run.held_out]
    if not held_out:
        return ""
    return (
        "There are no images to test on, so nothing here says how many defects are found. Scores, histograms and "
        f"gallery of {_list([run.name for run in held_out])} show held-out normal images: those that set the alarm "
        "threshold."
    )


def archive_command(model_uri: str, uris: Iterable[str], python: str = "python") -> str:
    """How an archive is scored with a model, its pages taken as in the names of a run's images: what comes next."""
    command = f"{python} jobs/score_archive.py --model {shlex.quote(model_uri)} --data ARCHIVE --out SCORES"
    pages = Pages.seen_in(uris)
    return f"{command} {pages.option()}" if pages else command


def verdicts(runs: Sequence[Run]) -> list[Verdict]:
    """Whether the non-diffusion reference beats each diffusion method, in the mean and in each category."""
    references = [run for run in runs if run.method == REFERENCE]
    others = [run for run in runs if run.method != REFERENCE]
    made = (
        _verdict(reference, run, metric, words)
        for run in others
        for reference in references
        for metric, words in COMPARED.items()
    )
    return [verdict for verdict in made if verdict]


def no_verdict(runs: Sequence[Run]) -> str:
    """Why there is nothing to compare, for a report without verdicts."""
    if not any(run.method == REFERENCE for run in runs):
        return (
            f"{REFERENCE}, the non-diffusion reference, was not run: "
            "this report cannot say whether diffusion adds anything."
        )
    if all(run.method == REFERENCE for run in runs):
        return f"Only {REFERENCE}, the non-diffusion reference, was run: no diffusion method is here to compare."
    return (
        f"Nothing was evaluated on labelled images for both {REFERENCE} and a diffusion method: "
        "this report cannot say whether diffusion adds anything."
    )


def champion_reason(runs: Sequence[Run], champion: str) -> list[str]:
    """Why the champion is the champion, and what the test set says of the choice."""
    pseudo = {run.name: pseudo_score(run.tuning) for run in runs}
    tunings = {run.name: run.tuning for run in runs if run.tuning is not None}
    passed = passed_over(tunings, champion) if champion in tunings else []
    unlike = {champion, *passed}
    rivals = {name: value for name, value in pseudo.items() if value is not None and name not in unlike}
    own = pseudo[champion]
    others = ", ".join(f"{name} {value:.3f}" for name, value in sorted(rivals.items(), key=lambda x: -x[1]))
    if own is None:
        reason = "It was chosen by pseudo-validation, whose numbers were not given to this report."
    elif not rivals:
        alone = "it is the only one of its kind" if passed else "no other candidate's was given to this report"
        reason = f"Its pseudo-validation score is {own:.3f}; {alone}."
    elif own >= max(rivals.values()):
        reason = (
            f"It was chosen by pseudo-validation: mean of image AUROC and AUPRO {own:.3f} on held-out normal images "
            f"and anomalies made out of them, against {others}. No labelled defect took part."
        )
    else:
        reason = (
            f"It does not have the best pseudo-validation score ({own:.3f}, against {others}): "
            "it was chosen for another reason."
        )
    reasons = [reason]
    reasons += [
        f"{name} has a higher score there, {pseudo[name]:.3f}, but was trained on made anomalies, so it says less of "
        "defects."
        for name in passed
    ]
    unknown = [name for name, value in pseudo.items() if value is None and name != champion]
    if own is not None and rivals and unknown:
        reasons.append(f"No pseudo-validation of {_list(unknown)} was given to this report.")
    measured = {run.name: run.metric("image_auroc") for run in runs}
    known = {name: value for name, value in measured.items() if value is not None}
    if champion in known and len(known) > 1:
        best = max(known, key=lambda name: known[name])
        right = round(known[champion], _DIGITS) == round(known[best], _DIGITS)
        there = "the best of all" if right else f"while {best} has {known[best]:.3f}"
        reasons.append(
            f"On the labelled test set, which took no part in the choice, its mean image AUROC is "
            f"{known[champion]:.3f}, {there}."
        )
    return reasons


def pseudo_score(tuning: Mapping[str, Any] | None) -> float | None:
    """The pseudo-validation score of the settings that tuning ended with."""
    return None if tuning is None else tuning["pseudo_score"]


def percent(rate: float) -> str:
    """A rate as a percentage with two digits that count."""
    return f"{100 * rate:.2g} %" if rate < 0.995 else f"{100 * rate:.0f} %"


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as `a.b.c: text`."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            found[f"{prefix}{key}"] = f"{value:.6g}"
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            found[f"{prefix}{key}"] = text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} …"
    return found


def _verdict(reference: Run, run: Run, metric: str, words: str) -> Verdict | None:
    theirs, ours = reference.metric(metric), run.metric(metric)
    if theirs is None or ours is None:
        return None
    sign = _compare(theirs, ours)
    numbers = f"{max(theirs, ours):.3f} against {min(theirs, ours):.3f}"
    if sign > 0:
        mean = f"The non-diffusion reference {reference.name} beats {run.name} in mean {words}: {numbers}."
    else:
        verb = "beats" if sign else "only equals"
        mean = f"{run.name} {verb} the non-diffusion reference {reference.name} in mean {words}: {numbers}."
    return Verdict(sign >= 0, mean, _by_category(reference, run, metric))


def _by_category(reference: Run, run: Run, metric: str) -> str:
    clauses: dict[int, list[str]] = {1: [], 0: [], -1: []}
    for category in sorted(set(reference.categories) & set(run.categories)):
        theirs, ours = reference.metric(metric, category), run.metric(metric, category)
        if theirs is None or ours is None:
            continue
        sign = _compare(theirs, ours)
        numbers = f"{max(theirs, ours):.3f}" + (f" against {min(theirs, ours):.3f}" if sign else "")
        clauses[sign].append(f"{category} ({numbers})")
    parts = [
        f"{reference.name} beats {run.name} on {_list(clauses[1])}" if clauses[1] else "",
        f"{run.name} beats {reference.name} on {_list(clauses[-1])}" if clauses[-1] else "",
        f"they are equal on {_list(clauses[0])}" if clauses[0] else "",
    ]
    said = "; ".join(part for part in parts if part)
    return f"By category: {said}." if said else ""


def _compare(theirs: float, ours: float) -> int:
    a, b = round(theirs, _DIGITS), round(ours, _DIGITS)
    return (a > b) - (a < b)


def _list(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else items[0]
