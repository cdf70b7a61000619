"""Progress on the driver: plain lines in a job's log, rates and the time left."""

import io

import pytest
from rich.console import Console

from raydiff import progress
from raydiff.progress import LINE_SECONDS, duration, phase


class Clock:
    """A time.monotonic that only moves when told."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    fake = Clock()
    monkeypatch.setattr(progress.time, "monotonic", fake.monotonic)
    return fake


@pytest.fixture
def log(monkeypatch):
    """What a job's log gets: no terminal."""
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, soft_wrap=True, highlight=False))
    return lambda: written.getvalue().splitlines()


def test_a_log_gets_a_line_at_the_beginning_and_the_end(clock, log):
    with phase("index", 10, "images") as running:
        assert log() == ["index: begins, 10 images"]
        clock.now += 2
        running.advance(10, "2 unreadable")
    assert log() == ["index: begins, 10 images", "index: done, 10 images in 2.0 s, 2 unreadable"]


def test_a_phase_without_a_total(clock, log):
    with phase("list", unit="files") as running:
        clock.now += 10
        running.advance(30)
    assert log() == ["list: begins", "list: 30 files, 3 files/s", "list: done, 30 files in 10 s"]


def test_lines_are_some_seconds_apart(clock, log):
    with phase("score", 1000, "images") as running:
        for _ in range(100):
            clock.now += 0.25
            running.advance()
    between = log()[1:-1]
    assert len(between) == 25 // LINE_SECONDS
    assert between[0] == "score: 20/1000 images (2 %), about 4 min left, 4 images/s"


def test_the_time_left_is_what_the_rate_so_far_promises(clock, log):
    with phase("train", 400, "steps") as running:
        clock.now += 50
        running.update(100, "loss 0.5")
        assert running.seconds() == 50
        assert running.line() == "train: 100/400 steps (25 %), about 2 min left, 2 steps/s, loss 0.5"  # 150 s
        running.update(400)
        assert running.line() == "train: 400/400 steps (100 %), 8 steps/s"  # nothing is left, no note any more
        running.update(400, total=500)
        assert running.line().startswith("train: 400/500 steps (80 %)")


def test_a_line_before_any_time_has_passed(clock, log):
    with phase("train", 4, "steps") as running:
        assert running.line() == "train: 0/4 steps (0 %)"
        running.advance()
        assert "1/4 steps (25 %)" in running.line()
        assert "left" not in running.line()


def test_a_phase_that_fails_is_not_called_done(clock, log):
    with pytest.raises(ValueError, match="broken"), phase("index", 3):
        raise ValueError("broken")
    assert log() == ["index: begins, 3 images"]


def test_titles_and_notes_are_no_markup(clock, log):
    with phase("score [bold]a[/bold]", 2) as running:
        clock.now += LINE_SECONDS
        running.advance(1, "[red]")
    assert all("[bold]a[/bold]" in line for line in log())
    assert log()[1].endswith("[red]")


def test_a_terminal_gets_a_bar(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written, force_terminal=True, width=100))
    with phase("score [x]", 8) as running:
        running.advance(8, "3 alarms")
    shown = written.getvalue()
    assert "8/8" in shown
    assert "3 alarms" in shown
    assert "begins" not in shown


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.0 s"),
        (3.14, "3.1 s"),
        (12.6, "13 s"),
        (89, "89 s"),
        (90, "2 min"),
        (150, "2 min"),
        (3600, "60 min"),
        (5400, "1.5 h"),
        (36_000, "10.0 h"),
    ],
)
def test_durations_as_a_person_would_say_them(seconds, words):
    assert duration(seconds) == words
