"""The command line, and what `import raydiff` gives: settings from text, help with examples, errors in one line."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import raydiff
from raydiff import cli, methods
from raydiff.cli.method_settings import changes
from raydiff.errors import SettingsError

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "index",
    "ingest",
    "train",
    "tune",
    "calibrate",
    "review",
    "verdicts",
    "suggest",
    "learn",
    "rescore",
    "score",
    "evaluate",
    "report",
    "recipe",
    "serve",
    "demo-images",
    "doctor",
]


def python(*arguments):
    """A new process on this checkout, in which nothing is imported yet."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


# Settings from the command line


def test_nothing_given_changes_nothing():
    assert changes("lafite", None, None, None) == {}


def test_values_are_json_where_they_can_be():
    given = [
        "train_steps=2000",
        "learning_rate=1e-3",
        "prediction=v_prediction",
        "unet.multipliers=[1,2]",
        "backbone.mean=null",
        'backbone.timm_options={"pad_type": "same"}',
        "flag=true",
        "text=a=b",
        "empty=",
    ]
    assert changes("lafite", None, None, given) == {
        "train_steps": 2000,
        "learning_rate": 1e-3,
        "prediction": "v_prediction",
        "unet": {"multipliers": [1, 2]},
        "backbone": {"mean": None, "timm_options": {"pad_type": "same"}},
        "flag": True,
        "text": "a=b",
        "empty": "",
    }


def test_the_backbone_options_are_settings_of_the_backbone():
    given = changes("lafite", "resnet18", "s3://plant/weights.pth", ["backbone.grid=12"])
    assert given == {"backbone": {"name": "resnet18", "weights": "s3://plant/weights.pth", "grid": 12}}
    recipe = methods.recipe("lafite", "demo", given)
    assert (recipe.backbone.name, recipe.backbone.grid) == ("resnet18", 12)
    assert recipe.backbone.stages == methods.recipe("lafite", "demo").backbone.stages  # what was not given stays


def test_a_set_comes_after_the_options_and_the_last_one_counts():
    given = changes("lafite", "resnet18", None, ["backbone.name=resnet34", "image_size=64", "image_size=96"])
    assert given == {"backbone": {"name": "resnet34"}, "image_size": 96}


def test_a_setting_of_one_method_is_for_that_method_alone():
    given = ["lafite.train_steps=2000", "nearest_patch.image_size=64", "lafite.unet.base_channels=16", "bank_size=9"]
    assert changes("lafite", None, None, given) == {
        "train_steps": 2000,
        "unet": {"base_channels": 16},
        "bank_size": 9,
    }
    assert changes("nearest_patch", None, None, given) == {"image_size": 64, "bank_size": 9}
    several = {"backbone": {"name": "a", "weights": "hub"}, "further_backbones": [{"name": "b", "weights": "hub"}]}
    assert changes("nearest_patch", "a,b", "hub", None) == several


@pytest.mark.parametrize("text", ["train_steps", "train_steps:5", ""])
def test_a_set_without_a_value_is_refused(text):
    with pytest.raises(SettingsError, match=re.escape(f"--set {text!r} is not NAME=VALUE")):
        changes("lafite", None, None, [text])


# Help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example_that_can_be_parsed(command):
    shown = CliRunner().invoke(cli.app, [command, "--help"], terminal_width=300)
    assert shown.exit_code == 0
    example = re.search(rf"Example: raydiff ({command} (?:\w+ )?--.*)", shown.output)
    assert example, shown.output
    words = example[1].split()
    given = [word for word in words if word.startswith("--")]
    assert given
    assert all(re.search(rf"{option}\b", shown.output.replace(example[0], "")) for option in given)


def test_the_help_names_every_command():
    shown = CliRunner().invoke(cli.app, ["--help"])
    assert shown.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^\s+{command}\s+[A-Z]", shown.output, re.MULTILINE), command
    assert sorted(typer.main.get_command(cli.app).commands) == sorted([*COMMANDS, "cluster"])


