"""The plan of an archive's run against closed forms, and its requests against those of the code."""

from __future__ import annotations

import dataclasses
import inspect
import random
import runpy
from pathlib import Path

import pytest
import yaml

from raydiff.images.shards import ROWS_PER_PART
from raydiff.scoring.archive_plan import Costs, Requests, Stage, Window, makespan, packing, plan, requests, stages
from raydiff.scoring.bulk import PARTS_PER_WAVE

ROOT = Path(__file__).parent.parent
FREE = Costs(
    gpu_rate=1e9,
    cpus=8,
    image_bytes=1,
    read_cpu=1e-9,
    beside_cpu=1e-9,
    driver=1e-9,
    wave=0,
    write=0,
    list_cpu=0,
    table_cpu=0,
    summary_cpu=0,
    hash_cpu=0,
    latency=1e-9,
    request_rate=1e12,
    node_rate=1e12,
)


@pytest.mark.parametrize(("parts", "workers"), [(1, 1), (7, 1), (7, 3), (9, 3), (3, 8)])
def test_one_stage_takes_its_parts_in_rounds(parts, workers):
    assert makespan(parts, [Stage("a", 2.0)], [Window(0, 0, workers)]) == 2.0 * -(-parts // workers)


@pytest.mark.parametrize(("first", "second"), [(2.0, 3.0), (3.0, 2.0), (2.0, 2.0)])
def test_two_stages_in_a_row_go_at_the_pace_of_the_slower(first, second):
    line = [Stage("a", first), Stage("b", second)]
    apart = [Window(0, 0, 1), Window(1, 1, 1)]
    assert makespan(10, line, apart) == first + second + 9 * max(first, second)
    assert makespan(10, line, [Window(0, 1, 1)]) == 10 * (first + second)  # one part in all
    assert makespan(10, line, [*apart, Window(0, 1, 2)]) == first + second + 9 * max(first, second)


def test_no_parts_take_no_time():
    assert makespan(0, [Stage("a", 1.0)], [Window(0, 0, 1)]) == 0


def by_events(parts: int, line: list[Stage], windows: list[Window]) -> float:
    """The same by a clock that goes from event to event: at each, whatever may begin begins."""
    place = [-1.0] * parts  # stage that a part is in, or behind by .5
    ends: dict[int, float] = {}
    now = 0.0
    while True:
        moved = True
        while moved:
            moved = False
            for part in range(parts):
                if part in ends and ends[part] <= now:
                    place[part] += 0.5
                    del ends[part]
                    moved = True
                if part in ends or place[part] >= len(line) - 0.5:
                    continue
                after = int(place[part] + 1)
                ahead = place[part - 1] if part else float(len(line))
                inside = [
                    sum(first <= where < last + 0.5 for where in place) < most
                    for first, last, most in windows
                    if first == after
                ]
                if ahead >= after and all(inside):
                    place[part] = float(after)
                    ends[part] = now + line[after].seconds
                    moved = True
        if not ends:
            return now
        now = min(ends.values())


@pytest.mark.parametrize("seed", range(20))
def test_the_recurrence_is_what_events_come_to(seed):
    rng = random.Random(seed)
    line = [Stage(str(place), float(rng.randint(1, 6))) for place in range(4)]
    windows = [Window(place, place, rng.randint(1, 4)) for place in range(4)]
    windows += [Window(1, 2, rng.randint(2, 6)), Window(2, 3, rng.randint(1, 4))]
    assert makespan(25, line, windows) == by_events(25, line, windows)


def test_a_run_is_as_fast_as_what_bounds_it():
    images = PARTS_PER_WAVE * ROWS_PER_PART
    for change, name, rate in [
        ({"gpu_rate": 100.0}, "the GPUs", 800),
        ({"read_cpu": 0.08}, "the workers' CPUs", 8 * 8 / 0.08),
        ({"driver": 0.016}, "the driver", 64 / 0.016),
        ({"image_bytes": 1e6, "node_rate": 1e8}, "the workers' network", 8 * 100),
        ({"image_bytes": 1e6, "request_rate": 1e6}, "waiting for the store", 8 * 16 * 8),
        ({"write": 1.0}, "callers of the replicas", 9 * 64),
    ]:
        found = plan(dataclasses.replace(FREE, **change), images, 8)
        assert next(iter(found.limits)) == name
        assert next(iter(found.limits.values())) == pytest.approx(rate, rel=1e-3)
        assert found.rate == pytest.approx(rate, rel=0.05)  # a wave's first and last parts find idle stages
        assert found.rate <= rate * 1.001


def test_each_wave_begins_and_ends_once():
    costs = dataclasses.replace(FREE, wave=7.0)
    for waves in (1, 2, 5):
        parts = PARTS_PER_WAVE * waves - 3
        assert plan(costs, parts * ROWS_PER_PART, 8).score_hours * 3600 == pytest.approx(7 * waves, abs=0.1)


def test_a_packed_part_is_fetched_in_few_requests():
    slow = dataclasses.replace(FREE, latency=1.0)
    (_, one_by_one, *_), _, _ = stages(slow, 1)
    (_, packed, *_), _, _ = stages(slow, 1, packed=True)
    assert one_by_one.seconds == pytest.approx(3 + 64 / 8)
    assert packed.seconds == pytest.approx(6)


def test_requests_of_a_million_images():
    assert requests(1_024_000) == Requests(
        list=1024 + 250, get=16_000 * (64 + 3) + 16_000 + 250, put=250 + 16_000 + 250, delete=250
    )
    assert requests(1_024_000).dollars(5.0, 0.4) == pytest.approx((1274 + 16_500) * 0.005 + (1_088_250) * 0.0004)
    assert requests(1_024_000, packed=True).get == 16_000 * 6 + 16_000 + 2 * 250
    assert packing(1_024_000, 1e6)[1:3] == (1_024_000 + 3 * 16_000, 2000 * (1 + 10 + 2))


def test_the_job_prints_what_is_planned(capsys):
    job = runpy.run_path(str(ROOT / "jobs/archive_plan.py"))["main"]
    job(images=10_000_000, gpus="1,8", gpu_rate="100")
    printed = " ".join(capsys.readouterr().out.split())
    assert "2,442 files of scores" in printed
    assert "10.0 TB read" in printed


def test_the_worker_is_the_one_of_the_manifest():
    manifest = yaml.safe_load((ROOT / "cluster/kuberay/score-archive.yaml").read_text())
    (group,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    job = runpy.run_path(str(ROOT / "jobs/archive_plan.py"))["main"]
    assert container["resources"]["limits"]["cpu"] == str(inspect.signature(job).parameters["cpus"].default)
