"""A new model from verdicts: what was judged normal teaches it and calibrates it, what was judged defective tests it.

The model that learns is left as it is. What is promised afterwards rests on images that taught nothing: the run's own
held-out normals and half of the images judged normal, scored by the new model together. If a fresh normal image comes
from the mixture that they are, with the same share of images like those judged, it raises an alarm with probability at
most the rate, as before (`model.calibration`; the share is fixed and not drawn, which may cost one image in their
number). Images are judged because they raised an alarm, so they stand for such images and for no others. The thresholds
that chose them lean on the calibration's normals, as a whole and weakly.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import ray
import safetensors.torch

from raydiff import cluster, methods, storage
from raydiff.at_work import at_work
from raydiff.cluster.notes import Topic
from raydiff.cluster.worker_progress import shown_progress
from raydiff.errors import DataError
from raydiff.images import table
from raydiff.learning.judged import CALIBRATE, DEFECT, TEACH, Judged, image_rows, judged
from raydiff.learning.outcome import SHOWN, Alarms, Outcome
from raydiff.learning.recalibrated import alarms, recalibrated
from raydiff.learning.scored import Scored, scores, scores_before
from raydiff.learning.steps import STEPS
from raydiff.methods.base import GradientSettings, Learnt, Method
from raydiff.model.calibration import Calibration
from raydiff.model.description import DESCRIPTION
from raydiff.model.folder import Model, load
from raydiff.progress import console, duration
from raydiff.run_folder import RunFolder
from raydiff.scoring import table as score_table_file
from raydiff.selection.normal_maps import position_statistics
from raydiff.training.examples import compute_examples
from raydiff.training.refine import refine
from raydiff.training.statistics import MAX_FAILURES, state_of
from raydiff.training.store import ExampleStore
from raydiff.training.workers import Workers

FAR = 2.0  # cover radii from all other normal images, beyond which one that was judged normal is named


class _Place(NamedTuple):
    """Where a learning works."""

    run: RunFolder
    uri: str

    def of(self, name: str) -> str:
        return storage.join(self.uri, name)


def learn(
    model_uri: str,
    archives: Sequence[str],
    out_uri: str,
    run_uri: str | None = None,
    steps: int = STEPS,
    seed: int = 0,
    workers: Workers | None = None,
    force: bool = False,
) -> Outcome:
    """Make a model that has learnt from the verdicts beside score tables; it is written to a folder of its own.

    Killed and run again it goes on from what is finished, in the run's `work/`.

    Args:
        model_uri: a calibrated model folder.
        archives: folders of score tables, whichever model's; those that the model has learnt from before come with
            them by themselves.
        out_uri: where the new model goes.
        run_uri: folder of the run that the model was trained in; by default that whose `models/` it lies in.
        steps: by gradients, of a method that is trained by them.
        force: writes a model that finds fewer of the images judged defective, too.

    Raises:
        DataError: if the model is not calibrated, its run is not known, something is at `out_uri`, there is nothing to
            learn from, or, without `force`, judged defects would be lost; nothing is written at `out_uri` then.
        ModelFolderError: if there is no model.
    """
    began = time.monotonic()
    model_uri, out_uri = storage.absolute(model_uri), storage.absolute(out_uri)
    run = _run_of(model_uri, run_uri)
    if storage.exists(storage.join(out_uri, DESCRIPTION)):
        raise DataError(f"{out_uri} is there already; no model is written over another, so choose another --out")
    parent = load(model_uri, "cpu")
    if parent.calibration is None:
        raise DataError(f"{model_uri} is not calibrated; run `raydiff calibrate` first")
    known = archives_of(parent, archives)
    normals = table.read(run.table("calibrate"))
    own = {uri for role in ("fit", "tune", "calibrate") for uri in table.read(run.table(role))["uri"].to_pylist()}
    found = judged(known, frozenset(own), _can_be_taught(parent.method))
    normals = normals.filter(pc.invert(pc.is_in(normals["uri"], pa.array(found.doubted, pa.string()))))
    cluster.connect()
    with at_work(run.uri):
        place = _Place(run, storage.join(run.work, f"learn-{_digest(parent, found, steps, seed)}"))
        images = image_rows(found.rows, place.uri)
        child, learnt = _taught(model_uri, parent, images, found, place, steps, seed, workers)
        child.save(place.of("model"))
        both = pa.concat_tables([normals, images], promote_options="default")
        after = scores(place.of("model"), both, place.of(f"after-{child.id}"))
        before = scores_before(model_uri, found, images, place.of("before"))
        if "learnt" in parent.card:  # its calibration has judged images, too
            before |= scores(model_uri, normals, place.of("before"))
        uses = dict(zip(images["uri"].to_pylist(), found.rows["use"].to_pylist(), strict=True))
        outcome = _outcome(parent, child, found, uses, normals, before, after, learnt, steps)
        _check(outcome, force)
        child.card["learnt"] = {
            "parent": parent.id,
            "verdicts": known,
            "taught": outcome.teaching.images,
            "calibrating": outcome.calibrating.images,
            "defects": outcome.defects.images,
            "steps": outcome.steps,
        }
        child.save(out_uri)
    _tell(outcome)
    console.print(f"learn: {out_uri} is model {child.id}, {duration(time.monotonic() - began)}", markup=False)
    return outcome


def _run_of(model_uri: str, run_uri: str | None) -> RunFolder:
    folders = model_uri.split("/")
    if run_uri is None and folders[-2:-1] != ["models"]:
        raise DataError(
            f"{model_uri} does not lie in a run (RUN/models/NAME); say with --run where its images are known"
        )
    return RunFolder.existing(run_uri or "/".join(folders[:-2]))


def _can_be_taught(method: Method) -> bool:
    return isinstance(method.settings, GradientSettings) or type(method).learn is not Method.learn


def archives_of(parent: Model, given: Sequence[str]) -> list[str]:
    """The archives to learn from: those given, and those that the parent has learnt from, if they are still there."""
    found = [storage.absolute(uri) for uri in given]
    for uri in parent.card.get("learnt", {}).get("verdicts", []):
        if uri in found:
            continue
        if score_table_file.part_names(uri):
            found.append(uri)
        else:
            told = (
                f"learn: {uri}, which the model has learnt from before, is not there any more, and does not calibrate"
            )
            console.print(told, markup=False)
    return list(dict.fromkeys(found))


def _digest(parent: Model, found: Judged, steps: int, seed: int) -> str:
    told = [parent.id, steps, seed, found.rows.select(["uri", "content_hash", "use"]).to_pylist()]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]


def _taught(
    model_uri: str,
    parent: Model,
    images: pa.Table,
    found: Judged,
    place: _Place,
    steps: int,
    seed: int,
    workers: Workers | None,
) -> tuple[Model, Learnt | None]:
    """The model after teaching, not calibrated yet; the parent's own where nobody was judged normal to teach it."""
    method, settings = parent.method, parent.method.settings
    by_gradients = isinstance(settings, GradientSettings)
    teaching = images.filter(pc.equal(found.rows["use"], TEACH))
    state, learnt = state_of(method), None
    positions = parent.positions
    if len(teaching):
        table.write(place.of("teaching.parquet"), teaching)
        examples = compute_examples(method.name, settings, place.of("teaching.parquet"), place.uri)
        with shown_progress(f"learn {method.name}", "images") as board:
            options = cluster.worker_options(cpus=cluster.cpus_for_each(1))
            task = _learn.options(**options).remote(model_uri, examples, place.of("learnt.safetensors"), seed, board)
            learnt = cluster.result(task)
        if by_gradients:
            own = compute_examples(method.name, settings, place.run.table("fit"), place.run.work)
            given = own, examples, place.of("learnt.safetensors"), place.uri
            state = refine(method.name, settings, steps, *given, workers, seed)
        else:
            state = safetensors.torch.load(storage.read_bytes(place.of("learnt.safetensors")))
    kind = methods.get(method.name)
    taught = kind.untrained(settings)
    taught.load_trained(state)
    if positions is not None and by_gradients and len(teaching):
        # its maps have changed; those of a larger bank are the same where nothing was learnt, and lower elsewhere
        Model(taught, parent.score_settings).save(place.of("untold"))
        positions = position_statistics(place.of("untold"), parent.score_settings, place.run.table("tune"), method.name)
    card = {name: value for name, value in parent.card.items() if name not in ("budget", "learnt")}
    return Model(taught, parent.score_settings, None, {**card, "made_anomalies": {}}, positions), learnt


