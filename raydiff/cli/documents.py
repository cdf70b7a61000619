"""What commands and jobs have found, as `--json` tells it: bounded, places of the rest included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raydiff.images.index import IndexReport
    from raydiff.learning.outcome import Outcome as Learning
    from raydiff.learning.rescore import Rescored
    from raydiff.learning.suggest import Suggested
    from raydiff.model.folder import Model
    from raydiff.planning.plan import Plan
    from raydiff.run_folder import RunFolder
    from raydiff.scoring.bulk import Summary
    from raydiff.selection.budget import Outcome, Share
    from raydiff.verdicts.bring import Brought
    from raydiff.verdicts.summary import Summary as Verdicts


def indexed(report: IndexReport) -> dict[str, Any]:
    """The images by group, and what deserves attention, with some names each."""
    from raydiff.images.index import NAMES_PRINTED, attention

    return {
        "table": report.table_uri,
        "layout": report.layout,
        "layout_name": report.layout_name,
        "why": report.why,
        "images": sum(group.images for group in report.groups),
        "groups": [group._asdict() for group in report.groups],
        "unreadable": len(report.unreadable),
        "attention": [
            {"what": found.what, "number": found.number, "first": found.names[:NAMES_PRINTED]}
            for found in attention(report)
        ],
    }


def trained(model: Model, uri: str) -> dict[str, Any]:
    """A model that was fitted."""
    return {"model": uri, "method": model.method.name, "id": model.id, "card": model.card}


def tuned(run: RunFolder, tunings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Tunings by model, without their trials, which lie in a file."""
    models = {
        name: {key: value for key, value in tuning.items() if key != "stages"}
        | {"chosen": {key: value for stage in tuning["stages"] for key, value in stage["chosen"].items()}}
        for name, tuning in tunings.items()
    }
    return {"models": models, "trials": run.trials}


def calibrated(model: Model, uri: str) -> dict[str, Any]:
    """A calibration: each category's threshold, and what is promised of it."""
    found = model.calibration
    assert found is not None
    return {
        "model": uri,
        "id": model.id,
        "false_alarm_rate": found.rate,
        "categories": {
            name: {
                "threshold": found.of(name).threshold,
                "normals": own.normals,
                "promised": found.of(name).promised,
                "own": found.is_own(name),
                "made_anomalies": model.card["made_anomalies"].get(name),
            }
            for name, own in found.categories.items()
        },
        "sentences": found.sentences(),
    }


def budget(found: Outcome) -> dict[str, Any]:
    """What thresholds from a budget of alarms come to on the archive, its verdicts and the calibration's normals."""

    def share(each: Share | None) -> dict[str, Any] | None:
        return each and each._asdict()

    return {
        "budget": found.budget._asdict()
        | {
            "days": found.days,
            "images": found.images,
            "images_without_day": found.without_day,
            "alarms_before": found.alarms_before,
            "alarms": found.alarms,
            "most_in_a_day": found.most_in_a_day,
            "reach": found.calibration.all.reach,
            "normals": share(found.normals),
            "normals_by_category": {name: share(each) for name, each in found.categories.items()},
            "judged_defective": share(found.defects),
            "judged_normal": share(found.judged_normals),
            "sentences": found.sentences(),
        }
    }


def scored(summary: Summary | None, uri: str) -> dict[str, Any]:
    """A score table, and what this run did for it; null where nothing was missing."""
    return {"scores": uri, "run": summary and summary._asdict()}


def verdicts(summary: Verdicts, brought: Brought | None, uri: str) -> dict[str, Any]:
    """A table of verdicts as a whole, and what came of the file that was added to it; null where none was."""
    added = brought and brought._asdict() | {
        "left_out": [each._asdict() for each in brought.left_out],
        "labels": [each._asdict() for each in brought.labels],
    }
    found = summary._asdict() | {"first": [each._asdict() for each in summary.first]}
    return {"scores": uri, "added": added, "verdicts": found}


def learnt(found: Learning, uri: str) -> dict[str, Any]:
    """What a model learnt of verdicts: where the new one is, and its alarms before and after."""
    from raydiff.learning.outcome import TOLD

    counts = {name: getattr(found, name)._asdict() for name in ("own", "calibrating", "teaching", "defects")}
    judged = found.judged
    return {
        "model": uri,
        "id": found.model,
        "parent": found.parent,
        "method": found.method,
        "rate": found.calibration.rate,
        "calibrating": {
            name: mixture._asdict()
            | {"share_alarmed": mixture.share_alarmed, "archive_alarms": judged.alarm_shares.get(name)}
            for name, mixture in found.mixtures.items()
        },
        "alarms": counts,
        "memory_bank_added": found.learnt and found.learnt.added,
        "steps": found.steps,
        "contradictions": [each._asdict() for each in judged.contradictions[:TOLD]],
        "alone": found.alone[:TOLD],
        "doubted": judged.doubted[:TOLD],
        "lost": found.lost[:TOLD],
        "left_out": {
            "unsure": judged.unsure,
            "missing": judged.missing,
            "unreadable": judged.unreadable + found.unread,
            "repeated": judged.repeated,
            "beyond_most": judged.left,
            "without_calibration": found.uncounted,
            "beyond_alarm_share": found.spare,
        },
        "sentences": found.sentences(),
    }


def suggested(found: Suggested, uri: str) -> dict[str, Any]:
    """Images to be judged next, and of how many they were chosen."""
    told = found._asdict() | {"suggestions": [each._asdict() for each in found.suggestions]}
    return {"scores": uri} | told


def rescored(found: Rescored) -> dict[str, Any]:
    """What another model would have changed on an archive, by category and day, and where its images are told."""
    from raydiff.learning.changes import BY_DAY, FILE

    changes = found.changes
    return {
        "scores": found.archive,
        "rescored": found.place,
        "changes": f"{found.place}/{FILE}",
        "changes_by_day": f"{found.place}/{BY_DAY}",
        "model": found.model,
        "before": found.before,
        "images": found.images,
        "scored_again": found.again,
        "why_all": found.why_all or None,
        "all": changes.all()._asdict(),
        "categories": {name: counts._asdict() for name, counts in changes.by_category().items()},
        "days": [{"day": day and day.isoformat(), **counts._asdict()} for day, counts in changes.by_day().items()],
        "judged": {"gone": changes.gone, "new": changes.new} if changes.judged else None,
        "unread": changes.unread,
        "without_score": changes.without_score,
        "sentences": found.sentences(),
    }


def run(uri: str, report: str) -> dict[str, Any]:
    """A run's models with their evaluations, and which was chosen; null where there are no test images."""
    from raydiff import steps
    from raydiff.run_folder import RunFolder

    folder, results = RunFolder(uri), steps.results(uri)
    models = {name: {"model": folder.model(name), "evaluation": results.get(name)} for name in folder.models()}
    return {"run": folder.uri, "chosen": steps.chosen(uri), "report": report, "models": models}


def planned(plan: Plan) -> dict[str, Any]:
    """A dry run's plan: seconds and bytes."""
    return {
        "images": plan.images,
        "seconds": plan.seconds,
        "stored_bytes": plan.stored,
        "sections": [
            {
                "title": section.title,
                "facts": section.facts,
                "steps": [{"name": step.name, "seconds": step.amount, "note": step.note} for step in section.steps],
                "stored": [{"name": each.name, "bytes": each.amount} for each in section.stored],
            }
            for section in plan.sections
        ],
        "notes": plan.notes,
    }
