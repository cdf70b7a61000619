"""Parts are held out whole: named by paths, by tables or by time; and images that show again what trains."""

from __future__ import annotations

import datetime
import itertools
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from raydiff.errors import DataError, SettingsError
from raydiff.images import holdout, index, repeats, table
from raydiff.images.holdout import check_enough, roles
from raydiff.images.parts import PartPattern
from raydiff.images.survey import survey
from raydiff.images.whole_groups import halves, nearest

HELD_OUT = {"tune", "calibrate", "tune+calibrate"}


def normals(parts: list[str | None], times: list[datetime.datetime] | None = None, category: str = "tile") -> pa.Table:
    rows = [(f"/data/{category}/{i:04d}.png", "data", category, "train", 0, "good", None) for i in range(len(parts))]
    columns = zip(*rows, strict=True)
    found = pa.table([pa.array(c, f.type) for c, f in zip(columns, table.SCHEMA, strict=True)], table.SCHEMA)
    if any(parts):
        found = found.append_column(table.PART, pa.array(parts, pa.string()))
    return found.append_column(table.TIME, pa.array(times)) if times else found


def roles_of(groups: list, given: list[str]) -> dict:
    found = defaultdict(set)
    for group, role in zip(groups, given, strict=True):
        found[group].add(role)
    return found


@pytest.mark.parametrize("seed", range(40))
def test_a_part_is_never_in_two_roles_and_the_share_is_about_a_quarter(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, rng.integers(6, 60))
    parts = [f"p{number}" for number, size in enumerate(sizes) for _ in range(size)]
    rng.shuffle(parts)
    given = roles(normals(parts), seed=seed)
    assert all(len(found) == 1 for found in roles_of(parts, given).values())
    held_out = sum(role in HELD_OUT for role in given)
    assert abs(held_out - len(parts) / 4) <= 1 + max(sizes)
    if held_out >= holdout.ENOUGH_FOR_HALVES:
        counts = [sum(role == name for role in given) for name in ("tune", "calibrate")]
        assert min(counts) > 0
        assert abs(counts[0] - counts[1]) <= max(sizes)
    assert roles(normals(parts), seed=seed) == given


def test_images_of_no_known_part_are_parts_of_their_own():
    parts = ["a"] * 6 + ["b"] * 6 + [None] * 28
    given = roles(normals(parts))
    assert all(len(found) == 1 for found in roles_of(parts[:12], given[:12]).values())
    assert {role in HELD_OUT for role in given[12:]} == {True, False}


def test_without_parts_nothing_changes():
    plain = normals([None] * 50)
    assert table.PART not in plain.column_names
    unknown = plain.append_column(table.PART, pa.array([None] * 50, pa.string()))
    assert roles(unknown) == roles(plain)


def test_a_single_part_cannot_be_held_out_and_it_is_said_why():
    images = normals(["only"] * 12)
    with pytest.raises(
        DataError, match=r"all normal images of tile \(12\) show one part, and parts are held out whole"
    ):
        check_enough(images, roles(images))


def test_times_are_held_out_in_blocks():
    rng = np.random.default_rng(0)
    begin = datetime.datetime(2026, 5, 1)
    times = [begin + datetime.timedelta(minutes=int(minute)) for minute in rng.permutation(400)]
    given = roles(normals([None] * 400, times))
    ordered = [role in HELD_OUT for _, role in sorted(zip(times, given, strict=True))]
    changes = sum(one != other for one, other in itertools.pairwise(ordered))
    assert sum(ordered) == pytest.approx(100, abs=13)
    assert changes <= 2 * holdout.BLOCKS * 0.3 + 2  # singly it would be some 150


@pytest.mark.parametrize("seed", range(30))
def test_groups_come_as_near_to_what_is_wanted_as_half_of_the_smallest_that_is_left(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 12, rng.integers(3, 20)).tolist()
    wanted = int(rng.integers(1, sum(sizes)))
    taken = nearest(sizes, wanted)
    left = [size for at, size in enumerate(sizes) if at not in taken]
    assert len(set(taken)) == len(taken) < len(sizes)
    held = sum(sizes[at] for at in taken)
    if len(left) > 1:
        assert abs(held - wanted) <= min(left) / 2 + max(sizes) / 2
    one, other = halves([sizes[at] for at in taken]) if taken else ([], [])
    assert sorted(one + other) == list(range(len(taken)))


@pytest.mark.parametrize(
    ("pattern", "path", "part"),
    [
        (r"part(\d+)", "line/part12/a.png", "12"),
        (r"(?P<x>\d+)_(?P<part>[a-z]+)", "7_left.png", "left"),
        (r"S\d{4}", "x/S0012_3.png", "S0012"),
        (r"part(\d+)", "other.png", None),
        (r"part(\d*)", "part.png", None),
    ],
)
def test_a_pattern_names_the_part(pattern, path, part):
    assert PartPattern(pattern).part(path) == part