def test_nothing_asked_is_answered_with_what_to_do_first(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["raydiff"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out = capsys.readouterr().out
    assert ended.value.code == 0
    named = re.findall(r"^  (?:\S*/)?(make demo|raydiff \w+|python jobs/\w+\.py)", out, re.MULTILINE)
    assert named == ["make demo", "raydiff index", "python jobs/train_all.py", "raydiff serve"]
    assert max(map(len, out.splitlines())) <= 120


@pytest.mark.parametrize("job", ["train_all", "score_archive", "tune", "evaluate"])
def test_a_job_shows_its_usage(monkeypatch, capsys, job):
    monkeypatch.setattr(sys, "argv", [f"jobs/{job}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "jobs" / f"{job}.py"), run_name="__main__")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"Usage: {job}.py" in shown
    assert "--out" in shown


def test_the_local_job_shows_its_usage_and_starts_nothing():
    done = python(str(ROOT / "jobs/local.py"), "--help")
    assert done.returncode == 0
    assert "python jobs/local.py python jobs/train_all.py" in done.stdout
    assert "starting" not in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda path: path.stem)
def test_every_job_says_in_its_file_how_it_is_submitted(path):
    text = path.read_text()
    assert re.search(rf"python jobs/({path.stem}|local)\.py", text.split('"""')[1]), "no example in the docstring"


# Errors


def said_by_main(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["raydiff", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "--model", "lafite"], "holds no image table"),
        (["report"], "holds no image table"),
        (["review"], "is not there; check the bucket, the folder and the name"),
        (["train", "--method", "lafite"], "raydiff index --data"),
        (["train", "--method", "lafite", "--set", "train_steps"], "is not NAME=VALUE"),
        (["index", "--data", "nowhere/at/all"], "nowhere/at/all"),
    ],
)
def test_an_error_of_ours_is_one_line_and_status_1(monkeypatch, capsys, tmp_path, arguments, sentence):
    status, out, err = said_by_main(monkeypatch, capsys, *arguments, "--out", str(tmp_path / "empty"))
    assert status == 1
    assert err.startswith("error: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert "Traceback" not in out + err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nowhere is not a model folder"),
        (["--set", "max_pixel=5"], "did you mean 'max_pixels'"),
        (["--set", "max_pixels"], "is no limit"),
        (["--set", "model=other"], "is no limit"),
        (["--set", "max_seconds=0"], "greater than 0"),
    ],
)
def test_what_cannot_be_served_is_told_before_ray_starts(monkeypatch, capsys, tmp_path, arguments, sentence):
    model = str(tmp_path / "nowhere")
    status, out, err = said_by_main(monkeypatch, capsys, "serve", "--model", model, *arguments)
    assert status == 1
    assert sentence in err
    assert err.count("\n") == 1
    assert out == ""


def test_a_misspelt_option_is_status_2_and_not_ours(monkeypatch, capsys):
    status, _, err = said_by_main(monkeypatch, capsys, "report", "--owt", "x")
    assert status == 2
    assert "--owt" in err


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    def broken():
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(sys, "argv", ["job"])
    with pytest.raises(ZeroDivisionError):
        cli.run(broken)


def test_a_job_explains_errors_as_the_command_does(monkeypatch, capsys):
    def job(name: str) -> None:
        raise SettingsError(f"{name} is not good")

    monkeypatch.setattr(sys, "argv", ["job", "this"])
    with pytest.raises(SystemExit) as ended:
        cli.run(job)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: this is not good\n"


# Completion


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["train", "--method", ""], methods.names()),
        (["train", "--method", "la"], ["lafite"]),
        (["train", "--preset", ""], ["demo", "small", "paper"]),
        (["score", "--maps", ""], ["none", "tiff", "png"]),
        (["tune", "--scheduler", "a"], ["asha"]),
        (["train", "--bit"], ["--bit-depth"]),
        (["cluster", ""], ["up", "down"]),
        (["score", "--out", "RUN", "--model", ""], ["glad", "mine"]),
        (["tune", "--out", "RUN", "--model", "glad,"], ["glad,mine"]),
        (["score", "--model", ""], []),
        (["score", "--out", "s3://no-such-bucket/run", "--model", ""], []),
        (["score", "--out", "RUN/none", "--model", ""], []),
    ],
)
def test_a_shell_is_offered_the_values(monkeypatch, capsys, tmp_path, words, offered):
    for name in ("mine", "glad"):
        (tmp_path / "models" / name).mkdir(parents=True)
    given = " ".join(["raydiff", *words]).replace("RUN", str(tmp_path))
    for name, value in {"_RAYDIFF_COMPLETE": "complete_bash", "COMP_WORDS": given, "COMP_CWORD": len(words)}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(SystemExit) as ended:
        cli.app(prog_name="raydiff")
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == offered


