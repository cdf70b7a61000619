"""Roles of images: properties over many tables."""

from __future__ import annotations

from collections import Counter, defaultdict

import pyarrow as pa
import pytest

from raydiff.errors import DataError, SettingsError
from raydiff.images import table
from raydiff.images.holdout import check_enough, roles

HELD_OUT = {"tune", "calibrate", "tune+calibrate"}


def images(
    counts: dict[str, int], root: str = "/data", test: int = 3, label: int | None = 0, anomalous: int = 0
) -> pa.Table:
    rows = []
    for category, count in counts.items():
        groups = [("train", "good", label, count), ("test", "x", 1, test), ("train", "bad", 1, anomalous)]
        for split, defect, value, number in groups:
            for i in range(number):
                uri = f"{root}/{category}/{split}/{defect}/{i:04d}.png"
                rows.append((uri, "data", category, split, value, defect, None))
    columns = zip(*sorted(rows), strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, table.SCHEMA, strict=True)], table.SCHEMA)


def by_category(found: pa.Table, **options: float) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for category, role in zip(found["category"].to_pylist(), roles(found, **options), strict=True):
        counts[category][role] += 1
    return counts


def by_uri(found: pa.Table, root: str, **options: int) -> dict[str, str]:
    uris = (uri.removeprefix(root) for uri in found["uri"].to_pylist())
    return dict(zip(uris, roles(found, **options), strict=True))


@pytest.mark.parametrize(
    ("normals", "expected"),
    [
        (1, {"fit": 1}),
        (3, {"fit": 3}),
        (4, {"fit": 3, "tune+calibrate": 1}),
        (7, {"fit": 6, "tune+calibrate": 1}),
        (8, {"fit": 6, "tune+calibrate": 2}),
        (11, {"fit": 9, "tune+calibrate": 2}),
        (12, {"fit": 9, "tune+calibrate": 3}),
        (79, {"fit": 60, "tune+calibrate": 19}),
        (80, {"fit": 60, "tune": 10, "calibrate": 10}),
        (87, {"fit": 66, "tune": 11, "calibrate": 10}),
        (320, {"fit": 240, "tune": 40, "calibrate": 40}),
    ],
)
def test_counts_of_the_default_share(normals: int, expected: dict[str, int]) -> None:
    assert by_category(images({"a": normals}, test=0))["a"] == expected