def test_a_pattern_that_is_none_is_refused():
    with pytest.raises(SettingsError, match=r"--part-from '\(' is not a regular expression"):
        PartPattern.parse("(")
    assert PartPattern.parse(None) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve parts under six exposures each, in two categories' layout of normals."""
    rng = np.random.default_rng(0)
    for part in range(12):
        for exposure in range(6):
            place = tmp_path / "tile" / f"exp{exposure}_part{part}.png"
            place.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(place)
    return tmp_path


def test_an_index_names_parts_by_the_images_paths(folder):
    found = survey(str(folder), part_from=PartPattern(r"part(\d+)"))
    parts = found.images[table.PART].to_pylist()
    assert set(parts) == {str(part) for part in range(12)}
    assert all(len(each) == 1 for each in roles_of(parts, roles(found.images)).values())


def test_a_pattern_that_fits_no_path_is_refused(folder):
    with pytest.raises(
        DataError, match="--part-from 'serial' names a part in no image's path; mend it to fit paths as"
    ):
        survey(str(folder), part_from=PartPattern("serial"))


def test_images_whose_part_is_not_known_are_counted(folder):
    (folder / "tile" / "extra.png").write_bytes((folder / "tile" / "exp0_part0.png").read_bytes())
    found = survey(str(folder), part_from=PartPattern(r"part(\d+)"))
    (finding,) = [each for each in found.findings if "nothing says the part" in each.what]
    assert finding.number == 1
    assert "extra.png" in finding.names[0]


def test_a_table_says_the_parts_itself(folder):
    files = sorted((folder / "tile").glob("*.png"))
    lines = ["uri,part,label,split"]
    lines += [f"{file},{file.stem.partition('_')[2]},0,{'test' if 'exp5' in file.stem else 'train'}" for file in files]
    (folder / "t.csv").write_text("\n".join(lines))
    found = survey(str(folder / "t.csv"))
    assert set(found.images[table.PART].to_pylist()) == {f"part{part}" for part in range(12)}
    (finding,) = [each for each in found.findings if "in train and in test" in each.what]
    assert finding.number == 12
    with pytest.raises(DataError, match="the table has a column 'part'; leave --part-from out, or the column"):
        survey(str(folder / "t.csv"), part_from=PartPattern("x"))


def textured(count: int, seed: int) -> np.ndarray:
    """(count, 80, 80, 3): every image has a fine texture of its own."""
    rng = np.random.default_rng(seed)
    return np.repeat(np.clip(rng.normal(120, 35, (count, 80, 80, 1)), 0, 255), 3, 3).astype(np.uint8)


def written(root: Path, images: np.ndarray) -> str:
    (root / "tile").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(root / "tile" / f"{number:04d}.png")
    return str(root)


def findings(root: Path, images: np.ndarray) -> list:
    report = index.index(written(root / "data", images), str(root / "images.parquet"))
    return [each for each in report.findings if each.what == repeats.WHAT]


def test_held_out_images_that_show_the_same_again_are_found(tmp_path):
    """Each part under four exposures, a little brighter and moved by a pixel: hold-out by images splits them."""
    parts = textured(24, 0)
    rng = np.random.default_rng(1)
    shots = [
        np.clip(np.roll(part, rng.integers(-1, 2), 0) * (0.8 + 0.1 * shot) + rng.normal(0, 3, part.shape), 0, 255)
        for part in parts
        for shot in range(4)
    ]
    (found,) = findings(tmp_path, np.array(shots).astype(np.uint8))
    assert found.number >= 12  # of 24 held out
    assert "tile: " in found.names[0]
    assert " repeats " in found.names[1]
    one, other = found.names[1].split(" repeats ")
    assert int(Path(one).stem) // 4 == int(Path(other).stem) // 4


def test_images_of_different_parts_are_not_called_repeats(tmp_path):
    assert not findings(tmp_path, textured(96, 0))


def test_one_design_everywhere_is_not_called_a_repeat(tmp_path):
    """All parts bear the same print, each with a little texture of its own."""
    print_ = textured(1, 5)[0].astype(float)
    rng = np.random.default_rng(2)
    images = np.clip(print_ + rng.normal(0, 12, (96, *print_.shape)), 0, 255).astype(np.uint8)
    assert not findings(tmp_path, images)


def test_a_thumbnail_forgets_brightness_and_contrast():
    image = textured(1, 3)[0]
    darker = (image * 0.6).astype(np.uint8)
    one, other, third = (repeats.thumbnail(each).astype(float).ravel() for each in (image, darker, textured(1, 4)[0]))
    assert np.corrcoef(one, other)[0, 1] > 0.95
    assert abs(np.corrcoef(one, third)[0, 1]) < 0.1
