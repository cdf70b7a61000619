"""Options from a YAML file, and what a command prints as one: the command line goes first, nothing unknown is taken."""

import json
from typing import Annotated, Literal

import pytest
import typer
import yaml
from typer.testing import CliRunner

from raydiff import cli
from raydiff.cli.answer import Answer, answering
from raydiff.cli.settings_file import configurable
from raydiff.errors import SettingsError

job = typer.Typer()


@job.command()
@configurable
@answering
def main(
    data: Annotated[str, typer.Option()],
    methods_: Annotated[str, typer.Option("--methods")] = "all",
    false_alarm_rate: float = 0.01,
    kind: Literal["small", "large"] = "small",
    given: Annotated[list[str] | None, typer.Option("--set")] = None,
    view: str | None = None,
    workers: str | None = None,
    deep: bool = False,
    once: Annotated[bool, typer.Option("--once")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> Answer:
    """Tell what is given."""
    print("at work")
    return Answer(dict(locals()))


def invoke(tmp_path, values, *arguments):
    file = tmp_path / "settings.yaml"
    file.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    return CliRunner().invoke(job, ["--settings", str(file), *arguments])


def told(tmp_path, values, *arguments):
    done = invoke(tmp_path, values, "--json", *arguments)
    assert done.exit_code == 0, done.output
    assert done.stderr == "at work\n"
    return json.loads(done.stdout)


PLAIN = {
    "data": "x",
    "methods_": "all",
    "false_alarm_rate": 0.01,
    "kind": "small",
    "given": None,
    "view": None,
    "workers": None,
    "deep": False,
    "once": False,
    "seed": 0,
}


def test_a_file_gives_what_the_command_line_does_not(tmp_path):
    assert told(tmp_path, {"data": "x"}) == PLAIN
    given = {"data": "x", "false-alarm-rate": 0.05, "kind": "large", "deep": True, "once": True, "seed": 3}
    assert told(tmp_path, given) == PLAIN | {
        "false_alarm_rate": 0.05,
        "kind": "large",
        "deep": True,
        "once": True,
        "seed": 3,
    }
    assert told(tmp_path, given, "--false-alarm-rate", "0.2", "--no-deep", "--seed", "4")["false_alarm_rate"] == 0.2
    assert told(tmp_path, given, "--no-deep", "--seed", "4")["deep"] is False
    assert told(tmp_path, given, "--data", "y", "--seed", "0") == told(tmp_path, given | {"data": "y", "seed": 0})


def test_names_are_those_of_the_flags_with_either_dash(tmp_path):
    assert told(tmp_path, {"data": "x", "false_alarm_rate": 0.2, "methods": "a,b"})["false_alarm_rate"] == 0.2
    assert told(tmp_path, {"data": "x", "methods": ["a", "b"]})["methods_"] == "a,b"
    assert told(tmp_path, {"data": "x", "workers": None}) == PLAIN
    assert told(tmp_path, {"data": "x", "workers": 4})["workers"] == "4"
    assert told(tmp_path, "data: 2026-05-01")["data"] == "2026-05-01"


@pytest.mark.parametrize(
    ("value", "given"),
    [
        ({"lafite.train_steps": 500, "image_size": 64}, ["lafite.train_steps=500", "image_size=64"]),
        ({"lafite": {"train_steps": 500, "unet": {"multipliers": [1, 2]}}},
         ["lafite.train_steps=500", "lafite.unet.multipliers=[1, 2]"]),
        ({"name": "resnet18", "mean": None, "x": True, "y": {}}, ["name=resnet18", "mean=null", "x=true", "y={}"]),
        (["a=1", "b=c"], ["a=1", "b=c"]),
        ("a=1", ["a=1"]),
    ],
)  # fmt: skip
def test_an_option_for_several_takes_names_lists_and_one(tmp_path, value, given):
    assert told(tmp_path, {"data": "x", "set": value})["given"] == given


def test_names_in_one_text_stand_with_commas(tmp_path):
    assert told(tmp_path, {"data": "x", "view": {"tile": 512, "fit": "pad"}})["view"] == "tile=512,fit=pad"


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"method": "a"}, "main has no option 'method'; did you mean 'methods'?"),
        ({"zzzz": "a"}, "main has no option 'zzzz'; it has data, methods, false-alarm-rate, kind, set"),
        ({"settings": "other.yaml"}, "main has no option 'settings'"),
        ({"false-alarm-rate": 0.1, "false_alarm_rate": 0.2}, "says 'false-alarm-rate' twice"),
        ({"deep": "maybe"}, "deep: 'maybe' is not true or false"),
        ({"kind": True}, "kind: True is not a value for --kind"),
        ("- a\n- b\n", "holds no settings"),
        ("a: [", "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_what_means_nothing_is_refused_in_a_sentence(tmp_path, values, sentence):
    done = invoke(tmp_path, values, "--data", "x")
    assert isinstance(done.exception, SettingsError)
    assert sentence in str(done.exception)
    assert "\n" not in str(done.exception)
    assert done.stdout == ""


@pytest.mark.parametrize("values", [{"seed": "one"}, {"seed": -1}, {"kind": "medium"}])
def test_a_value_is_checked_as_on_the_command_line(tmp_path, values):
    done = invoke(tmp_path, values, "--data", "x")
    assert done.exit_code == 2
    assert f"--{next(iter(values))}" in done.stderr


def test_what_is_printed_gives_the_same_again(tmp_path):
    given = ["--data", "x", "--set", "a.b=[1, 2]", "--set", "c=d e", "--deep", "--kind", "large", "--workers", "4"]
    printed = CliRunner().invoke(job, [*given, "--print-config"])
    assert "at work" not in printed.output
    assert yaml.safe_load(printed.stdout)["false-alarm-rate"] == 0.01  # what is not given, too
    plain = CliRunner().invoke(job, [*given, "--json"])
    again = CliRunner().invoke(job, ["--settings", str(tmp_path / "given.yaml"), "--json"])
    assert isinstance(again.exception, Exception)  # not there yet
    (tmp_path / "given.yaml").write_text(printed.stdout)
    again = CliRunner().invoke(job, ["--settings", str(tmp_path / "given.yaml"), "--json"])
    assert json.loads(again.stdout) == json.loads(plain.stdout)
    twice = CliRunner().invoke(job, ["--settings", str(tmp_path / "given.yaml"), "--print-config"])
    assert twice.stdout == printed.stdout


def test_every_command_takes_a_file():
    def commands(group):
        for name, command in group.commands.items():
            yield from commands(command) if hasattr(command, "commands") else [(name, command)]

    for name, command in commands(typer.main.get_command(cli.app)):
        options = {option for parameter in command.params for option in parameter.opts}
        assert ("--settings" in options) == (name != "down"), name
        assert ("--json" in options) == (name not in ("down", "serve", "review", "demo-images")), name


def test_an_answer_is_valid_json_and_its_status_counts():
    app = typer.Typer()

    @app.command()
    @answering
    def found() -> Answer:
        """Tell."""
        return Answer({"rate": float("nan"), "place": "ä"}, 3)

    done = CliRunner().invoke(app, ["--json"])
    assert (done.exit_code, json.loads(done.stdout)) == (3, {"rate": None, "place": "ä"})
    assert CliRunner().invoke(app, []).stdout == ""
