"""The pages that people read: every link leads somewhere, and every command on them is one that exists."""

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.main import get_command

from raydiff.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("cluster/*.md")])
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]*)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings: lower case, no punctuation, a hyphen for each space."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        place, _, anchor = link.partition("#")
        there = (page.parent / place).resolve() if place else page
        assert there.exists(), f"{page.name} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {link}, but {there.name} has no such heading"


def test_every_page_is_found_from_the_readme():
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page.suffix == ".md" and page not in reached:
            reached.add(page)
            ahead += [(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(page.read_text())]
    assert {page for page in PAGES if page.name != "CHANGELOG.md"} <= reached


def test_the_readme_is_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text().split()) < 1_300  # at 260 words a minute


def commands(page: Path) -> Iterator[list[str]]:
    """Each indented line that calls raydiff or a job, whole, as a shell would split it."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    for line in re.findall(r"^    (?! )(.*)$", text, re.M):
        found = re.match(r"(?:ray job submit .* -- |python jobs/local\.py )?(raydiff|python jobs/\w+\.py)( .*)?$", line)
        if found:
            words = shlex.split(f"{found[1]}{found[2] or ''}", comments=True)
            yield [word for word in words[words[0] == "python" :] if word != "&"]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that is called, and what it is given."""
    if words[0] == "raydiff":
        command: Any = get_command(app)
        words = words[1:]
        while isinstance(command, click.Group) and words:
            command, words = command.commands[words[0]], words[1:]
        return command, words
    spec = importlib.util.spec_from_file_location("documented_job", ROOT / words[0])
    assert spec is not None
    assert spec.loader is not None
    job = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(job)
    typed = typer.Typer()
    typed.command()(job.main)
    return get_command(typed), words[1:]


# Jobs that read their command line themselves, or need packages that are no dependencies.
NOT_PARSED = ("jobs/local.py", "jobs/gpu_check.py", "jobs/benchmark_peers.py", "jobs/benchmark_pieces.py")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_taken_as_written(page):
    for words in commands(page):
        if words[0] in NOT_PARSED:
            assert (ROOT / words[0]).exists()
            continue
        command, given = command_of(words)
        # the options alone: values are checked against the types, files need not be there
        command.make_parser(click.Context(command)).parse_args(given)
