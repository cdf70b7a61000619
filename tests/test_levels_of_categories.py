"""Levels of a category's own: `--bit-depth bolt=12`, wherever an image of a known category is read."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import typer.testing
from conftest import fitted, made_images
from index_report import look
from PIL import Image

import raydiff
from raydiff import cli, cluster, steps
from raydiff.cli.method_settings import with_levels
from raydiff.errors import DataError, SettingsError
from raydiff.images.decode import decode
from raydiff.images.levels import Levels
from raydiff.images.stream import Reading, decode_rows
from raydiff.images.tables import own_table
from raydiff.model.description import describe
from raydiff.model.folder import Model
from raydiff.scoring.service import Arguments, Service

TWELVE = np.random.default_rng(0).integers(0, 4096, (40, 40), dtype=np.uint16)
BY_CATEGORY = Levels.parse(
    {"bit_depth": 10, "categories": {"bolt": {"bit_depth": 12}, "nut": {"low": 0, "high": 9000}}}
)
WHITES = {"bolt": 4095, "nut": 9000, "screw": 1023, None: 1023}


def png(values: np.ndarray) -> bytes:
    Image.fromarray(values).save(sink := io.BytesIO(), "PNG")
    return sink.getvalue()


def shown(white: int) -> np.ndarray:
    """TWELVE, before it is rounded."""
    return 255 * np.clip(TWELVE / white, 0, 1)


def test_levels_of_a_category() -> None:
    data = png(TWELVE)
    for category, white in WHITES.items():
        assert np.abs(decode(data, levels=BY_CATEGORY.of(category))[..., 0] - shown(white)).max() <= 0.5 + 1e-6
    only = Levels.parse({"categories": {"bolt": {"bit_depth": 12}}})
    twelve = Levels(bit_depth=12)
    assert only.of("bolt") == twelve
    assert only.of("screw") is only.of(None) is None
    np.testing.assert_array_equal(decode(data, levels=only), decode(data))  # of no category
    assert twelve.of("bolt") == twelve
    assert BY_CATEGORY.option() == "--bit-depth 10 --bit-depth bolt=12 --levels nut=0,9000"
    with pytest.raises(SettingsError, match="give it no categories"):
        Levels.parse({"categories": {"bolt": {"bit_depth": 12, "categories": {"nut": {"bit_depth": 10}}}}})
    assert "categories" not in twelve.model_dump()  # so that models from before there were any keep their ids


def test_each_row_is_read_by_its_category(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(TWELVE))
    (tmp_path / "2.png").write_bytes(b"no image")
    names = ["bolt", "nut", "screw"]
    rows = pa.table({"uri": [str(tmp_path / "1.png")] * 3 + [str(tmp_path / "2.png")], "category": [*names, "bolt"]})
    found, careful = (decode_rows(rows, Reading(40, levels=BY_CATEGORY), careful=each) for each in (False, True))
    for place, name in enumerate(names):
        assert np.abs(found["image"][place][..., 0] - shown(WHITES[name])).max() <= 0.5 + 1e-6
    assert "this is no PNG" in found["error"][3]
    for column in ("image", "error", "height"):
        np.testing.assert_array_equal(found[column], careful[column])


def test_a_row_of_a_table_may_say_its_cameras_depth(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(TWELVE))
    (tmp_path / "b.png").write_bytes(png(TWELVE // 4))
    (tmp_path / "t.csv").write_text("\n".join(["uri,category,bit depth", "a.png,screw,12", "b.png,bolt,10.0"]))
    rows = own_table.read(str(tmp_path / "t.csv"))
    assert rows["bit_depth"].to_pylist() == [12, 10]
    found, careful = (decode_rows(rows, Reading(40, levels=BY_CATEGORY), careful=each) for each in (False, True))
    assert np.abs(found["image"][0][..., 0] - shown(4095)).max() <= 0.5 + 1e-6  # and not 1,023, as of a screw
    assert np.abs(found["image"][1][..., 0] - 255.0 * (TWELVE // 4) / 1023).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(found["image"], careful["image"])
    (tmp_path / "t.csv").write_text("\n".join(["uri,category,bit_depth", "a.png,screw,", "b.png,bolt,10"]))
    empty = decode_rows(own_table.read(str(tmp_path / "t.csv")), Reading(40, levels=BY_CATEGORY))
    assert np.abs(empty["image"][0][..., 0] - shown(1023)).max() <= 0.5 + 1e-6
    (tmp_path / "t.csv").write_text("uri,bit_depth\na.png,12\nb.png,11")
    with pytest.raises(DataError, match=r"column 'bit_depth', row 2 .*'?11'? is none of 10, 12, 14; leave it empty"):
        own_table.read(str(tmp_path / "t.csv"))


def test_a_model_reads_each_category_by_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, _ = fitted("nearest_patch", made_images(8, 32), levels=BY_CATEGORY.model_dump())
    Model(method, method.ScoreSettings()).save(str(tmp_path))
    model = raydiff.load(str(tmp_path), "cpu")
    assert model.levels == BY_CATEGORY
    assert Levels.kept(describe(str(tmp_path))["settings"]["train"]) == BY_CATEGORY
    monkeypatch.setattr(cluster, "use_assigned_device", lambda: "cpu")
    service = Service(Arguments(model=str(tmp_path)))
    for category, white in WHITES.items():
        seen = np.rint(shown(white)).astype(np.uint8)
        wanted = model.score([np.repeat(seen[..., None], 3, 2)], [category]).scores[0]
        assert service.answer(png(TWELVE), category)["score"] == wanted
        assert model.score_seen([model.seen(png(TWELVE), category).pixels], [category]).scores[0] == wanted


def write_deep(folder: Path, highest: dict[str, int]) -> Path:
    """A folder for each category, of 16-bit images whose highest value is given."""
    for category, value in highest.items():
        (folder / category).mkdir(parents=True)
        for number in range(3):
            values = np.zeros((8, 8), np.uint16)
            values[number, 0] = value
            (folder / category / f"{number}.png").write_bytes(png(values))
    return folder


@pytest.mark.parametrize(
    ("highest", "said"),
    [
        ({"bolt": 4000, "nut": 800}, ["16-bit images all of whose values lie below 4,096.*--bit-depth 12: 6"]),
        ({"bolt": 4000, "nut": 60_000}, ["16-bit images of bolt all .* below 4,096.*--bit-depth bolt=12: 3"]),
        ({"bolt": 200, "nut": 60_000}, ["16-bit images of bolt all .* below 256.*--levels bolt=0,255: 3"]),
        ({"bolt": 20_000, "nut": 60_000}, []),
    ],
)
def test_index_says_which_category_is_dark(tmp_path: Path, highest: dict[str, int], said: list[str]) -> None:
    found = look(write_deep(tmp_path / "data", highest))
    lines = [line for line in found.splitlines() if "look dark" in line]
    assert len(lines) == len(said)
    for line, pattern in zip(lines, said, strict=True):
        assert re.match(pattern, line)


def test_levels_of_a_category_that_is_not_there(tmp_path: Path) -> None:
    folder = write_deep(tmp_path / "data", {"bolt": 4000, "nut": 60_000})
    assert "read with --bit-depth bolt=12: train" in look(folder, Levels.of_options(["bolt=12"], None))
    with pytest.raises(
        SettingsError, match=r"levels are given for 'blot', which is no category .*: they have bolt, nut"
    ):
        look(folder, Levels.of_options(["blot=12"], None))


def test_the_command_line_reads_a_depth_for_each_category(tmp_path: Path) -> None:
    folder = write_deep(tmp_path / "data", {"bolt": 4000, "nut": 1000})
    runner = typer.testing.CliRunner()
    where = ["--data", str(folder), "--out", str(tmp_path / "run")]
    found = runner.invoke(cli.app, ["index", *where, "--bit-depth", "bolt=12", "--bit-depth", "nut=10"])
    assert found.exception is None
    with pytest.raises(SettingsError, match="'blot', which is no category"):
        raise runner.invoke(cli.app, ["index", *where, "--levels", "blot=0,9"]).exception
    settings = with_levels({}, ["blot=12"], None)
    with pytest.raises(SettingsError, match="'blot', which is no category"):
        steps.check_recipe(str(tmp_path / "run"), "nearest_patch", "demo", settings)
