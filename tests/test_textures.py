"""What made anomalies are filled with."""

import pytest
import torch
from conftest import made_images
from PIL import Image

from raydiff import methods
from raydiff.errors import DataError, StorageError
from raydiff.synthesis import textures
from raydiff.synthesis.textures import TextureSources, augmented, procedural_texture, shuffled


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def image(size=40, seed=0):
    return torch.from_numpy(made_images(1, size, seed)[0]).permute(2, 0, 1)


def test_procedural_textures_are_all_different():
    shared = generator()
    drawn = [procedural_texture(48, shared) for _ in range(24)]
    assert {(each.shape, each.dtype) for each in drawn} == {((3, 48, 48), torch.uint8)}
    assert len({each.numpy().tobytes() for each in drawn}) == 24
    assert sum(each.float().std((1, 2)).max() > 5 for each in drawn) >= 20  # a texture, not one flat colour


@pytest.mark.parametrize("size", [32, 40])
def test_shuffled_cells_are_the_images_own(size):
    whole = image(size)
    cells = shuffled(whole, generator())
    assert not torch.equal(cells, whole)
    assert torch.equal(cells.flatten().sort().values, whole.flatten().sort().values)
    cell = size // 8
    first = cells[:, :cell, :cell]
    places = [(y, x) for y in range(0, size, cell) for x in range(0, size, cell)]
    assert any(torch.equal(first, whole[:, y : y + cell, x : x + cell]) for y, x in places)


def test_shuffled_keeps_sizes_that_eight_does_not_divide():
    assert shuffled(image(45), generator()).shape == (3, 45, 45)


def test_every_augmentation_changes_an_image_and_keeps_its_kind():
    for number, change in enumerate(textures._AUGMENTATIONS):
        changed = change(image(), generator(number))
        assert (changed.shape, changed.dtype) == ((3, 40, 40), torch.uint8), number
        assert not torch.equal(changed, image()), number
    assert torch.equal(augmented(image(), generator(5)), augmented(image(), generator(5)))


def test_textures_of_a_folder(tmp_path):
    (tmp_path / "banded").mkdir()
    for number in range(3):
        Image.new("RGB", (20, 30), (80 * number, 0, 0)).save(tmp_path / f"banded/{number}.png")
    (tmp_path / "banded/broken.png").write_bytes(b"no image")
    source = TextureSources([str(tmp_path)], 32)
    drawn = [source.draw(image(32), generator(seed)) for seed in range(8)]
    assert all(each.shape == (3, 32, 32) for each in drawn)
    assert all(each.float().std((1, 2)).max() < 1 for each in drawn)  # flat as the files, not the image


def test_each_source_is_drawn(monkeypatch):
    monkeypatch.setattr(textures, "procedural_texture", lambda size, generator: "procedural")
    monkeypatch.setattr(textures, "shuffled", lambda image, generator: "self")
    source = TextureSources(["procedural", "self"], 40)
    drawn = [source.draw(image(), generator(seed)) for seed in range(40)]
    assert 8 < drawn.count("self") < 32


def test_a_folder_without_a_readable_image(tmp_path):
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"texture source .*none of 1 files is an image that can be read"):
        TextureSources([str(tmp_path)], 32).draw(image(32), generator())


def test_sources_are_looked_at_before_training(tmp_path):
    def check(**changes):
        methods.check({"diffusion_ad": methods.recipe("diffusion_ad", "demo", changes)})

    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"texture source .*empty holds no images"):
        check(texture_sources=["self", str(tmp_path / "empty")])
    with pytest.raises(StorageError, match="gone"):
        check(texture_sources=[str(tmp_path / "gone")])
    (tmp_path / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="none of its 1 files looked at is an image"):
        check(texture_sources=[str(tmp_path)])
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    check(texture_sources=["procedural", str(tmp_path)])
    with pytest.raises(DataError, match=r"foreground .*nowhere is no folder that is there"):
        check(foreground={"bolt": "full", "nut": str(tmp_path / "nowhere")})
    check(foreground={"bolt": "full", "nut": str(tmp_path)})


def test_a_texture_set_may_call_its_folders_as_it_likes(tmp_path):
    for number, name in enumerate(("cracked", "good", "stained/deep", "defects")):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (60 * number, 0, 0)).save(tmp_path / name / "a.png")
    found = textures._read(str(tmp_path), 8)
    assert sorted(int(image[0, 0, 0]) for image in found) == [0, 60, 120, 180]
