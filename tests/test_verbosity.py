"""What of Ray's lines is let through."""

from __future__ import annotations

import os
import re

import pytest

from raydiff import cli, verbosity

REMARKS = [
    "2026-11-29 10:11:12,345\tINFO worker_group.py:290 -- Attempting to start training worker group of size 1",
    "INFO 2026-11-29 10:11:12,345 controller 1234 deployment_state.py:1628 -- Deploying new version of Deployment",
]
SPOKEN = [
    "2026-11-29 10:11:12,345\tWARNING worker_group.py:290 -- the INFO that was asked for is missing",
    "2026-11-29 10:11:12,345\tERROR resource.py:12 -- no room",
    "[2026-11-29 10:11:12,345 E 12 34] core_worker.cc:2465: lost",
    "raydiff.errors.DataError: INFO is no image",
    "INFO of the user's own",
]


@pytest.fixture
def restored(monkeypatch):
    monkeypatch.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", "")
    monkeypatch.delenv("RAY_DEDUP_LOGS_SKIP_REGEX")
    monkeypatch.setattr(verbosity, "_all", False)


@pytest.mark.parametrize("line", REMARKS)
def test_remarks_of_workers_are_held_back(line):
    assert re.search(verbosity.REMARKS, line)


@pytest.mark.parametrize("line", SPOKEN)
def test_warnings_errors_and_what_is_not_rays_get_through(line):
    assert not re.search(verbosity.REMARKS, line)


def test_verbose_lets_all_through(restored):
    verbosity.hush()
    assert (verbosity.level(), os.environ.pop("RAY_DEDUP_LOGS_SKIP_REGEX")) == ("WARNING", verbosity.REMARKS)
    verbosity.show_all()
    assert verbosity.level() == "INFO"
    assert "RAY_DEDUP_LOGS_SKIP_REGEX" not in os.environ


def test_what_the_environment_says_counts_more(restored, monkeypatch):
    monkeypatch.setenv("RAY_DEDUP_LOGS_SKIP_REGEX", "mine")
    verbosity.hush()
    assert os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] == "mine"


@pytest.mark.parametrize(("more", "level"), [([], "WARNING"), (["--verbose"], "INFO")])
def test_the_option_settles_it_before_the_command_begins(restored, monkeypatch, capsys, tmp_path, more, level):
    monkeypatch.setattr("sys.argv", ["raydiff", "train", "--method", "lafite", "--out", str(tmp_path / "no"), *more])
    with pytest.raises(SystemExit):
        cli.main()
    assert "holds no image table" in capsys.readouterr().err
    assert verbosity.level() == level


def test_what_libraries_write_to_standard_error_is_unheard_for_a_while(restored, capfd):
    verbosity.hush()
    with verbosity.unheard():
        os.write(2, b"from C++")
    os.write(2, b"after")
    verbosity.show_all()
    with verbosity.unheard():
        os.write(2, b", with --verbose")
    assert capfd.readouterr().err == "after, with --verbose"


def test_lines_of_a_job_are_told_apart(restored):
    lines = ["Running entrypoint for job raysubmit_1: python x\n", "index: begins\n", *REMARKS]
    verbosity.hush()
    assert list(verbosity.told(lines)) == ["index: begins\n"]
    verbosity.show_all()
    assert list(verbosity.told(lines)) == lines
