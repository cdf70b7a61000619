"""Commands as they can be typed next, where the shell names the environment and where it does not."""

from __future__ import annotations

import sys
import sysconfig

import pytest

from raydiff import typed


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A shell in a folder with an environment in .venv, which it does not name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / ".venv/bin"))
    for name in ("VIRTUAL_ENV", typed.FOLDER, typed.JOB):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_program_of_an_environment_that_is_not_active(shell, monkeypatch, tmp_path_factory):
    assert typed.program("raydiff") == ".venv/bin/raydiff"
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert typed.program("raydiff") == str(shell / ".venv/bin/raydiff")


def test_a_program_of_an_active_environment_and_of_none(shell, monkeypatch):
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    assert typed.program("raydiff") == "raydiff"
    monkeypatch.delenv("VIRTUAL_ENV")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert typed.program("python") == "python"


def test_a_job_is_told_where_it_was_submitted_or_knows_nothing(shell, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("copy"))
    monkeypatch.setenv(typed.JOB, "raysubmit_1")
    assert (typed.program("raydiff"), typed.place(str(shell / "run"))) == ("raydiff", str(shell / "run"))
    monkeypatch.setenv(typed.FOLDER, str(shell))
    assert (typed.program("raydiff"), typed.place(str(shell / "run"))) == (".venv/bin/raydiff", "run")


def test_places_elsewhere_stay_whole(shell):
    assert typed.place("s3://plant/run") == "s3://plant/run"
    assert typed.place(f"{shell}2/run") == f"{shell}2/run"
