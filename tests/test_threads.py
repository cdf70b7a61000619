"""Threads that wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("said", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_they_sleep_unless_the_environment_says_otherwise(said, policy):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": said} if said else {}
    program = "import os, raydiff; print(os.environ['OMP_WAIT_POLICY'])"
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True
    )
    assert found.stdout == f"{policy}\n", found.stderr


def test_they_hear_of_it_before_torch_is_loaded():
    """OpenMP looks at the environment when it is loaded, and tells of what it found if asked to."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    found = subprocess.run(
        [sys.executable, "-c", "import raydiff, torch"],
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in found.stderr