@pytest.mark.parametrize("holdout", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("normals", [1, 2, 7, 8, 20, 21, 100, 999])
def test_every_row_has_one_role_and_the_share_holds(holdout: float, normals: int) -> None:
    counts = by_category(images({"a": normals, "b": 5}, anomalous=4), holdout=holdout)["a"]
    assert counts["test"] == 3
    assert counts["unused"] == 4
    held_out = sum(counts[role] for role in HELD_OUT)
    assert counts["fit"] + held_out == normals
    assert counts["fit"] >= 1
    assert held_out == max(int(normals * holdout), 2 if holdout and normals >= 8 else 0)
    assert 0 <= counts["tune"] - counts["calibrate"] <= 1
    assert bool(counts["tune"]) == (held_out >= 20)
    assert not (counts["tune"] and counts["tune+calibrate"])


def test_roles_do_not_depend_on_place_order_or_other_categories() -> None:
    here = by_uri(images({"a": 100, "b": 9}), "/data")
    for root in ("s3://bucket/moved", "memory:///x", "/deep/er/place"):
        assert by_uri(images({"a": 100, "b": 9}, root), root) == here
    more = by_uri(images({"a": 100, "b": 9, "c": 50}, test=8, anomalous=2), "/data")
    assert here.items() <= more.items()
    found = images({"a": 100, "b": 9})
    backwards = found.take(list(range(len(found)))[::-1])
    assert by_uri(backwards, "/data") == here


def test_roles_of_flat_folders_move_with_them_too() -> None:
    def flat(root: str) -> pa.Table:
        rows = images({"a": 60}, test=0)
        return rows.set_column(0, "uri", pa.array([f"{root}/{i}.png" for i in range(60)]))

    assert by_uri(flat("/x/bolts"), "/x/bolts") == by_uri(flat("s3://b/elsewhere"), "s3://b/elsewhere")


def test_uris_of_several_places_in_one_category() -> None:
    found = images({"a": 30}, test=0)
    mixed = [uri if i % 2 else f"s3:/{uri}" for i, uri in enumerate(found["uri"].to_pylist())]
    assert Counter(roles(found.set_column(0, "uri", pa.array(mixed)))) == {"fit": 23, "tune+calibrate": 7}


def test_the_seed_decides_and_choices_are_spread() -> None:
    found = images({"a": 200}, test=0)
    assert roles(found, seed=1) == roles(found, seed=1)
    assert roles(found, seed=1) != roles(found, seed=2)
    times = Counter(i for seed in range(40) for i, role in enumerate(roles(found, seed=seed)) if role in HELD_OUT)
    assert len(times) == 200  # every image is held out by some seed ...
    assert max(times.values()) < 25  # ... and none by nearly all: 10 expected, 5 standard deviations


def test_images_of_unknown_label_in_train_are_not_trained_on() -> None:
    assert by_category(images({"a": 8}, label=None))["a"] == {"unused": 8, "test": 3}


def test_categories_without_normals_and_an_empty_table() -> None:
    assert roles(images({"a": 0})) == ["test"] * 3
    assert roles(table.SCHEMA.empty_table()) == []


@pytest.mark.parametrize("holdout", [-0.1, 1.0, 2.0, float("nan")])
def test_a_share_out_of_range(holdout: float) -> None:
    with pytest.raises(SettingsError, match="at least 0, below 1"):
        roles(images({"a": 3}), holdout=holdout)


def given_up(counts: dict[str, int], per_category: bool = False, unreadable=()) -> str:
    """Why a run of so many normals a category is refused; empty where it is not."""
    found = images(counts)
    try:
        check_enough(found, roles(found), per_category, unreadable)
    except DataError as error:
        return str(error)
    return ""


def test_too_few_normals_are_refused_with_their_numbers() -> None:
    assert given_up({"a": 8}) == ""
    assert given_up({"a": 8, "b": 1}) == ""  # b is fitted, and takes the threshold of all
    assert "(a 7); give at least 8 that can be read of one category" in given_up({"a": 7})
    assert "(a 1, b 3)" in given_up({"a": 1, "b": 3})
    assert "there is no normal image to train on (none was found)" in given_up({"a": 0})
    many = given_up(dict.fromkeys("abcdefg", 2))
    assert "(a 2, b 2, c 2, d 2, e 2 and 2 more)" in many


def test_each_category_has_to_have_enough_for_a_model_of_its_own() -> None:
    assert given_up({"a": 8, "b": 9}, per_category=True) == ""
    said = given_up({"a": 8, "b": 3}, per_category=True)
    assert "(b 3)" in said
    assert "leave --per-category out" in said
    assert given_up({"a": 8, "b": 0}, per_category=True) == ""  # b is there to be tested only


def test_what_cannot_be_read_counts_for_nothing() -> None:
    found = images({"a": 8})
    by_role = dict(zip(found["uri"].to_pylist(), roles(found), strict=True))
    held_out = [uri for uri, role in by_role.items() if role == "tune+calibrate"]
    fit = [uri for uri, role in by_role.items() if role == "fit"]
    assert given_up({"a": 8}, unreadable=fit[:5]) == ""
    assert "(a 7 and 1 that cannot be read)" in given_up({"a": 8}, unreadable=held_out[:1])
    assert "(a 2 and 6 that cannot be read)" in given_up({"a": 8}, unreadable=fit)
    assert "all 8 that were found cannot be read" in given_up({"a": 8}, unreadable=fit + held_out)
