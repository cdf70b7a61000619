"""Roles of images: properties over many tables."""

from __future__ import annotations

from collections import Counter, defaultdict

import pyarrow as pa
import pytest

from raydiff.errors import SettingsError
from raydiff.images import table
from raydiff.images.holdout import roles

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


def test_images_of_unknown_label_in_train_are_normals() -> None:
    assert by_category(images({"a": 8}, label=None))["a"] == {"fit": 6, "tune+calibrate": 2, "test": 3}


def test_categories_without_normals_and_an_empty_table() -> None:
    assert roles(images({"a": 0})) == ["test"] * 3
    assert roles(table.SCHEMA.empty_table()) == []


@pytest.mark.parametrize("holdout", [-0.1, 1.0, 2.0, float("nan")])
def test_a_share_out_of_range(holdout: float) -> None:
    with pytest.raises(SettingsError, match="at least 0, below 1"):
        roles(images({"a": 3}), holdout=holdout)
