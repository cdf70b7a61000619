"""A sweep: early stopping, going on after a killed driver, trials that share a GPU, one table and one plot."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import fitted, made_images, write_mvtec
from processes import wait_for
from ray.tune.search import Searcher
from ray.tune.utils.object_cache import _ObjectCache
from rich.console import Console
from sklearn.metrics import roc_auc_score

from raydiff import cluster, methods, progress, steps, storage
from raydiff.errors import SettingsError, StorageError
from raydiff.methods.lafite import LafitEScore
from raydiff.methods.nearest_patch import NearestPatchScore
from raydiff.model.folder import Model, load
from raydiff.report.figures import trials_plot, tuning_plot
from raydiff.run_folder import RunFolder
from raydiff.selection.criterion import found_by_category
from raydiff.selection.early_stopping import SHARES, WHOLE, StagedASHA, StagedFIFO
from raydiff.selection.journal import Journal
from raydiff.selection.pseudo_validation import (
    LabelledImages,
    PseudoValidationSettings,
    pseudo_validation_set,
    scoring_set,
)
from raydiff.selection.search_settings import SearchSettings
from raydiff.selection.space import Stage
from raydiff.selection.staged_search import StagedSearch
from raydiff.selection.trial import Trial
from raydiff.selection.trials import COLUMNS, SCORES, as_csv, rank_correlation, rows, trials_table
from raydiff.selection.tune import trial_resources
from raydiff.steps import tuning as tuning_step

ROOT = Path(__file__).parents[1]


# Rungs: the pseudo-validation set part by part


@pytest.fixture(scope="module")
def method():
    return fitted("nearest_patch", made_images(6))[0]


@pytest.fixture(scope="module")
def pseudo(method):
    normals = {"cloth": made_images(9, seed=1), "bolt": made_images(3, seed=2)}
    return pseudo_validation_set(method, normals, PseudoValidationSettings(normals=9, anomalies=14), 0)


def test_each_rung_has_its_share_of_every_category_and_label(pseudo):
    parts = pseudo.rungs(SHARES)
    assert sorted(np.concatenate(parts)) == list(range(len(pseudo.labels)))
    kinds = list(zip(pseudo.categories, pseudo.labels, strict=True))
    assert Counter(kinds) == {("cloth", False): 9, ("cloth", True): 14, ("bolt", False): 3, ("bolt", True): 14}
    seen = Counter()
    expected = [(3, 4, 1, 4), (5, 7, 2, 7), (9, 14, 3, 14)]  # a quarter, a half and all of them, rounded up
    for part, counts in zip(parts, expected, strict=True):
        seen += Counter(kinds[row] for row in part)
        assert tuple(seen[kind] for kind in Counter(kinds)) == tuple(counts[place] for place in order_of(kinds))
    assert [part.tolist() for part in pseudo.rungs(SHARES)] == [part.tolist() for part in parts]
    assert pseudo.rungs(WHOLE)[0].tolist() == list(range(len(pseudo.labels)))


def order_of(kinds):
    """Places of the kinds, as they come, in (cloth normal, cloth anomalous, bolt normal, bolt anomalous)."""
    known = [("cloth", False), ("cloth", True), ("bolt", False), ("bolt", True)]
    return [known.index(kind) for kind in Counter((str(name), bool(label)) for name, label in kinds)]


def test_a_rung_is_not_all_of_one_source(pseudo):
    """Anomalies come in the order of the images that they were made of; a rung that took the first would see one."""
    first = pseudo.rungs(SHARES)[0]
    anomalies = np.flatnonzero((pseudo.categories == "cloth") & pseudo.labels)
    assert set(first) & set(anomalies) != set(anomalies[:4])


def tried(trial, score):
    """All that a trial reports until it is done."""
    trial.reset_config({"score": score})
    found = []
    while not found or not found[-1]["done"]:
        found.append(trial.step())
    return [json.loads(report["outcome"]) | {"reported": report["pseudo_score"]} for report in found]


def test_rung_by_rung_gives_to_the_bit_what_the_whole_set_gives(method, pseudo, tmp_path, monkeypatch):
    Model(method, method.ScoreSettings()).save(str(tmp_path))
    monkeypatch.setattr(cluster, "use_assigned_device", lambda: "cpu")
    masks = np.zeros((6, 32, 32), bool)
    masks[3:, 4:12, 4:12] = True
    test = scoring_set(method, [LabelledImages("a", made_images(6, seed=5), np.arange(6) > 2, masks)])
    score = NearestPatchScore(neighbours=2)
    at_once, by_rungs = Trial.__new__(Trial), Trial.__new__(Trial)
    for trial, shares in ((at_once, WHOLE), (by_rungs, SHARES)):
        trial.setup({"score": {}}, model_uri=str(tmp_path), sets=(pseudo, test), shares=shares)
    (whole,) = tried(at_once, score.model_dump())
    for _ in range(2):  # the second time as a reused actor
        reports = tried(by_rungs, score.model_dump())
        assert [report["share"] for report in reports] == [0.25, 0.5, 1.0]
        assert [report["test_auroc"] is None for report in reports] == [True, True, False]
        told = {*SCORES, "pseudo_by_category", "test_by_category", "normal_details"}
        assert {name: reports[-1][name] for name in told} == {name: whole[name] for name in told}
        assert reports[-1]["rungs"] == [[report["share"], report["reported"]] for report in reports]
    scores = pseudo.scored(method, score).scores
    seen = np.sort(np.concatenate(pseudo.rungs(SHARES)[:2]))
    for report, mine in ((reports[1], seen), (reports[2], np.arange(len(scores)))):
        for category in ("bolt", "cloth"):
            own = mine[pseudo.categories[mine] == category]
            wanted = roc_auc_score(pseudo.labels[own], scores[own])
            assert report["pseudo_by_category"][category]["auroc"] == pytest.approx(wanted)
    maps = pseudo.scored(method, score).maps
    wanted = found_by_category(pseudo.categories, pseudo.labels, scores, maps, pseudo.masks)
    assert reports[2]["pseudo_score"] == pytest.approx((wanted["bolt"].score + wanted["cloth"].score) / 2)
    assert reports[2]["pseudo_aupro"] == pytest.approx((wanted["bolt"].aupro + wanted["cloth"].aupro) / 2)


# ASHA

CACHE = SimpleNamespace(increase_max=lambda resources: None)
TUNE: Any = SimpleNamespace(_tune_controller=SimpleNamespace(_actor_cache=CACHE))


def trial_of(name, config):
    """A trial as Ray Tune hands it to a scheduler."""
    return SimpleNamespace(trial_id=name, config=config, placement_group_factory=None)


def report(asha, stage, name, *aurocs):
    """The last decision on a trial that reports these until it is stopped, and after how many reports."""
    trial = trial_of(f"{stage} {name}", {"stage": stage})
    asha.on_trial_add(TUNE, trial)
    for iteration, auroc in enumerate(aurocs, 1):
        decision = asha.on_trial_result(TUNE, trial, {"training_iteration": iteration, "pseudo_score": auroc})
        if decision == "STOP":
            break
    asha.on_trial_complete(TUNE, trial, {"training_iteration": iteration, "pseudo_score": auroc})
    return iteration


def test_the_worse_half_is_stopped_at_each_rung():
    asha = StagedASHA()
    assert report(asha, "a", 1, 0.7, 0.7, 0.7) == 3  # nothing to be held against
    assert report(asha, "a", 2, 0.6, 0.9, 0.9) == 1
    assert report(asha, "a", 3, 0.8, 0.6, 0.9) == 2  # better than the median 0.65, then worse than 0.7
    assert report(asha, "a", 4, 0.7, 0.7, 0.1) == 3  # equal to the medians 0.7 and 0.65


@pytest.mark.parametrize("scheduler", [StagedFIFO, StagedASHA])
def test_all_workers_are_kept_while_no_trial_waits(scheduler):
    """With Ray Tune's own cache of idle workers, as its controller uses it: room for each trial until it runs."""
    cache, resources = _ObjectCache(may_keep_one=True), "one CPU"
    tune: Any = SimpleNamespace(_tune_controller=SimpleNamespace(_actor_cache=cache))
    ours = scheduler()
    for name in "abc":
        ours.on_trial_add(
            tune, SimpleNamespace(trial_id=name, config={"stage": "a"}, placement_group_factory=resources)
        )
        cache.increase_max(resources)  # Tune's own, when it asks for a worker
        cache.decrease_max(resources)  # and when the trial runs
    assert [cache.cache_object(resources, worker) for worker in (1, 2, 3)] == [True] * 3
    assert list(cache.flush_cached_objects()) == []