def test_every_method_has_the_presets_that_are_offered():
    for name in methods.names():
        assert tuple(methods.get(name).presets) == methods.PRESETS


# The package


def test_the_public_names_are_those_that_can_be_reached():
    assert raydiff.__all__ == sorted(raydiff.__all__)
    for name in raydiff.__all__:
        assert getattr(raydiff, name) is not None
    assert raydiff.methods is methods
    from raydiff.model import folder

    assert (raydiff.load, raydiff.Model) == (folder.load, folder.Model)
    public = {name for name in vars(raydiff) if not name.startswith("_")}
    modules = {name for name in public if isinstance(getattr(raydiff, name), type(raydiff))}
    assert public - modules - {"annotations", "TYPE_CHECKING", "Any"} <= set(raydiff.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        raydiff.nothing  # noqa: B018


def test_help_and_a_mistake_are_answered_before_anything_large_is_imported():
    code = "import sys; from raydiff import cli; cli.main(); "
    large = "{'torch', 'ray', 'pandas', 'scipy'} & {*sys.modules}"
    watch = f"import atexit, sys; atexit.register(lambda: print(sorted({large}))); "
    for arguments in (
        [],
        ["--help"],
        ["train", "--help"],
        ["train", "--nothing"],
        ["tune", "--out", "x", "--seed", "one"],
    ):
        done = python("-c", watch + code, *arguments)
        assert done.stdout.endswith("[]\n"), (arguments, done.stdout, done.stderr)


def test_the_package_alone_imports_neither_torch_nor_ray():
    done = python("-c", "import sys, raydiff; print(sorted({'torch', 'ray', 'timm', 'numpy'} & {*sys.modules}))")
    assert done.stdout == "[]\n", done.stderr


NO_RAY = """
import importlib.abc, pkgutil, sys

class NoRay(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")

sys.meta_path.insert(0, NoRay())
import raydiff, raydiff.training.loop, raydiff.training.store
for package in ("methods", "nn", "metrics", "model", "evaluation", "synthesis", "review", "verdicts"):
    parent = __import__(f"raydiff.{package}", fromlist=["x"])
    for found in pkgutil.walk_packages(parent.__path__, f"raydiff.{package}."):
        __import__(found.name)
        print(found.name)
raydiff.load, raydiff.Model, raydiff.methods.names()
assert "ray" not in sys.modules
"""


def test_models_can_be_used_where_ray_is_not_installed():
    done = python("-c", NO_RAY)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 12


def test_a_setting_without_a_method_goes_to_those_that_have_it():
    given = ["bank_size=8", "image_size=64", "diffusion_ad.foreground=full"]
    among = ["diffusion_ad", "nearest_patch"]
    given_to = {name: changes(name, None, "random", given, among) for name in among}
    assert given_to["nearest_patch"] == {"backbone": {"weights": "random"}, "bank_size": 8, "image_size": 64}
    assert given_to["diffusion_ad"] == {"backbone": {"weights": "random"}, "image_size": 64, "foreground": "full"}
    alone = changes("diffusion_ad", None, None, ["bank_size=8"], ["diffusion_ad"])
    with pytest.raises(SettingsError, match="no setting 'bank_size'"):
        methods.recipe("diffusion_ad", "demo", alone)
    with pytest.raises(SettingsError, match="did you mean 'image_size'"):
        methods.recipe("diffusion_ad", "demo", changes("diffusion_ad", None, None, ["imagesize=64"], among))
