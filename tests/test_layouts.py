"""`--layout`: which layout a folder has, why, and what is said where it does not have the one that is named."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import typer
from test_folders_brought import BLACK, MARKED, named, put, rows
from typer.testing import CliRunner

from raydiff import cli
from raydiff.errors import DataError, SettingsError
from raydiff.images.layouts import known
from raydiff.images.survey import survey
from raydiff.planning.training import plan_training

ROOT = Path(__file__).resolve().parents[1]


def refusal(root: Path, name: str, **options) -> str:
    with pytest.raises(DataError) as error:
        survey(str(root), layout=known.parse(name), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_each_layout_has_a_name_of_its_own():
    names = known.names()
    assert len(set(names)) == len(names)
    assert names == ["auto", "visa", "real-iad", "dagm", "mvtec", "marked", "plain"]
    assert [known.parse(each.name) for each in known.LAYOUTS] == list(known.LAYOUTS)
    assert known.parse("auto") is None


def test_an_unknown_name_is_refused_with_the_list():
    with pytest.raises(
        SettingsError, match=r"'VisA' is no layout; there are auto, visa, real-iad, dagm, mvtec, marked"
    ):
        known.parse("VisA")


@pytest.mark.parametrize("name", [each.name for each in known.LAYOUTS if each.name != "plain"])
def test_a_folder_of_normals_is_of_no_other_layout(tmp_path, name):
    put(tmp_path, "bolt/1.png", "nut/1.png", "nut/2.png")
    (tmp_path / "notes.txt").write_text("")
    said = refusal(tmp_path, name)
    looked_for = known.parse(name).looked_for
    assert said.startswith(
        f"{tmp_path} is not of the layout {name}: looked for {looked_for}; found bolt/, notes.txt, nut/"
    )
    assert "which --layout plain reads (as no mask, no folder of test images and no split says more)" in said


def test_what_may_not_be_normal_is_not_of_the_plain_layout(tmp_path):
    put(tmp_path / "a", "screw/train/good/1.png", "screw/test/hole/1.png")
    assert "found screw/, which --layout mvtec reads (by folders called test, train)" in refusal(
        tmp_path / "a", "plain"
    )
    put(tmp_path / "b", "1.png", "2.png")
    put(tmp_path / "b", "1_GT.png", value=BLACK)
    put(tmp_path / "b", "2_GT.png", value=MARKED)
    assert "which --layout marked reads (by 2 masks beside" in refusal(tmp_path / "b", "plain")
    put(tmp_path / "c", "train/scratched/1.png", "train/1.png")
    assert "cannot all be normal" in refusal(tmp_path / "c", "plain")


def test_a_named_layout_reads_what_another_would_be_taken_for(tmp_path):
    put(tmp_path, "train/1.png", "train/2.png")
    with pytest.raises(DataError, match="looks like the MVTec AD layout"):
        survey(str(tmp_path))
    found = survey(str(tmp_path), layout=known.parse("plain"))
    assert set(rows(found, tmp_path).values()) == {("train", "train", 0, "good", None)}
    assert found.layout_name == "plain"


def test_a_copy_in_mvtecs_layout_beside_a_split_is_read_by_its_folders_where_that_is_named(tmp_path):
    put(tmp_path, "screw/train/good/1.png", "screw/test/good/2.png")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text("object,split,label,image,mask\nscrew,train,normal,screw/9.png,\n")
    with pytest.raises(DataError, match="lists 1 images that are not there"):
        survey(str(tmp_path))
    assert len(survey(str(tmp_path), layout=known.parse("mvtec")).images) == 2


def test_folders_of_the_users_own_names_and_tables_have_no_layout(tmp_path):
    put(tmp_path, "OK/1.png", "NG/1.png")
    said = refusal(tmp_path, "plain", named=named("OK", "NG"))
    assert said.startswith("--layout plain reads folders by its own names, and --normal and --anomalous by yours")
    (tmp_path / "t.csv").write_text("uri\nOK/1.png\n")
    assert "is a table, and --layout says how folders lie" in refusal(tmp_path / "t.csv", "plain")
    for found in (survey(str(tmp_path), named=named("OK", "NG")), survey(str(tmp_path / "t.csv"))):
        assert (found.layout_name, found.why) == (None, None)


def test_the_command_prints_the_layout_and_why(tmp_path):
    put(tmp_path / "plant", "bolt/1.png", "bolt/2.png")
    given = ["index", "--data", str(tmp_path / "plant"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 0, result.output
    assert "layout: plain, as no mask, no folder of test images and no split says more" in result.output
    told = CliRunner().invoke(cli.app, [*given, "--layout", "plain", "--json"])
    document = json.loads(told.stdout)
    assert (document["layout"], document["layout_name"]) == ("folder of normals", "plain")
    assert document["why"].startswith("as no mask")


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--layout", "visa"], "is not of the layout visa"),
        (["--layout", "vis"], "is no layout; there are auto, visa"),
        (["--layout", "plain", "--normal", "bolt"], "--normal and --anomalous by yours"),
        (["--layout", "plain", "--pack"], "--pack takes all images of a folder"),
    ],
)
def test_what_the_command_refuses(tmp_path, more, sentence):
    put(tmp_path / "plant", "bolt/1.png")
    given = ["index", "--data", str(tmp_path / "plant"), "--out", str(tmp_path / "run")]
    result = CliRunner().invoke(cli.app, [*given, *more])
    assert sentence in str(result.exception)


def test_a_plan_takes_the_layout_as_the_job_does(tmp_path):
    put(tmp_path / "plant", "bolt/1.png")
    with pytest.raises(DataError, match="is not of the layout dagm"):
        plan_training(
            str(tmp_path / "plant"),
            str(tmp_path / "run"),
            {},
            False,
            None,
            None,
            0.01,
            "none",
            layout=known.parse("dagm"),
        )


def test_the_main_job_has_the_option(tmp_path):
    put(tmp_path / "plant", "bolt/1.png")
    spec = importlib.util.spec_from_file_location("main_job_with_layout", ROOT / "jobs/train_all.py")
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    app = typer.Typer()
    app.command()(job.main)
    given = ["--data", str(tmp_path / "plant"), "--out", str(tmp_path / "run"), "--methods", "nearest_patch"]
    given += ["--backbone-weights", "random"]
    shown = CliRunner().invoke(app, [*given, "--layout", "visa", "--print-config"])
    assert "layout: visa" in shown.output
    result = CliRunner().invoke(app, [*given, "--layout", "visa"])
    assert "is not of the layout visa" in str(result.exception)
    assert not (tmp_path / "run/images.parquet").exists()