def test_a_stage_is_not_held_against_the_one_before():
    asha = StagedASHA()
    for name in range(4):
        report(asha, "good", name, 0.9, 0.9, 0.9)
    assert report(asha, "bad", 1, 0.3, 0.3, 0.3) == 3
    assert report(asha, "bad", 2, 0.2, 0.3, 0.3) == 1


def test_a_trial_that_need_not_run_counts_as_if_it_had():
    asha = StagedASHA()
    asha.take_over("a", "whole", [(0.25, 0.7), (0.5, 0.8), (1.0, 0.8)])
    asha.take_over("a", "stopped", [(0.25, 0.5)])
    asha.take_over("a", "at once", [(1.0, 0.99)])  # without early stopping it has told of the whole set alone
    assert report(asha, "a", 1, 0.55, 0.9, 0.9) == 1  # below the median 0.6
    assert report(asha, "a", 2, 0.65, 0.7, 0.9) == 2


# The search with early stopping and a journal, driven as Ray Tune drives it with one worker


class Killed(Exception):
    """The driver is no more."""


def search(staged, asha, rungs_of, most=1000):
    """Runs all trials, `most` of them; those that ran, as (stage, candidate)."""
    ran = []
    while (config := staged.suggest(f"t{len(ran)}")) != Searcher.FINISHED:
        assert config is not None
        if len(ran) == most:
            raise Killed
        trial = trial_of(f"t{len(ran)}", config)
        aurocs = rungs_of(config)
        seen = []
        if asha is None:
            seen = [(1.0, aurocs[-1])]
        else:
            asha.on_trial_add(TUNE, trial)
            for share, auroc in zip(SHARES, aurocs, strict=True):
                seen.append((share, auroc))
                told = {"training_iteration": len(seen), "pseudo_score": auroc}
                if asha.on_trial_result(TUNE, trial, told) == "STOP":
                    break
            asha.on_trial_complete(TUNE, trial, told)
        outcome = {"pseudo_score": seen[-1][1], "share": seen[-1][0], "rungs": seen, "seconds": 1.0}
        outcome |= dict.fromkeys(SCORES) | outcome
        outcome["test_score"] = 0.5 if seen[-1][0] == 1 else None
        result = {"pseudo_score": seen[-1][1], "outcome": json.dumps(outcome)}
        ran.append((config["stage"], config["score"]["neighbours"], config["score"]["denoising_steps"]))
        staged.on_trial_complete(trial.trial_id, result)
    return ran


