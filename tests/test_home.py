"""Under a user id without a home folder or a name, as containers are run."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from raydiff import home

ROOT = Path(__file__).parents[1]
USER = 54321
PROGRAM = """
import raydiff, os, getpass, sys
import matplotlib.pyplot
import huggingface_hub.constants as hub
from torch._inductor.runtime.cache_dir_utils import cache_dir
from raydiff.home import use_private_token
assert getpass.getuser() == str(os.getuid()) != "0"
for place in (matplotlib.get_cachedir(), matplotlib.get_configdir(), hub.HF_HOME, cache_dir()):
    os.makedirs(place, exist_ok=True)
    assert os.access(place, os.W_OK), place
    assert os.path.realpath(place).startswith(os.environ["TMPDIR"]), place
use_private_token()
token = os.environ["RAY_AUTH_TOKEN_PATH"]
assert os.stat(token).st_mode & 0o777 == 0o600 and os.stat(os.path.dirname(token)).st_mode & 0o777 == 0o700
print(os.path.getsize(token))
"""


@pytest.fixture
def open_folder():
    """Where another user may write; pytest's own folders are root's alone."""
    with tempfile.TemporaryDirectory(prefix="open-", dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("setpriv"), reason="only root can be another user")
def test_another_user_without_a_home_finds_places(open_folder):
    # Another user may not read root's folders, in which this Python may lie; that alone is allowed here.
    allowed = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]
    user = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", *allowed]
    path = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*user, sys.executable, "-B", "-c", PROGRAM],
        env={**path, "HOME": "/nonexistent", "TMPDIR": str(open_folder)},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "64\n", "")
    (left,) = open_folder.glob("raydiff*")  # the caches; the token has gone with its process
    assert left.name == f"raydiff-{USER}"
    assert (left.stat().st_mode & 0o777, left.stat().st_uid) == (0o700, USER)


@pytest.fixture
def unwritable(tmp_path, monkeypatch):
    """A home folder that cannot be written, and nothing set."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(home, "is_writable", lambda: False)
    monkeypatch.setattr(home.tempfile, "tempdir", str(tmp_path))
    for name in (*home.CACHES, *home.TOKEN_VARIABLES):
        monkeypatch.setenv(name, "")  # so that what is set is taken back
        monkeypatch.delenv(name)
    return tmp_path


def test_what_is_set_and_what_is_there_stays(unwritable, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", "/mine")
    (unwritable / "home/.cache/huggingface").mkdir(parents=True)
    home.use_private_caches()
    folder = unwritable / f"raydiff-{os.getuid()}"
    assert os.environ["TORCH_HOME"] == "/mine"
    assert "HF_HOME" not in os.environ
    assert os.environ["MPLCONFIGDIR"] == str(folder / ".config/matplotlib")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["open to others", "a link"])
def test_a_folder_that_somebody_else_may_have_made_is_not_used(unwritable, kind):
    folder = unwritable / f"raydiff-{os.getuid()}"
    if kind == "a link":
        folder.symlink_to(unwritable)
    else:
        folder.mkdir()
        folder.chmod(0o777)
    home.use_private_caches()
    assert not os.environ["MPLCONFIGDIR"].startswith(f"{folder}/")
    assert os.environ["MPLCONFIGDIR"].startswith(f"{unwritable}/raydiff-")


@pytest.mark.parametrize("given", home.TOKEN_VARIABLES)
def test_a_token_that_is_given_stays(unwritable, monkeypatch, given):
    monkeypatch.setenv(given, "mine")
    home.use_private_token()
    assert [name for name in home.TOKEN_VARIABLES if name in os.environ] == [given]


def test_where_home_can_be_written_nothing_is_set(unwritable, monkeypatch):
    monkeypatch.setattr(home, "is_writable", lambda: True)
    home.use_private_caches()
    home.use_private_token()
    assert not {*home.CACHES, *home.TOKEN_VARIABLES} & os.environ.keys()