@ray.remote(max_retries=MAX_FAILURES)
def _learn(model_uri: str, examples_uri: str, target: str, seed: int, board: Topic) -> Learnt | None:
    method = load(model_uri, cluster.use_assigned_device()).method
    found = method.learn(ExampleStore(examples_uri), seed, board.report)
    storage.write_bytes(target, safetensors.torch.save(state_of(method)))
    return found


def _outcome(
    parent: Model,
    child: Model,
    found: Judged,
    uses: Mapping[str, str],
    normals: pa.Table,
    before: Mapping[str, Scored],
    after: Mapping[str, Scored],
    learnt: Learnt | None,
    steps: int,
) -> Outcome:
    """Calibrate the new model, and count what it comes to."""
    old = parent.calibration
    assert old is not None
    alarmed = {uri for uri in uses if before[uri].alarms(old)}
    new = recalibrated(old, normals, uses, after, alarmed, found.alarm_shares)
    child.calibration = new.calibration
    pair = (old, before), (new.calibration, after)
    defects, lost = alarms(uses, DEFECT, *pair)
    kept = [before[uri] for uri in normals["uri"].to_pylist() if uri in before]
    was = sum(each.alarms(old) for each in kept) if kept else _own_alarms(old)
    own = Alarms(len(new.own), was, sum(each.alarms(new.calibration) for each in new.own))
    far = sorted(((far, uri) for uri, far in (learnt.alone if learnt else {}).items() if far > FAR), reverse=True)
    return Outcome(
        parent=parent.id,
        model=child.id,
        method=child.method.name,
        own=own,
        calibrating=alarms(uses, CALIBRATE, *pair)[0],
        teaching=alarms(uses, TEACH, *pair)[0],
        defects=defects,
        lost=lost,
        mixtures=new.mixtures,
        uncounted=new.uncounted,
        spare=new.spare,
        unread=sum(after[uri].score is None for uri in uses),
        teachable=_can_be_taught(child.method),
        learnt=learnt,
        steps=steps if isinstance(child.method.settings, GradientSettings) and TEACH in uses.values() else 0,
        alone=[uri for _, uri in far],
        judged=found,
        calibration=new.calibration,
    )


def _own_alarms(calibration: Calibration) -> int:
    """How many of the images that calibrate raise an alarm."""
    return sum(
        score > calibration.of(name).threshold for name, own in calibration.categories.items() for score in own.scores
    )


def _check(outcome: Outcome, force: bool) -> None:
    """Whether the new model may be written."""
    if outcome.defects.after >= outcome.defects.before or force:
        return
    _tell(outcome)
    raise DataError(
        f"the new model finds {outcome.defects.after:,} of {outcome.defects.images:,} images judged defective, and "
        f"that of before {outcome.defects.before:,} (lost: {', '.join(outcome.lost[:SHOWN])}); nothing is written. "
        "Look at the verdicts of these, or write it all the same with --force"
    )


def _tell(outcome: Outcome) -> None:
    for sentence in outcome.sentences():
        console.print(f"learn: {sentence}", markup=False)