def made_aurocs(config):
    """Of a quarter, of half and of all of the set; unlike for each of the settings used here."""
    score = config["score"]
    k, steps_back = score["neighbours"], score["denoising_steps"]
    true = 0.9 - 0.01 * abs(k - 7) + 0.003 * steps_back - (0.3 if not score["feature_editing"] else 0)
    return true + 0.02 * np.sin(5 * k + steps_back), true + 0.01 * np.sin(3 * k), true


def three_stages():
    return [
        Stage(name="k", candidates={"neighbours": tuple(range(1, 11))}),
        Stage(name="plain", candidates={"denoising_steps": (1, 2)}, fixed={"feature_editing": False}),
        Stage(name="steps", candidates={"neighbours": (6, 7, 8), "denoising_steps": (1, 2, 5)}, margin=0.005),
    ]


def staged_with(journal, how, scheduler):
    asha = StagedASHA() if scheduler == "asha" else None
    return StagedSearch(three_stages(), LafitEScore(denoising_steps=1), how, 6, 3, journal, asha), asha


def test_stopped_trials_are_kept_and_never_chosen():
    staged, asha = staged_with({}, "grid", "asha")
    search(staged, asha, made_aurocs)
    stages = {stage["name"]: stage for stage in staged.results}
    assert all(len(stage["trials"]) == count for stage, count in zip(staged.results, (10, 2, 9), strict=True))
    shares = [trial["share"] for stage in staged.results for trial in stage["trials"]]
    assert {0.25, 1.0} <= set(shares) <= set(SHARES)
    for stage in staged.results:
        best = max(trial["pseudo_score"] for trial in stage["trials"] if trial["share"] == 1)
        (chosen,) = (trial for trial in stage["trials"] if trial["settings"] == stage["chosen"])
        assert chosen["share"] == 1
        assert chosen["pseudo_score"] >= best - 0.005
    assert max(trial["pseudo_score"] for trial in stages["k"]["trials"]) > 0.9  # a stopped one seemed better
    assert staged.found["pseudo_score"] == made_aurocs({"score": staged.chosen.model_dump()})[-1]
    # What was scored whole in one stage is not scored again; what was stopped there has another chance.
    assert {trial["scored_in"] for trial in stages["steps"]["trials"]} == {"k", "steps"}


