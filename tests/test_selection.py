"""Choosing score settings and models without a label: search spaces, the staged search, made validation sets."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import fitted, made_images, tiny_settings
from ray.tune.search import Searcher
from scipy.stats import spearmanr

from raydiff import methods
from raydiff.errors import DataError, SettingsError
from raydiff.methods.lafite import LafitEScore
from raydiff.model.scorer import image_key
from raydiff.selection import staged_search
from raydiff.selection.champion import champion, passed_over, sentences
from raydiff.selection.criterion import masks_in_cells
from raydiff.selection.pseudo_validation import (
    LabelledImages,
    PseudoValidationSettings,
    pseudo_validation_set,
    scoring_set,
)
from raydiff.selection.space import Stage, described, load_space
from raydiff.selection.staged_search import StagedSearch
from raydiff.selection.trials import oracle_price, rank_correlation
from raydiff.synthesis.made import make_set

SPACES = Path(__file__).parents[1] / "tune_spaces"
SHIPPED = sorted(path for path in SPACES.glob("*.py") if path.stem != "rivals")  # whose test is in test_rivals.py


# Search spaces


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_a_space(name):
    assert load_space(name)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_candidate_of_a_shipped_space_is_valid_whatever_was_chosen_before(path):
    name = next(name for name in sorted(methods.names(), key=len, reverse=True) if path.stem.startswith(name))
    stages = load_space(name, str(path))
    assert len({stage.name for stage in stages}) == len(stages)
    states = {methods.get(name).ScoreSettings()}
    details = {"normal_details": {"probing_score": [n / 10 for n in range(11)]}}
    finished = []
    for stage in stages:
        following = set()
        for chosen in states:
            grid = stage.grid(chosen, finished)
            assert grid
            for candidate in grid:
                chosen.changed(**stage.fixed | candidate)  # what a trial runs
                following.add(chosen.changed(**candidate))
        settings = [candidate for chosen in states for candidate in stage.grid(chosen, finished)]
        finished.append({"name": stage.name, "trials": [{"settings": each} | details for each in settings]})
        states = set(sorted(following, key=repr)[:: max(1, len(following) // 40)])  # some of them are enough


def test_a_grid_has_every_combination_in_order():
    stage = Stage(name="a", candidates={"neighbours": (1, 2), "feature_editing": (True, False)})
    assert stage.grid(LafitEScore(), []) == [
        {"neighbours": 1, "feature_editing": True},
        {"neighbours": 1, "feature_editing": False},
        {"neighbours": 2, "feature_editing": True},
        {"neighbours": 2, "feature_editing": False},
    ]


def test_candidates_may_depend_on_what_was_chosen_and_on_finished_stages():
    def candidates(chosen, finished):
        return {"neighbours": (chosen.neighbours, finished[-1]["trials"][0]["settings"]["neighbours"] + 1)}

    stage = Stage(name="a", candidates=candidates)
    finished = [{"name": "before", "trials": [{"settings": {"neighbours": 5}}]}]
    assert stage.grid(LafitEScore(neighbours=3), finished) == [{"neighbours": 3}, {"neighbours": 6}]


def test_a_space_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from raydiff.selection.space import Stage\n"
        "STAGES = [Stage(name='pool', candidates={'pool': (1, 8)}, fixed={'blur_sigma': 0})]\n"
    )
    (stage,) = load_space("nearest_patch", str(file))
    assert (stage.name, stage.candidates, stage.fixed) == ("pool", {"pool": (1, 8)}, {"blur_sigma": 0})


def test_a_missing_space_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.py is not there: .* Python file that defines STAGES"):
        load_space("lafite", str(tmp_path / "none.py"))
    with pytest.raises(SettingsError, match=r"nope\.py is not there"):
        load_space("nope")


@pytest.mark.parametrize("text", ["", "STAGES = []", "STAGES = [{'name': 'a'}]", "stages = 1"])
def test_a_space_without_stages_is_refused(tmp_path, text):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"mine\.py must define STAGES"):
        load_space("lafite", str(file))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("STAGES = [\n", "SyntaxError: .*line 1"), ("import nothing_such", "No module named"), ("1 / 0", "zero")],
)
def test_a_space_that_does_not_run_says_why(tmp_path, text, reason):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(SettingsError, match=rf"mine\.py does not run: .*{reason}"):
        load_space("lafite", str(file))


def test_stages_have_names_of_their_own(tmp_path):
    file = tmp_path / "mine.py"
    stages = ", ".join(f"Stage(name='{name}', candidates={{}})" for name in "abaccd")
    file.write_text(f"from raydiff.selection.space import Stage\nSTAGES = [{stages}]\n")
    with pytest.raises(SettingsError, match=r"mine\.py has several stages named a, c; give each a name of its own"):
        load_space("lafite", str(file))


def test_settings_in_a_few_words():
    assert described({"neighbours": 2, "corruption_steps": (100, 300)}) == "neighbours=2, corruption_steps=(100, 300)"


# The staged search, driven as Ray Tune drives it


def finish(staged, trial, auroc, **more):
    outcome = {"pseudo_score": auroc, "test_score": None} | more
    staged.on_trial_complete(trial, {"pseudo_score": auroc, "outcome": json.dumps(outcome)})


def run(staged, auroc_of):
    """Every trial finishes at once; the configurations in the order asked."""
    asked = []
    while (config := staged.suggest(f"t{len(asked)}")) != Searcher.FINISHED:
        assert config is not None
        asked.append(config)
        finish(staged, f"t{len(asked) - 1}", auroc_of(config))
        assert len(asked) < 200
    return asked


def two_stages():
    return [
        Stage(name="k", candidates={"neighbours": (1, 2, 4)}, fixed={"feature_editing": False}),
        Stage(name="steps", candidates={"denoising_steps": (1, 2)}),
    ]


def test_stages_come_one_after_the_other_on_top_of_what_was_chosen():
    staged = StagedSearch(two_stages(), LafitEScore(pool=8), "grid", 99, 0)
    assert staged.expected == 5
    asked = run(staged, lambda config: 1 / config["score"]["neighbours"] + config["score"]["denoising_steps"])
    assert [config["stage"] for config in asked] == ["k", "k", "k", "steps", "steps"]
    scores = [LafitEScore.parse(config["score"]) for config in asked]
    first = LafitEScore(pool=8, feature_editing=False)
    assert scores[:3] == [first.changed(neighbours=k) for k in (1, 2, 4)]
    assert scores[3:] == [LafitEScore(pool=8, neighbours=1, denoising_steps=steps) for steps in (1, 2)]
    assert staged.finished
    assert staged.chosen == LafitEScore(pool=8, neighbours=1, denoising_steps=2)
    assert staged.suggest("after") == Searcher.FINISHED


def test_how_many_trials_there_will_be_is_known_better_as_stages_end():
    def many(chosen, finished):
        return {"neighbours": tuple(range(1, 2 + len(finished[0]["trials"])))}

    stages = [Stage(name="a", candidates={"pool": (1, 2, 4)}), Stage(name="b", candidates=many)]
    staged = StagedSearch(stages, LafitEScore(), "grid", 99, 0)
    assert staged.expected == 3 + 2
    for name in "abc":
        staged.suggest(name)
        finish(staged, name, 0.5)
    assert staged.expected == 3 + 4
    run(staged, lambda config: 0.5)
    assert staged.expected == staged.count == 7


def test_what_is_fixed_does_not_enter_the_choice():
    staged = StagedSearch(two_stages()[:1], LafitEScore(), "grid", 99, 0)
    run(staged, lambda config: config["score"]["neighbours"])
    assert staged.chosen == LafitEScore(neighbours=4)
    assert staged.chosen.feature_editing


def test_a_search_waits_for_the_last_trials_of_a_stage():
    staged = StagedSearch(two_stages(), LafitEScore(), "grid", 99, 0)
    assert [staged.suggest(name)["score"]["neighbours"] for name in "abc"] == [1, 2, 4]
    assert staged.suggest("d") is None
    finish(staged, "c", 0.7)
    finish(staged, "a", 0.9)
    assert staged.suggest("d") is None
    assert not staged.results
    finish(staged, "b", 0.8)
    assert staged.suggest("d")["stage"] == "steps"
    assert staged.chosen.neighbours == 1
    assert not staged.finished


@pytest.mark.parametrize(("margin", "chosen"), [(0, 4), (0.005, 2), (0.1, 1)])
def test_a_dearer_candidate_must_be_worth_it(margin, chosen):
    staged = StagedSearch(
        [Stage(name="k", candidates={"neighbours": (1, 2, 4)}, margin=margin)], LafitEScore(), "grid", 9, 0
    )
    run(staged, lambda config: {1: 0.85, 2: 0.9, 4: 0.904}[config["score"]["neighbours"]])
    assert staged.chosen.neighbours == chosen
    assert staged.results[0]["chosen"] == {"neighbours": chosen}
    assert staged.found["pseudo_score"] == {1: 0.85, 2: 0.9, 4: 0.904}[chosen]


def test_what_an_earlier_stage_has_tried_is_not_tried_again():
    stages = [
        Stage(name="k", candidates={"neighbours": (1, 2)}),
        Stage(name="both", candidates={"neighbours": (2, 1), "denoising_steps": (1, 2)}),
        Stage(name="again", candidates={"neighbours": (1, 2)}, fixed={"denoising_steps": 1}),
    ]
    staged = StagedSearch(stages, LafitEScore(), "grid", 99, 0)
    asked = run(staged, lambda config: config["score"]["neighbours"] / 10 + config["score"]["denoising_steps"])
    told = [(config["score"]["neighbours"], config["score"]["denoising_steps"]) for config in asked]
    assert told == [(1, 1), (2, 1), (2, 2), (1, 2)]
    assert staged.finished
    assert [[trial["pseudo_score"] for trial in stage["trials"]] for stage in staged.results] == [
        [1.1, 1.2],
        [1.2, 2.2, 1.1, 2.1],
        [1.1, 1.2],
    ]
    assert staged.count == staged.expected == 8


def test_optuna_is_told_what_an_earlier_stage_has_tried(monkeypatch):
    known = []
    real = staged_search.optuna_search

    def noting(candidates, seed, results):
        known.append(results)
        return real(candidates, seed, results)

    monkeypatch.setattr(staged_search, "optuna_search", noting)
    stages = [
        Stage(name="k", candidates={"neighbours": (1, 2, 4)}),
        Stage(name="k2", candidates={"neighbours": (8, 2)}),
    ]
    staged = StagedSearch(stages, LafitEScore(), "optuna", 9, 0)
    asked = run(staged, lambda config: config["score"]["neighbours"] / 10)
    assert known == [{}, {1: 0.2}]
    assert [config["score"]["neighbours"] for config in asked][3:] == [8]


def test_trials_are_noted_in_the_order_of_the_grid_however_they_finish():
    staged = StagedSearch(two_stages()[:1], LafitEScore(), "grid", 99, 0)
    for name in "abc":
        staged.suggest(name)
    for name, auroc in (("c", 0.7), ("a", 0.9), ("b", 0.8)):
        finish(staged, name, auroc, pseudo_by_category={"bolt": auroc}, seconds=2)
    (stage,) = staged.results
    assert stage["name"] == "k"
    assert stage["chosen"] == {"neighbours": 1}
    assert stage["trials"][1] == {
        "settings": {"neighbours": 2},
        "fixed": {"feature_editing": False},
        "pseudo_score": 0.8,
        "test_score": None,
        "pseudo_by_category": {"bolt": 0.8},
        "seconds": 2,
        "scored_in": "k",
    }
    assert [trial["pseudo_score"] for trial in stage["trials"]] == [0.9, 0.8, 0.7]
    assert "neighbours=1" in staged.note
    assert "0.9000" in staged.note


@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
def test_of_equals_the_first_of_the_grid_is_chosen(order):
    staged = StagedSearch(two_stages()[:1], LafitEScore(), "grid", 99, 0)
    for name in "abc":
        staged.suggest(name)
    aurocs = {"a": 0.5, "b": 0.8, "c": 0.8}
    for name in order:
        finish(staged, name, aurocs[name])
    assert staged.chosen.neighbours == 2


def test_tuples_become_lists_in_results_and_candidates():
    stage = Stage(name="t", candidates={"corruption_steps": ((100,), (100, 300))})
    staged = StagedSearch([stage], LafitEScore(), "grid", 99, 0)
    asked = run(staged, lambda config: len(config["score"]["corruption_steps"]))
    assert asked[1]["score"]["corruption_steps"] == [100, 300]
    assert staged.results == json.loads(json.dumps(staged.results))
    assert staged.chosen.corruption_steps == (100, 300)


def test_later_candidates_see_what_was_chosen():
    stages = [
        Stage(name="k", candidates={"neighbours": (1, 2)}),
        Stage(name="more", candidates=lambda chosen, _: {"neighbours": tuple(chosen.neighbours + n for n in (0, 5))}),
    ]
    staged = StagedSearch(stages, LafitEScore(), "grid", 99, 0)
    asked = run(staged, lambda config: config["score"]["neighbours"])
    assert [config["score"]["neighbours"] for config in asked] == [1, 2, 7]


@pytest.mark.parametrize(
    "stage",
    [
        Stage(name="a", candidates={"neighbours": (1, 0)}),
        Stage(name="a", candidates={"neighbuors": (1, 2)}),
        Stage(name="a", candidates={"neighbours": (1,)}, fixed={"blur_sigma": -1}),
        Stage(name="a", candidates={"corruption_steps": ((5,),), "denoising_steps": (1, 10)}),
    ],
)
@pytest.mark.parametrize("search", ["grid", "optuna"])
def test_a_bad_candidate_is_refused_before_any_trial(stage, search):
    with pytest.raises(SettingsError):
        StagedSearch([stage], LafitEScore(), search, 1, 0)


@pytest.mark.parametrize("search", ["grid", "optuna"])
@pytest.mark.parametrize(("result", "error"), [(None, True), (None, False)])
def test_a_lost_trial_ends_the_search_unfinished(search, result, error):
    """Ray Tune would otherwise ask for ever: None means that there will be more."""
    staged = StagedSearch(two_stages(), LafitEScore(), search, 99, 0)
    for name in "abc":
        staged.suggest(name)
    staged.on_trial_complete("a", result, error)
    assert staged.suggest("d") == Searcher.FINISHED
    finish(staged, "b", 0.5)
    finish(staged, "c", 0.5)
    assert staged.suggest("d") == Searcher.FINISHED
    assert not staged.finished


def wide_stages():
    return [
        Stage(name="k", candidates={"neighbours": tuple(range(1, 13))}),
        Stage(name="steps", candidates={"denoising_steps": (1, 2, 5)}),
    ]


@pytest.mark.parametrize("trials", [1, 5, 12, 50])
def test_optuna_tries_as_many_as_it_may_and_none_twice(trials):
    staged = StagedSearch(wide_stages(), LafitEScore(), "optuna", trials, 0)
    asked = run(staged, lambda config: -abs(config["score"]["neighbours"] - 7.1))
    tried = [config["score"]["neighbours"] for config in asked if config["stage"] == "k"]
    assert len(tried) == len(set(tried)) == min(trials, 12)
    assert staged.count == min(trials, 12) + min(trials, 3) == staged.expected
    assert len(asked) == staged.count - 1  # one step back is what the first stage had
    assert staged.chosen.neighbours == min(tried, key=lambda k: abs(k - 7.1))


def test_optuna_tries_none_twice_while_trials_run():
    staged = StagedSearch(wide_stages()[:1], LafitEScore(), "optuna", 12, 0)
    asked = [staged.suggest(f"t{trial}")["score"]["neighbours"] for trial in range(12)]
    assert sorted(asked) == list(range(1, 13))
    assert staged.suggest("more") is None


def test_optuna_follows_its_seed():
    def tried(seed):
        staged = StagedSearch(wide_stages(), LafitEScore(), "optuna", 6, seed)
        return run(staged, lambda config: config["score"]["neighbours"])

    assert tried(0) == tried(0)
    assert tried(0) != tried(1)


def test_optuna_says_nothing_of_its_own(caplog, capfd):
    run(StagedSearch(wide_stages(), LafitEScore(), "optuna", 3, 0), lambda config: 0.5)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_optuna_has_to_be_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    StagedSearch(wide_stages(), LafitEScore(), "grid", 3, 0)
    with pytest.raises(SettingsError, match=r"pip install 'raydiff\[optuna\]'"):
        StagedSearch(wide_stages(), LafitEScore(), "optuna", 3, 0)


def test_optuna_is_told_the_result_of_what_it_proposed(monkeypatch):
    told, proposed = {}, {}

    class Proposer:
        """Proposes 0, 0, 1, 0, 1, 2, and so on; the same again to the same name."""

        places = iter([0, 0, 1, 0, 1, 2])

        def suggest(self, name):
            proposed.setdefault(name, next(self.places))
            return {"candidate": proposed[name]}

        def on_trial_complete(self, name, result):
            told[proposed[name]] = result["pseudo_score"]

    monkeypatch.setattr("raydiff.selection.staged_search.optuna_search", lambda *told: Proposer())
    staged = StagedSearch([Stage(name="k", candidates={"neighbours": (1, 2, 4)})], LafitEScore(), "optuna", 3, 0)
    run(staged, lambda config: config["score"]["neighbours"] / 10)
    assert told == {0: 0.1, 1: 0.2, 2: 0.4}


def test_optuna_that_proposes_nothing_new_is_helped_on(monkeypatch):
    class Stubborn:
        def suggest(self, name):
            return {"candidate": 2}

        def on_trial_complete(self, name, result):
            pass

    monkeypatch.setattr("raydiff.selection.staged_search.optuna_search", lambda *told: Stubborn())
    staged = StagedSearch([Stage(name="k", candidates={"neighbours": (1, 2, 4)})], LafitEScore(), "optuna", 9, 0)
    asked = run(staged, lambda config: 0.5)
    assert [config["score"]["neighbours"] for config in asked] == [4, 1, 2]


# Champion and rank correlation


SAW = [
    ("nearest_patch", {}, False),
    ("lafite", {}, False),
    ("diffusion_ad", {}, True),
    ("glad", {}, True),
    ("glad", {"anomaly_oriented": False}, False),
]


def tuned(score, saw_made_anomalies=False):
    return {"pseudo_score": score, "saw_made_anomalies": saw_made_anomalies}


def test_the_champion_is_the_best_on_made_anomalies():
    assert champion({"nearest_patch": tuned(0.8), "lafite": tuned(0.9)}) == "lafite"
    assert champion({"nearest_patch": tuned(0.9), "lafite": tuned(0.8)}) == "nearest_patch"


def test_who_was_trained_on_made_anomalies_is_not_chosen_before_who_never_saw_one():
    found = {"lafite": tuned(0.8), "nearest_patch": tuned(0.7), "diffusion_ad": tuned(0.95, True)}
    assert champion(found) == "lafite"
    assert passed_over(found, "lafite") == ["diffusion_ad"]
    chosen, passed = sentences(found)
    assert chosen == "chosen by pseudo-validation, without a label: lafite"
    assert passed.startswith("diffusion_ad found more made anomalies, but was trained on such, so it was not chosen")
    assert passed_over(found | {"diffusion_ad": tuned(0.79, True)}, "lafite") == []
    alone = {"diffusion_ad": tuned(0.8, True), "glad": tuned(0.9, True)}
    assert champion(alone) == "glad"
    assert passed_over(alone, "glad") == []


@pytest.mark.parametrize(("name", "changes", "saw"), SAW)
def test_which_methods_saw_made_anomalies(name, changes, saw):
    method = methods.get(name).untrained(tiny_settings(name, **changes))
    assert method.saw_made_anomalies == saw


@pytest.mark.parametrize("names", [("lafite", "nearest_patch", "other"), ("nearest_patch", "other", "lafite")])
def test_a_tie_goes_to_the_cheaper_reference(names):
    assert champion({name: tuned(0.75) for name in names}) == "nearest_patch"


def trials(pairs):
    return [{"pseudo_score": pseudo, "test_score": test} for pseudo, test in pairs]


def test_rank_correlation_in_closed_form():
    assert rank_correlation(trials([(0.1, 0.5), (0.2, 0.6), (0.3, 0.9)])) == pytest.approx(1)
    assert rank_correlation(trials([(0.1, 0.9), (0.2, 0.6), (0.3, 0.5)])) == pytest.approx(-1)
    # 1 - 6 sum d^2 / (n (n^2 - 1)) with ranks 1 2 3 4 and 2 1 4 3
    found = rank_correlation(trials([(0.1, 0.6), (0.2, 0.5), (0.3, 0.8), (0.4, 0.7)]))
    assert found == pytest.approx(1 - 6 * 4 / 60)
    ties = [(0.1, 0.6), (0.1, 0.5), (0.3, 0.8), (0.4, 0.6)]
    assert rank_correlation(trials(ties)) == pytest.approx(spearmanr(*zip(*ties, strict=True)).statistic)


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(0.1, 0.2), (0.3, 0.4)],
        [(0.1, None), (0.2, None), (0.3, None), (0.4, 0.5)],
        [(0.1, 0.5), (0.2, 0.5), (0.3, 0.5)],
        [(0.5, 0.1), (0.5, 0.2), (0.5, 0.3)],
    ],
)
def test_rank_correlation_is_left_out_where_it_is_not_defined(pairs):
    assert rank_correlation(trials(pairs)) is None


def test_the_price_of_choosing_without_labels():
    stages = [{"trials": trials([(0.9, 0.6), (0.8, 0.7)])}, {"trials": trials([(0.9, 0.6), (0.95, 0.64), (0.5, None)])}]
    assert oracle_price(stages, {"test_score": 0.64}) == pytest.approx(0.06)
    assert oracle_price([{"trials": trials([(0.9, None)])}], {"test_score": None}) is None


# The pseudo-validation set


@pytest.fixture(scope="module")
def method():
    return fitted("nearest_patch", made_images(6))[0]


SIZE = PseudoValidationSettings(normals=4, anomalies=6)


def normals():
    return {"cloth": made_images(6, seed=1), "bolt": made_images(3, seed=2), "lone": made_images(1, seed=3)}


def labelled(images, label):
    return LabelledImages("a", images, np.full(len(images), label), np.zeros(images.shape[:3], bool))


def test_counts_and_labels_of_the_pseudo_validation_set(method):
    found = pseudo_validation_set(method, normals(), SIZE, 0)
    assert found.counts() == {"bolt": (3, 6), "cloth": (4, 6)}  # "lone" has nothing to cut from
    assert len(found.inputs.examples) == len(found.inputs.keys) == len(found.labels) == len(found.categories) == 19
    assert found.categories.tolist() == ["bolt"] * 9 + ["cloth"] * 10
    assert found.labels.tolist() == [False] * 3 + [True] * 6 + [False] * 4 + [True] * 6
    assert found.labels.dtype == bool


def test_normals_are_as_they_came_and_anomalies_are_not(method):
    found = pseudo_validation_set(method, normals(), SIZE, 0)
    own = [image_key(image) for image in normals()["cloth"]]
    assert found.inputs.keys[9:13] == own[:4]
    assert not set(found.inputs.keys[13:]) & set(own)
    assert len(set(found.inputs.keys)) == 19
    torch.testing.assert_close(found.inputs.examples[9:13], method.example(torch.from_numpy(normals()["cloth"][:4])))


def test_the_pseudo_validation_set_follows_its_seed(method):
    keys = [pseudo_validation_set(method, normals(), SIZE, seed).inputs.keys for seed in (0, 0, 1)]
    assert keys[0] == keys[1]
    assert not set(keys[0][3:9]) & set(keys[2][3:9])
    assert keys[0][:3] == keys[2][:3]


@pytest.mark.parametrize("given", [{}, {"lone": made_images(1)}, {"a": made_images(1), "b": made_images(1)}])
def test_too_few_normals_are_refused(method, given):
    with pytest.raises(DataError, match="no category has two held-out normal images"):
        pseudo_validation_set(method, given, SIZE, 0)


def test_made_anomalies_bring_their_masks(method):
    found = pseudo_validation_set(method, normals(), SIZE, 0)
    np.testing.assert_array_equal(found.masks.any((1, 2)), found.labels)
    made = make_set(normals()["bolt"], 6, 0)
    np.testing.assert_array_equal(found.masks[3:9], masks_in_cells(made.masks, 32))
    assert found.inputs.keys[3:9] == [image_key(image) for image in made.images]
    np.testing.assert_array_equal(found.part(np.array([4, 2])).masks, found.masks[[4, 2]])


def test_deciles_of_details_are_those_of_the_normal_images(method):
    found = scoring_set(method, [labelled(made_images(11), False), labelled(made_images(3), True)])
    values = np.array([*range(20, 31), 0, 99, 99], float)
    assert found.normal_details({"chosen_step": values}) == {"chosen_step": pytest.approx(list(range(20, 31)))}


def test_parts_of_one_category_are_taken_together(method):
    parts = [labelled(made_images(2), False), labelled(made_images(3, seed=1), True)]
    assert scoring_set(method, parts).counts() == {"a": (2, 3)}
