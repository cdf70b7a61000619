"""The sentences of a run's report: who wins, who is champion and why, what a threshold promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_run import Make, bare_run, made_calibration, made_tuning, maker, text_of

from raydiff.report import facts
from raydiff.report.report import write_report


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


def test_the_reference_is_said_to_win_exactly_where_it_does(make: Make, tmp_path: Path) -> None:
    ours = make("lafite", "lafite", (0.96, 0.90)).changed(tuning_uri=None)
    weak = make("nn", "nearest_patch", (0.91, 0.89)).changed(tuning_uri=None)
    text = text_of(write_report(f"{tmp_path}/a", [ours, weak]))
    assert "lafite beats the non-diffusion reference nn in mean image AUROC: 0.930 against 0.900." in text
    assert "By category: lafite beats nn on cup (0.960 against 0.910) and gear (0.900 against 0.890)." in text
    assert "nn beats" not in text

    strong = make("nn", "nearest_patch", (0.99, 0.89)).changed(tuning_uri=None)
    text = text_of(write_report(f"{tmp_path}/b", [ours, strong]))
    assert "The non-diffusion reference nn beats lafite in mean image AUROC: 0.940 against 0.930." in text
    assert (
        "By category: nn beats lafite on cup (0.990 against 0.960); lafite beats nn on gear (0.900 against 0.890)."
        in text
    )
    assert "lafite beats the non-diffusion reference" not in text


def test_equal_numbers_are_not_a_win() -> None:
    same = [bare_run("nn", "nearest_patch", (0.9, 0.9)), bare_run("lafite", "lafite", (0.9001, 0.8999))]
    assert facts.verdicts(same)[0] == facts.Verdict(
        lost=True,
        mean="lafite only equals the non-diffusion reference nn in mean image AUROC: 0.900 against 0.900.",
        categories="By category: they are equal on cup (0.900) and gear (0.900).",
    )


def test_without_both_kinds_of_method_there_is_no_verdict(make: Make, tmp_path: Path) -> None:
    text = text_of(write_report(f"{tmp_path}/out", [make("lafite").changed(tuning_uri=None)]))
    assert "nearest_patch, the non-diffusion reference, was not run" in text
    assert "no diffusion method is here to compare" in facts.no_verdict([bare_run("nn", "nearest_patch")])
    unlabelled = [bare_run("nn", "nearest_patch", evaluation=None), bare_run("lafite")]
    assert facts.verdicts(unlabelled) == []
    assert "Nothing was evaluated on labelled images for both" in facts.no_verdict(unlabelled)


def test_alarms_of_made_anomalies_are_told_where_some_were_made() -> None:
    model = {"card": {"made_anomalies": {"nut": {"made": 40, "alarms": 3}}}}
    assert facts.made_alarms(model, "nut") == " Of 40 made anomalies 3 raise an alarm."
    assert (
        facts.made_alarms(model, "bolt")
        == facts.made_alarms({"card": {}}, "nut")
        == facts.made_alarms(None, "nut")
        == ""
    )


def test_a_champion_that_pseudo_validation_did_not_prefer_is_not_dressed_up() -> None:
    a = bare_run("a", auroc=(0.8, 0.8), tuning=made_tuning("lafite", 0.9))
    b = bare_run("b", auroc=(0.96, 0.9), tuning=made_tuning("lafite", 0.95))
    untuned = bare_run("c", "nearest_patch", auroc=(0.7, 0.7))
    doubtful, tested = facts.champion_reason([a, b], "a")
    assert doubtful.startswith("It does not have the best pseudo-validation score (0.900, against b 0.950)")
    assert tested.endswith("took no part in the choice, its mean image AUROC is 0.800, while b has 0.930.")
    assert facts.champion_reason([a, b, untuned], "b")[1:] == [
        "No pseudo-validation of c was given to this report.",
        "On the labelled test set, which took no part in the choice, its mean image AUROC is 0.930, the best of all.",
    ]
    assert facts.champion_reason([untuned], "c") == [
        "It was chosen by pseudo-validation, whose numbers were not given to this report."
    ]
    assert facts.champion_reason([a, untuned], "a")[0] == (
        "Its pseudo-validation score is 0.900; no other candidate's was given to this report."
    )


def test_a_model_that_was_passed_over_is_named() -> None:
    a = bare_run("a", auroc=(0.8, 0.8), tuning=made_tuning("lafite", 0.9))
    b = bare_run(
        "b", "diffusion_ad", auroc=(0.7, 0.7), tuning=made_tuning("diffusion_ad", 0.95) | {"saw_made_anomalies": True}
    )
    alone, passed, _ = facts.champion_reason([a, b], "a")
    assert alone == "Its pseudo-validation score is 0.900; it is the only one of its kind."
    assert passed == (
        "b has a higher score there, 0.950, but was trained on made anomalies, so it says less of defects."
    )


def test_a_threshold_that_promises_nothing_warns(make: Make, tmp_path: Path) -> None:
    text = text_of(write_report(f"{tmp_path}/out", [make("lafite", normals=40).changed(tuning_uri=None)]))
    assert (
        "Warning: 1 % false alarms cannot be promised from 40 held-out normal images; "
        "2.44 % is the lowest they allow." in text
    )
    assert "Promises" not in text


def test_each_threshold_promises_what_it_can_and_no_more() -> None:
    def said(normals: dict[str, int], shared: tuple[str, ...] = ()) -> tuple[str, bool]:
        calibration = made_calibration(normals, shared)
        return facts.calibration_sentence(calibration, "cup"), facts.promised(calibration, "cup")

    promise = "Promises at most 1 % false alarms on images like the"
    assert said({"cup": 99}) == (f"{promise} 99 held-out normal images it was set from.", True)
    sentence, promised = said({"cup": 98})
    assert sentence.startswith("Warning: 1 % false alarms cannot be promised from 98 held-out normal images;")
    assert sentence.endswith("1.01 % is the lowest they allow.")
    assert not promised
    sentence, promised = said({"cup": 20, "gear": 100})
    assert sentence.startswith("Promises at most 1 % false alarms if its normal scores, told by their own mean and")
    assert sentence.endswith(
        "as those of the 120 held-out normal images of all categories do; its own 20 are too few to promise it alone."
    )
    assert not promised
    sentence, promised = said({"cup": 99}, shared=("cup",))
    assert sentence.endswith("Tuning saw the same images, so the rate may come out somewhat higher.")
    assert not promised
    reached = made_calibration({"cup": 99}, ()).at(0.01, 1.5)
    sentence = facts.calibration_sentence(reached, "cup")
    assert sentence.startswith(promise)
    assert sentence.endswith("The threshold lies further out than that takes, for a budget of alarms.")