def test_the_margin_holds_among_whole_trials():
    aurocs = {1: (0.1, 0.1, 0.9), 2: (0.8, 0.8, 0.8), 4: (0.9, 0.9, 0.803)}
    stage = Stage(name="k", candidates={"neighbours": (2, 1, 4)}, margin=0.005)
    asha = StagedASHA()
    staged = StagedSearch([stage], LafitEScore(), "grid", 9, 0, {}, asha)
    search(staged, asha, lambda config: aurocs[config["score"]["neighbours"]])
    assert staged.chosen.neighbours == 2
    assert [trial["share"] for trial in staged.results[0]["trials"]] == [1, 0.25, 1]


def test_a_lone_candidate_sees_the_whole_set():
    asha = StagedASHA()
    staged = StagedSearch([Stage(name="a", candidates={})], LafitEScore(), "grid", 9, 0, {}, asha)
    search(staged, asha, lambda config: (0.2, 0.1, 0.3))
    assert staged.finished
    assert staged.results[0]["trials"][0]["share"] == 1


@pytest.mark.parametrize("scheduler", ["fifo", "asha"])
@pytest.mark.parametrize("how", ["grid", "optuna"])
@pytest.mark.parametrize("most", [0, 1, 4, 9, 12])
def test_a_killed_search_goes_on_where_it_was(how, scheduler, most, tmp_path):
    undisturbed, asha = staged_with({}, how, scheduler)
    whole_run = search(undisturbed, asha, made_aurocs)
    journal = Journal(str(tmp_path), "the same")
    staged, asha = staged_with(journal, how, scheduler)
    try:
        first = search(staged, asha, made_aurocs, most)
    except Killed:
        first = whole_run[:most]
    again, asha = staged_with(Journal(str(tmp_path), "the same"), how, scheduler)
    second = search(again, asha, made_aurocs)
    assert first + second == whole_run
    assert again.taken == len(first)
    assert again.results == json.loads(json.dumps(undisturbed.results))
    assert again.chosen == undisturbed.chosen
    assert again.finished


def test_whole_results_serve_any_search_and_stopped_ones_only_their_own():
    journal = {}
    staged, asha = staged_with(journal, "grid", "asha")
    search(staged, asha, made_aurocs)
    stopped = sum(found["share"] < 1 for found in journal.values())
    assert 0 < stopped < len(journal)
    plain, _ = staged_with(dict(journal), "grid", "fifo")
    ran = search(plain, None, made_aurocs)
    assert plain.taken > 0
    assert len(set(ran)) == len(ran)
    assert {trial["share"] for stage in plain.results for trial in stage["trials"]} == {1.0}
    other, asha = staged_with(dict(journal), "optuna", "asha")
    taken = {found["share"] for found in journal.values()}
    search(other, asha, made_aurocs)
    assert taken > {1.0}
    assert other.taken > 0


