"""Regions of interest: what lies outside trains nothing, enters no bank, moves no score, and is zero in every map."""

import base64

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import ListedExamples, fitted, made_images, tiny_score, tiny_settings, with_defect
from PIL import Image

import raydiff
from raydiff import methods
from raydiff.errors import DataError, ImageError, SettingsError
from raydiff.images.regions import check_regions, regions
from raydiff.images.stream import Reading, decode_rows
from raydiff.images.tables import own_table
from raydiff.methods.features import as_vectors
from raydiff.model.folder import Model
from raydiff.model.scorer import examples_of, inputs_of, score_images, tiles_of
from raydiff.nn.positions import PositionGrid, PositionStatistics, in_cells
from raydiff.selection.pseudo_validation import PseudoValidationSettings, made_of
from raydiff.synthesis.made import make_set
from raydiff.views import View, roi
from raydiff.views.region import regions as regions_to_tune_on

LEFT = np.zeros((32, 32), bool)
LEFT[:, :16] = True
IN_LEFT = View(roi={roi.ANY: roi.as_text(LEFT)})
METHODS = pytest.mark.parametrize("name", methods.names())


def noise(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def seen(images: np.ndarray, view: View = IN_LEFT) -> list[np.ndarray]:
    return [view.seen(image, 32) for image in images]


def elsewhere_changed(images: np.ndarray, seed: int = 7) -> np.ndarray:
    """Other pixels in the right half."""
    changed = images.copy()
    changed[:, :, 16:] = noise(len(images), 32, 16, seed)
    return changed


def trained(name: str, images: list[np.ndarray], **changes):
    """A tiny method trained for two steps on images as its view has them."""
    torch.manual_seed(0)
    method = methods.get(name)(tiny_settings(name, view=IN_LEFT.model_dump(), **changes))
    tiles, _ = tiles_of(method, images)
    rows = [{"uri": f"{number}.png", "category": "thing"} for number in range(len(tiles))]
    examples = examples_of(method.eval(), tiles, rows)
    method.fit_statistics(ListedExamples(examples), 0)
    if method.trained is not None:
        optimizer = torch.optim.SGD(method.parameter_groups())
        for step in range(2):
            optimizer.zero_grad()
            method.train()(examples[:4], torch.Generator().manual_seed(step)).backward()
            optimizer.step()
    return method.eval()


@METHODS
def test_what_lies_outside_trains_nothing_and_moves_no_score(name):
    normals = made_images(12)
    one, other = (trained(name, seen(images)) for images in (normals, elsewhere_changed(normals)))
    for (key, tensor), (_, again) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        torch.testing.assert_close(tensor, again, rtol=0, atol=0, msg=key)
    images = made_images(3, seed=3)
    score = tiny_score(name)
    wanted, found = (score_images(one, seen(each), score) for each in (images, elsewhere_changed(images)))
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(found.maps, wanted.maps)
    assert (wanted.maps[:, :, 16:] == 0).all()
    assert (wanted.maps[:, :, :16] != 0).any()
    inside = images.copy()
    inside[:, 8:16, 4:12] = 255 - inside[:, 8:16, 4:12]
    assert (score_images(one, seen(inside), score).scores != wanted.scores).all()


@METHODS
def test_a_region_of_all_is_no_region(name):
    method, _ = fitted(name, made_images(12))
    images = made_images(4, seed=3)
    score = tiny_score(name)
    whole = [roi.with_region(image, np.ones((32, 32), bool)) for image in images]
    wanted, found = score_images(method, images, score), score_images(method, whole, score)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(found.maps, wanted.maps)


def test_an_image_looked_at_whole_scores_alike_beside_one_that_is_not():
    method, _ = fitted("nearest_patch", made_images(12))
    whole, part = made_images(2, seed=3)
    both = score_images(method, [whole, *seen(part[None])], method.ScoreSettings())
    np.testing.assert_array_equal(both.scores[:1], score_images(method, [whole], method.ScoreSettings()).scores)


def test_statistics_and_bank_are_those_of_the_patches_inside():
    images = seen(made_images(12))
    method, examples = fitted("nearest_patch", np.stack(images), view=IN_LEFT.model_dump(), coreset_ratio=1.0)
    inside = method.inside(examples.examples)
    grid = method.settings.backbone.grid
    assert inside.shape == (12, grid, grid)
    assert inside[:, :, : grid // 2].all()
    assert not inside[:, :, grid // 2 :].any()
    raw = as_vectors(examples.examples.float())[inside.flatten()].double()
    torch.testing.assert_close(method.feature_mean[0].double(), raw.mean(0), rtol=1e-5, atol=1e-6)
    assert raw.isfinite().all()
    assert len(method.memory_bank) <= int(inside.sum())
    own = as_vectors(method.standardised(examples.examples))[inside.flatten()]
    assert float(torch.cdist(method.memory_bank.double(), own.double()).amin(1).max()) < 1e-3


def test_the_loss_of_lafite_is_that_of_the_patches_inside(monkeypatch):
    method, examples = fitted("lafite", np.stack(seen(made_images(6))), view=IN_LEFT.model_dump())
    given = {}

    def predict(x, t):
        given["output"] = torch.sin(x)
        return given["output"]

    def target(clean, noise, t):
        given["target"] = noise
        return noise

    monkeypatch.setattr(method, "_predict", predict)
    monkeypatch.setattr(method.diffusion, "target", target)
    loss = method(examples.examples[:2], torch.Generator().manual_seed(0))
    errors = (given["output"] - given["target"]).square()
    inside = method.inside(examples.examples[:2])[:, None].expand_as(errors)
    assert float(loss) == pytest.approx(float(errors[inside].mean()), rel=1e-6)
    assert float(loss) != pytest.approx(float(errors.mean()), rel=1e-3)


def test_what_fills_a_tile_trains_nothing():
    view = View(tile=32, overlap=8)
    torch.manual_seed(0)
    method = methods.get("nearest_patch")(tiny_settings("nearest_patch", view=view.model_dump())).eval()
    tiles, _ = tiles_of(method, [noise(1, 20, 32)[0], noise(1, 32, 32, 1)[0]])
    assert tiles.shape == (2, 32, 32, 4)
    np.testing.assert_array_equal(tiles[0, :, :, 3], np.repeat([255] * 20 + [0] * 12, 32).reshape(32, 32))
    assert (tiles[1, :, :, 3] == 255).all()
    inside = method.inside(examples_of(method, tiles))
    grid = method.settings.backbone.grid
    np.testing.assert_array_equal(inside[0].all(1), np.arange(grid) * 32 // grid < 20)
    assert inside[1].all()


@METHODS
def test_a_region_of_tiles(name):
    view = View(tile=32, overlap=8, roi={roi.ANY: roi.as_text(np.arange(80)[None, :].repeat(50, 0) < 30)})
    method, _ = fitted(name, np.stack(seen(made_images(12))), view=view.model_dump())
    image, other = noise(2, 50, 80)
    other[:, :30] = image[:, :30]
    score = tiny_score(name)
    one, again = (score_images(method, [view.seen(each, 32)], score) for each in (image, other))
    assert one.maps[0].shape == (50, 80)
    np.testing.assert_array_equal(one.maps[0], again.maps[0])
    assert (one.maps[0][:, 30:] == 0).all()
    assert one.scores[0] == again.scores[0]


def test_no_score_is_read_outside():
    """Position statistics make a normal map negative; zero outside would be its highest place."""
    method, _ = fitted("nearest_patch", np.stack(seen(made_images(12))), view=IN_LEFT.model_dump())
    images = seen(made_images(8, seed=5))
    score = method.ScoreSettings()
    plain = score_images(method, images, score)
    grid = {"mean": [[1e6, 1e6], [1e6, 1e6]], "deviation": [[1.0, 1.0], [1.0, 1.0]]}
    positions = PositionStatistics.parse({"categories": {}, "all": grid})
    found = score_images(method, images, score, positions)
    assert (found.scores < -1e5).all()
    assert (found.maps[:, :, 16:] == 0).all()
    assert (plain.scores > 0).all()


def test_cells_are_the_means_of_what_is_inside():
    rng = np.random.default_rng(0)
    maps, inside = rng.normal(size=(3, 12, 12)), rng.random((3, 12, 12)) < 0.6
    inside[:, :4, :4] = False
    found = in_cells(torch.from_numpy(maps * inside), 3, torch.from_numpy(inside))
    for number in range(3):
        for y in range(3):
            for x in range(3):
                place = np.s_[number, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
                if (y, x) == (0, 0):
                    assert found[number, y, x].isnan()
                else:
                    assert float(found[number, y, x]) == pytest.approx(maps[place][inside[place]].mean(), rel=1e-4)
    grid = PositionGrid.of(found)
    assert np.isfinite([grid.mean, grid.deviation]).all()


def test_made_anomalies_lie_inside():
    images = np.stack(seen(made_images(6, 32)))
    made = made_of(images, PseudoValidationSettings(normals=6, anomalies=24), 0)
    assert made.images.shape == (24, 32, 32, 4)
    assert made.masks.any((1, 2)).all()
    assert not made.masks[:, ~LEFT].any()
    for number, image in enumerate(made.images):
        np.testing.assert_array_equal(image[~LEFT], images[number % 6][~LEFT])
        assert (image[made.masks[number]] != images[number % 6][made.masks[number]]).any()


def test_without_regions_the_same_anomalies_are_made():
    images = made_images(4, 32)
    wanted = make_set(images, 12, 3)
    found = make_set(images, 12, 3, inside=np.ones((4, 32, 32), bool))
    np.testing.assert_array_equal(found.images, wanted.images)
    np.testing.assert_array_equal(found.masks, wanted.masks)


def test_regions_to_tune_on_have_something_of_the_part_in_them():
    view = View(tile=32, overlap=8)
    mark = np.zeros((200, 300), bool)
    mark[150:154, 20:24] = True
    images = [roi.with_region(image, mark) for image in noise(8, 200, 300)]
    found = regions_to_tune_on(images, view, 32, 0)
    assert found.shape == (8, 56, 56, 4)
    assert (found[..., 3] > 0).any((1, 2)).all()


def test_a_region_is_that_of_the_image_cropped_and_scaled():
    inside = np.zeros((40, 60), bool)
    inside[10:30, 20:40] = True
    view = View(tile=20, scale=0.5, crop=(20, 0, 60, 40), roi={roi.ANY: roi.as_text(inside)})
    image = noise(1, 80, 120)[0]  # the mask is of half its size
    found = view.changed(crop=(40, 0, 120, 80)).seen(image, 32)
    assert found.shape == (64, 64, 4)
    wanted = np.zeros((64, 64), bool)
    wanted[16:48, :32] = True
    np.testing.assert_array_equal(found[..., 3] > 0, wanted)
    np.testing.assert_array_equal(found[50:, 40:, :3], np.broadcast_to(roi.PAINT, (14, 24, 3)))


def test_auto_is_the_hull_of_the_product():
    image = np.full((300, 400, 3), 20, np.uint8)
    image[100:200, 150:250] = 200
    image[140:160, 190:210] = 20  # a hole
    image[150:200, 220:235] = 20  # a piece is missing
    image[20:26, 380:386] = 200  # a speck
    found = View(fit="pad", roi="auto").seen(image, 64)
    inside = found[..., 3] > 0
    assert found.shape == (48, 64, 4)
    assert inside[16:32, 24:40].all()
    assert not inside[:12].any()
    assert not inside[:, 46:].any()
    triangle = np.zeros((64, 64, 3), np.uint8)
    triangle[np.tri(64, dtype=bool)[::-1]] = 255
    triangle[:8] = triangle[-8:] = triangle[:, :8] = triangle[:, -8:] = 0
    shown = View(roi="auto").seen(triangle, 64)[..., 3] > 0
    assert shown[10, 10]
    assert not shown[50, 50]
    assert View(roi="auto").seen(noise(1, 64, 64)[0], 64)[..., 3].all()  # a texture is looked at everywhere


def test_a_region_a_category():
    top = LEFT.T.copy()
    view = View(roi={"bolt": roi.as_text(LEFT), "nut": roi.as_text(top)})
    (image,) = noise(1, 32, 32)
    for category, wanted in (("bolt", LEFT), ("nut", top)):
        np.testing.assert_array_equal(view.seen(image, 32, category)[..., 3] > 0, wanted)
    with pytest.raises(
        ImageError, match=r"a region of interest a category \(bolt, nut\), and its category cog has none"
    ):
        view.seen(image, 32, "cog")
    with pytest.raises(ImageError, match="its category is not known"):
        view.seen(image, 32)
    np.testing.assert_array_equal(view.seen(image, 32, "cog", LEFT)[..., 3] > 0, LEFT)  # one of its own


def test_regions_are_part_of_a_saved_model(tmp_path):
    method, _ = fitted("nearest_patch", np.stack(seen(made_images(8))), view=IN_LEFT.model_dump())
    other = method.settings.changed(view=View(roi={roi.ANY: roi.as_text(~LEFT)}).model_dump())
    model = Model(method, method.ScoreSettings())
    model.save(str(tmp_path / "model"))
    again = raydiff.load(str(tmp_path / "model"), "cpu")
    images = list(made_images(3, seed=2))
    np.testing.assert_array_equal(again.score(images).scores, model.score(images).scores)
    assert again.view == IN_LEFT
    method.settings = other
    assert Model(method, method.ScoreSettings()).id != again.id


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no picture", "is none"),
        (base64.b64encode(b"no picture").decode(), "is none"),
        (roi.as_text(np.zeros((4, 4), bool)), "without a white pixel would show nothing"),
    ],
)
def test_a_region_that_is_none(text, told):
    with pytest.raises(SettingsError, match=told):
        View.parse({"roi": {"bolt": text}})


def save_mask(place, inside: np.ndarray) -> str:
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(inside).convert("L").save(place)
    return str(place)


def test_roi_as_it_is_given(tmp_path):
    one = save_mask(tmp_path / "one.png", LEFT)
    assert regions("auto") == "auto"
    np.testing.assert_array_equal(roi.from_text(regions(one)[roi.ANY]), LEFT)
    save_mask(tmp_path / "each/bolt.png", LEFT)
    save_mask(tmp_path / "each/nut.bmp", ~LEFT)
    (tmp_path / "each/notes.txt").write_text("left and right")
    found = regions(str(tmp_path / "each"))
    assert sorted(found) == ["bolt", "nut"]
    np.testing.assert_array_equal(roi.from_text(found["nut"]), ~LEFT)
    images = pa.table({"category": ["bolt", "cog"]})
    check_regions(IN_LEFT, images)
    with pytest.raises(DataError, match=r"no region of interest for cog; --roi named bolt, nut: add a mask cog\.png"):
        check_regions(View(roi=found), images)
    check_regions(View(roi=found), images.append_column("roi_uri", pa.array([None, one])))
    empty = save_mask(tmp_path / "empty.png", LEFT & False)
    with pytest.raises(SettingsError, match=r"--roi .*empty\.png: no pixel is white, and white is where to look"):
        regions(empty)
    (tmp_path / "none").mkdir()
    with pytest.raises(SettingsError, match=r"the folder holds no masks; name one CATEGORY\.png"):
        regions(str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=r"roi=mask\.png in --view: give a mask, .* by --roi mask\.png"):
        View.values("tile=32,roi=mask.png")
    assert View.parse(View.values("roi=auto")).roi == "auto"


def test_an_images_own_region_in_its_table(tmp_path):
    images = with_defect(made_images(4, 40))
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    left = np.zeros((40, 40), bool)
    left[:, :20] = True
    save_mask(tmp_path / "masks/left.png", left)
    save_mask(tmp_path / "masks/none.png", left & False)
    named = ("masks/left.png", "", "masks/none.png", "masks/gone.png")
    lines = [f"{number}.png,{mask}" for number, mask in enumerate(named)]
    (tmp_path / "images.csv").write_text("\n".join(["uri,roi_uri", *lines]))
    rows = own_table.read(str(tmp_path / "images.csv"))
    assert rows["roi_uri"].to_pylist()[:2] == [str(tmp_path / "masks/left.png"), None]
    found = decode_rows(rows, Reading(32))
    np.testing.assert_array_equal(found["image"][0][..., 3] > 0, LEFT)
    assert found["image"][1].shape == (32, 32, 3)
    assert "no pixel is white" in found["error"][2]
    assert found["error"][3].startswith(f"its region of interest, {tmp_path}/masks/gone.png: ")
    again = decode_rows(rows, Reading(32), careful=True)
    assert again["error"].tolist() == found["error"].tolist()
    method, _ = fitted("nearest_patch", made_images(8))
    mixed = inputs_of(method, found["image"][:2])
    np.testing.assert_array_equal(mixed.inside[0], LEFT)
    assert mixed.inside[1].all()
