"""A job's notes: progress and counts, each topic for itself."""

from __future__ import annotations

import os
import signal

import pytest
from processes import is_named, named, wait_for

from raydiff.cluster import own_ray
from raydiff.cluster.notes import Notes, topic


def test_the_latest_progress_of_each_topic():
    notes = Notes()
    assert notes.read("a") == ("", 0, 0, "")
    notes.write("a", ("training", 1, 10, ""))
    notes.write("a", ("training", 2, 10, "loss 0.1"))
    notes.write("b", ("coreset", 5, 6, ""))
    assert notes.read("a") == ("training", 2, 10, "loss 0.1")
    notes.forget("a")
    assert (notes.read("a"), notes.read("b")) == (("", 0, 0, ""), ("coreset", 5, 6, ""))


def test_the_same_is_counted_within_a_topic_until_it_is_forgotten():
    notes = Notes()
    counted = [notes.count(*each) for each in [("a", ("s", 0)), ("a", ("s", 0)), ("a", ("s", 64)), ("b", ("s", 0))]]
    assert counted == [1, 2, 1, 1]
    notes.forget("a")
    assert [notes.count("a", ("s", 0)), notes.count("b", ("s", 0))] == [1, 2]


@pytest.mark.ray
def test_all_topics_of_a_driver_are_in_one_process(local_ray):
    import ray

    with topic() as first, topic() as second:
        assert first.notes == second.notes
        first.write("training", 1, 2)
        assert ray.get([first.read(), second.read()]) == [("training", 1, 2, ""), ("", 0, 0, "")]
        assert ray.get([first.count("part", 0), first.count("part", 0), second.count("part", 0)]) == [1, 2, 1]
    assert ray.get(first.read()) == ("", 0, 0, "")


@pytest.mark.ray
def test_losing_the_process_of_the_notes_ends_no_worker_that_writes_to_it(local_ray):
    import ray

    with topic() as notes:
        assert ray.get(notes.count("part", 0)) == 1
        process = ray.get(notes.notes.__ray_call__.remote(lambda _: os.getpid()))  # others may be ending still
        assert process in named("ray::Notes")
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: not is_named(process, "ray::Notes"))
        assert ray.get(notes.count("part", 0)) == 1  # counted anew
        assert ray.get(notes.read()) == ("", 0, 0, "")


def test_a_ray_of_our_own_keeps_what_is_set_already():
    environment = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1"}
    own_ray.settle(environment)
    assert environment["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] == "1"
    assert environment["RAY_prestart_worker_first_driver"] == "0"