def test_a_journal_that_has_lost_its_whole_trials_does_not_stop_a_stage_whole():
    """A driver may be killed after one trial was stopped and before the one that stopped it has ended."""
    journal = {}
    staged, asha = staged_with(journal, "grid", "asha")
    search(staged, asha, made_aurocs)
    stopped = {key: found for key, found in journal.items() if found["share"] < 1}
    again, asha = staged_with(stopped, "grid", "asha")
    search(again, asha, made_aurocs)
    assert again.finished
    assert all(any(trial["share"] == 1 for trial in stage["trials"]) for stage in again.results)


# The journal's files


def test_a_journal_is_found_again_by_what_its_results_depend_on(tmp_path):
    first = Journal(str(tmp_path), {"weights": "a", "images": [1, 2]})
    first["one"] = {"share": 0.5, "rungs": [[0.25, 0.1], [0.5, 1 / 3]]}
    first["two/../.."] = {"share": 1.0}
    assert dict(Journal(str(tmp_path), {"images": [1, 2], "weights": "a"})) == dict(first)
    assert not Journal(str(tmp_path), {"weights": "b", "images": [1, 2]})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    assert {json.loads(path.read_text())["trial"] for path in files} == {"one", "two/../.."}
    (files[0].parent / ".half.json.1234.partial").write_text("{")  # what a killed driver leaves
    assert len(Journal(str(tmp_path), {"weights": "a", "images": [1, 2]})) == 2
    del first["one"]
    assert list(Journal(str(tmp_path), {"weights": "a", "images": [1, 2]})) == ["two/../.."]


# Trials that share a GPU


@pytest.mark.parametrize("trials", range(1, 33))
def test_so_many_trials_fit_on_a_gpu_and_no_more(monkeypatch, trials):
    monkeypatch.setattr(cluster, "gpus", lambda: 4)
    asked = trial_resources(trials)
    for kind in ("gpu", "cpu"):
        units = round(asked[kind] * 10_000)  # what Ray makes of it
        assert trials * units <= 10_000 < (trials + 1) * units


def test_without_a_gpu_there_is_nothing_to_share(monkeypatch):
    monkeypatch.setattr(cluster, "gpus", lambda: 0)
    with progress.console.capture() as printed:
        assert trial_resources(1) == trial_resources(4) == {"cpu": 1}
    assert printed.get() == "the cluster has no GPU for 4 trials to share: each takes a CPU\n"


@pytest.mark.parametrize("wrong", [{"trials_per_gpu": 0}, {"trials": 0}, {"scheduler": "median"}])
def test_search_settings_are_checked(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        SearchSettings.parse(wrong)


# Table and plot


@pytest.fixture(scope="module")
def tunings():
    """Two models' results, as `tune` writes them: one with early stopping, one without."""
    found = {}
    for name, scheduler in (("lafite", "asha"), ("lafite, $plain$", "fifo")):
        staged, asha = staged_with({}, "grid", scheduler)
        search(staged, asha, made_aurocs)
        result = {"method": "lafite", "stages": staged.results, "test_score": 0.5, "oracle_price": 0.0}
        found[name] = json.loads(json.dumps(result | {"pseudo_score": staged.found["pseudo_score"]}))
    return found


def test_the_table_of_trials_has_a_row_for_each(tunings):
    read = list(csv.DictReader(io.StringIO(as_csv(tunings).decode())))
    assert tuple(read[0]) == COLUMNS
    assert len(read) == 2 * 21
    for name, tuning in tunings.items():
        mine = [row for row in read if row["model"] == name]
        trials = [(stage, trial) for stage in tuning["stages"] for trial in stage["trials"]]
        assert [int(row["trial"]) for row in mine] == list(range(1, 22))
        for row, (stage, trial) in zip(mine, trials, strict=True):
            assert json.loads(row["settings"]) == trial["settings"]
            assert (row["stage"], float(row["pseudo_score"])) == (stage["name"], trial["pseudo_score"])
            assert float(row["share"]) == trial["share"]
            assert json.loads(row["stopped"]) == (trial["share"] < 1) == (row["test_score"] == "")
            assert json.loads(row["chosen"]) == (trial["settings"] == stage["chosen"])


def test_the_table_in_the_terminal(tunings):
    screen = Console(width=100, record=True, file=io.StringIO())
    screen.print(trials_table(tunings))
    text = screen.export_text()
    for name, tuning in tunings.items():
        scored = [row for row in rows(name, tuning) if row["scored_in"] == row["stage"]]
        stopped = sum(row["stopped"] for row in scored)
        (line,) = (line for line in text.splitlines() if f" {name} " in line)
        for cell in (f"{tuning['pseudo_score']:.4f}", "0.5000", f"{len(scored) - stopped} + {stopped}"):
            assert cell in line
        assert f"{len(scored) / 60:.1f}" in line  # each made trial takes a second
    assert f"neighbours={tunings['lafite']['stages'][-1]['chosen']['neighbours']}" in text


def test_the_plot_is_whole_and_marks_what_was_stopped(tunings):
    drawn = {name: ElementTree.fromstring(trials_plot({name: tuning})) for name, tuning in tunings.items()}
    assert all(root.tag == "{http://www.w3.org/2000/svg}svg" for root in drawn.values())
    uses = [len(root.findall(".//{http://www.w3.org/2000/svg}use")) for root in drawn.values()]
    assert all(count > 10 for count in uses)
    assert trials_plot(tunings)
    for stage in tunings["lafite"]["stages"]:
        assert tuning_plot(stage).startswith(b"\x89PNG")


def test_stopped_trials_take_no_part_in_the_rank_correlation():
    trials = [{"pseudo_score": p, "test_score": t, "share": 1.0} for p, t in ((0.1, 0.5), (0.2, 0.6), (0.3, 0.9))]
    assert rank_correlation([*trials, {"pseudo_score": 0.99, "test_score": None, "share": 0.25}]) == pytest.approx(1)


# Sweeps over the models of a run


def saved_run(folder: Path, *models: str) -> str:
    """A run with tiny models of nearest_patch under these names, and labelled test images."""
    out = str(folder / "run")
    steps.index(str(write_mvtec(folder / "data", train=28, test=3)), out)
    method, _ = fitted("nearest_patch", made_images(8, seed=1))
    for name in models:
        Model(method, method.ScoreSettings()).save(RunFolder(out).model(name))
    return out


@pytest.fixture(scope="module")
def run_uri(tmp_path_factory):
    with progress.console.capture():
        return saved_run(tmp_path_factory.mktemp("sweep"), "nearest_patch", "copy")


@pytest.mark.parametrize("option", ["save_as", "space"])
def test_what_is_for_one_model_is_refused_for_several(run_uri, option):
    with pytest.raises(SettingsError, match=r"is for a single model, not for nearest_patch, copy; name one"):
        steps.sweep(run_uri, ["nearest_patch", "copy", "copy"], SearchSettings(), **{option: "x"})


def test_by_default_copies_are_left_as_they_are(run_uri, monkeypatch):
    tuned = []
    monkeypatch.setattr(tuning_step, "tune", lambda out, name, *more: tuned.append(name))
    monkeypatch.setattr(storage, "read_json", lambda uri: {})
    monkeypatch.setattr(tuning_step, "describe", lambda uri: {})
    assert list(steps.sweep(run_uri, None, SearchSettings())) == tuned == ["nearest_patch"]
    assert list(steps.sweep(run_uri, ["copy"], SearchSettings())) == ["copy"]
    monkeypatch.setattr(methods, "names", list)
    with pytest.raises(SettingsError, match="is called as its method; name those to be tuned with --model"):
        steps.sweep(run_uri, None, SearchSettings())


def without_seconds(value):
    if isinstance(value, dict):
        return {name: without_seconds(each) for name, each in value.items() if name != "seconds"}
    return [without_seconds(each) for each in value] if isinstance(value, list) else value


THREE_STAGES = """
from raydiff.selection.space import Stage
STAGES = [
    Stage(name="neighbours", candidates={"neighbours": (1, 2, 4)}),
    Stage(name="blur", candidates={"blur_sigma": (0.5, 1.0)}),
    Stage(name="pool", candidates={"pool": (1, 4, 8)}),
]
"""


@pytest.mark.ray
def test_a_sweep_that_ended_in_the_middle(local_ray, run_uri, tmp_path, monkeypatch):
    out = str(tmp_path / "run")
    shutil.copytree(run_uri, out)
    space = tmp_path / "space.py"
    space.write_text(THREE_STAGES)
    how = SearchSettings(scheduler="asha")
    real = Journal.__setitem__

    def fails_after_two(journal, trial, found):
        if len(journal) == 2:
            raise StorageError("no more of it")
        real(journal, trial, found)

    def tuned(name):
        with progress.console.capture() as printed:
            found = steps.sweep(out, [name], how, space=str(space), pseudo_images=8)
        return found[name], printed.get()

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "__setitem__", fails_after_two)
        with pytest.raises(StorageError, match=r"^no more of it$"):
            tuned("nearest_patch")
    run = RunFolder(out)
    assert not storage.exists(run.tuning("nearest_patch"))
    result, printed = tuned("nearest_patch")
    assert "nearest_patch: 2 of the trials were taken from an earlier run\n" in printed
    copied, printed = tuned("copy")  # it has the same weights
    assert copied["stages"] == result["stages"]
    assert "were taken from an earlier run\n" in printed
    read = list(csv.DictReader(io.StringIO(storage.read_bytes(run.trials).decode())))
    assert Counter(row["model"] for row in read) == {"copy": 8, "nearest_patch": 8}
    ElementTree.fromstring(storage.read_bytes(run.trials_plot))
    last = result["stages"][-1]
    best = max((trial for trial in last["trials"] if trial["share"] == 1), key=lambda trial: trial["pseudo_score"])
    assert result["pseudo_score"] == best["pseudo_score"]
    assert load(run.model("copy"), "cpu").score_settings.pool == best["settings"]["pool"] == result["chosen"]["pool"]


SLOW_SPACE = """
from raydiff.selection.space import Stage
STAGES = [Stage(name=f"blur {n}", candidates={"blur_sigma": (n, n + 0.25, n + 0.5, n + 0.75)}) for n in range(6)]
"""


@pytest.mark.ray
@pytest.mark.faults
def test_a_killed_sweep_does_only_what_is_missing(tmp_path, job_environment):
    out = saved_run(tmp_path, "nearest_patch")
    undisturbed = str(tmp_path / "undisturbed")
    shutil.copytree(out, undisturbed)
    (tmp_path / "space.py").write_text(SLOW_SPACE)

    def command(run):
        options = ["--out", run, "--model", "nearest_patch", "--space", str(tmp_path / "space.py")]
        return [sys.executable, str(ROOT / "jobs/tune.py"), *options]

    def journal():
        return list((Path(out) / "work/trials").rglob("[!.]*.json"))

    with subprocess.Popen(command(out), env=job_environment, stdout=subprocess.DEVNULL) as driver:
        try:
            wait_for(lambda: len(journal()) >= 5, still=lambda: driver.poll() is None)
        finally:
            os.kill(driver.pid, signal.SIGKILL)
    done = len(journal())
    assert 5 <= done < 24
    assert not Path(RunFolder(out).tuning("nearest_patch")).exists()
    before = {path: path.stat().st_mtime_ns for path in journal()}
    told = [subprocess.run(command(run), env=job_environment, capture_output=True, text=True, timeout=300)
            for run in (out, undisturbed)]  # fmt: skip
    assert [each.returncode for each in told] == [0, 0], told
    assert f"nearest_patch: {done} of the trials were taken from an earlier run" in told[0].stdout
    assert "taken from an earlier run" not in told[1].stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(journal()) == 24
    results = [storage.read_json(RunFolder(run).tuning("nearest_patch")) for run in (out, undisturbed)]
    assert without_seconds(results[0]) == without_seconds(results[1])
