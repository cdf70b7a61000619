"""Backbones against timm and torch by hand, weights from files, and the U-Net on odd grids. All weights are random."""

import functools
import re
import socket
import time

import huggingface_hub
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from raydiff import storage
from raydiff.errors import SettingsError, StorageError
from raydiff.nn import backbones, hub
from raydiff.nn.backbones import Backbone, BackboneSettings
from raydiff.nn.folding import fold_batch_norms
from raydiff.nn.unet import UNet, UNetSettings

SMALL = "mobilenetv3_small_050"


def settings(**changes):
    return BackboneSettings(**{"name": "resnet18", "weights": "random", "stages": (1, 2), "grid": 4} | changes)


def images(count=2, size=64):
    return torch.randint(256, (count, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def stages_by_hand(backbone, pixels):
    """What timm's network gives for normalised pixels."""
    with torch.no_grad():
        return backbone.net(pixels)


@pytest.mark.parametrize(
    ("name", "stages", "grid", "channels"),
    [
        ("resnet18", (1,), 4, [64]),
        ("resnet18", (1, 2, 3), 7, [64, 128, 256]),
        ("mobilenetv2_100", (0, 1, 2, 3), 5, [16, 24, 32, 96]),
        ("mobilenetv2_100", (2,), 28, [32]),
    ],
)
def test_all_stages_come_on_one_grid(name, stages, grid, channels):
    backbone = Backbone(settings(name=name, stages=stages, grid=grid))
    assert backbone.stage_channels == channels
    assert backbone.channels == sum(channels)
    features = backbone(images())
    assert features.shape == (2, sum(channels), grid, grid)
    assert features.dtype == torch.float32
    assert features.isfinite().all()


def test_the_timm_default_normalisation_is_applied():
    backbone = Backbone(settings(neighbourhood=1, grid=8, stages=(2,)))
    transform = timm.data.resolve_model_data_config(backbone.net)
    mean, std = (torch.tensor(transform[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = (images().permute(0, 3, 1, 2) / 255 - mean) / std
    (stage,) = stages_by_hand(backbone, pixels)
    assert stage.shape[-2:] == (8, 8)  # as large as the grid, so nothing is interpolated
    torch.testing.assert_close(backbone(images()), stage, rtol=1e-4, atol=1e-5)


def test_a_given_normalisation_is_applied():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)
    backbone = Backbone(settings(neighbourhood=1, grid=8, stages=(2,), mean=mean, std=std))
    channels = [(images()[..., c] / 255 - mean[c]) / std[c] for c in range(3)]
    (stage,) = stages_by_hand(backbone, torch.stack(channels, 1))
    torch.testing.assert_close(backbone(images()), stage, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(backbone(images()), Backbone(settings(neighbourhood=1, grid=8, stages=(2,)))(images()))


@pytest.mark.parametrize("width", [2, 3, 5])
def test_the_neighbourhood_average_is_a_mean_over_the_window(width):
    torch.manual_seed(1)
    plain = Backbone(settings(stages=(2,), grid=8, neighbourhood=1))
    torch.manual_seed(1)
    averaged = Backbone(settings(stages=(2,), grid=8, neighbourhood=width))
    stage, found = plain(images()), averaged(images())
    for row in range(8):
        for column in range(8):
            rows = slice(max(0, row - width // 2), row - width // 2 + width)
            columns = slice(max(0, column - width // 2), column - width // 2 + width)
            window = stage[..., rows, columns].mean((2, 3))
            torch.testing.assert_close(found[..., row, column], window, rtol=1e-4, atol=1e-5)


def test_zeros_beyond_the_border_can_count():
    stage = Backbone(settings(stages=(2,), grid=8, neighbourhood=1))(images())
    found = Backbone(settings(stages=(2,), grid=8, neighbourhood=3, neighbourhood_padding="zeros"))(images())
    torch.testing.assert_close(found[..., 0, 0], stage[..., :2, :2].sum((2, 3)) / 9, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[..., 0, 3], stage[..., :2, 2:5].sum((2, 3)) / 9, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[..., 3, 3], stage[..., 2:5, 2:5].mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_the_average_of_a_constant_is_that_constant():
    backbone = Backbone(settings(neighbourhood=3, grid=6))
    constant = torch.full((1, 2, 5, 5), 3.5)
    torch.testing.assert_close(backbone._on_grid(constant), torch.full((1, 2, 6, 6), 3.5))


def test_each_stage_is_averaged_then_interpolated():
    backbone = Backbone(settings(stages=(1, 3), grid=5))
    pixels = (images().permute(0, 3, 1, 2) / 255 - backbone.mean) / backbone.std
    wanted = []
    for stage in stages_by_hand(backbone, pixels):
        padded = F.pad(stage, (1, 1, 1, 1))
        count = F.conv2d(F.pad(torch.ones_like(stage[:1, :1]), (1, 1, 1, 1)), torch.ones(1, 1, 3, 3))
        average = F.unfold(padded, 3).unflatten(1, (-1, 9)).sum(2).unflatten(-1, stage.shape[-2:]) / count
        wanted.append(F.interpolate(average, (5, 5), mode="bilinear", align_corners=False))
    torch.testing.assert_close(backbone(images()), torch.cat(wanted, 1), rtol=1e-4, atol=1e-5)


def test_a_network_with_channels_last_is_turned():
    backbone = Backbone(settings(name="swin_s3_tiny_224", stages=(0, 1), grid=7, timm_options={"img_size": 112}))
    assert backbone(images(1, 112)).shape == (1, sum(backbone.stage_channels), 7, 7)


def test_it_is_frozen():
    backbone = Backbone(settings())
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = backbone(images())
    backbone.train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not features.requires_grad
    assert torch.equal(backbone(images()), features)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(("suffix", "scheme"), [(".safetensors", ""), (".pth", "file://"), (".pth", "memory://")])
def test_weights_from_a_file_are_loaded_to_the_bit(tmp_path, suffix, scheme):
    whole = timm.create_model(SMALL)
    path = tmp_path / f"weights{suffix}"
    save_file(whole.state_dict(), path) if suffix == ".safetensors" else torch.save(whole.state_dict(), path)
    if scheme == "memory://":
        storage.write_bytes(f"memory://{path}", path.read_bytes())
    torch.manual_seed(99)
    backbone = Backbone(settings(name=SMALL, weights=f"{scheme}{path}"))
    given = timm.create_model(SMALL, features_only=True, out_indices=settings(name=SMALL).stages)
    given.load_state_dict(whole.state_dict(), strict=False)
    given.eval()
    fold_batch_norms(given)
    state = backbone.net.state_dict()
    assert len(state) > 100
    for name, value in state.items():
        assert torch.equal(value, given.state_dict()[name]), name
    assert backbone.licence == f"that of {scheme}{path}"


@pytest.mark.parametrize(
    ("name", "stages", "options"),
    [
        ("convnext_atto", (0, 1), {}),  # timm calls its tensors otherwise than in the file
        ("vit_tiny_patch16_224", (0, 3), {"dynamic_img_size": True}),
    ],
)
def test_weights_fit_whatever_timm_makes_of_the_names(tmp_path, name, stages, options):
    whole = timm.create_model(name)
    path = tmp_path / "weights.pth"
    torch.save(whole.state_dict(), path)
    torch.manual_seed(99)
    changes = {"name": name, "stages": stages, "timm_options": options}
    loaded = Backbone(settings(**changes, weights=str(path)))
    reference = timm.create_model(name, features_only=True, out_indices=stages, **options)
    original = {key.replace(".", "_"): value for key, value in whole.state_dict().items()}
    for key, value in loaded.net.state_dict().items():
        assert torch.equal(value, original[key.removeprefix("model.").replace(".", "_")]), key
    assert reference.state_dict().keys() == loaded.net.state_dict().keys()


def test_the_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model(SMALL).state_dict(), path)
    with pytest.raises(SettingsError, match=r"lacks \d+ of the \d+ tensors of 'resnet18' \(the first: conv1\.weight\)"):
        Backbone(settings(weights=str(path)))


def test_tensors_of_another_shape_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("mobilenetv3_small_075").state_dict(), path)
    with pytest.raises(SettingsError, match=rf"weights\.pth does not fit '{SMALL}': .* size mismatch for \S+: .*"):
        Backbone(settings(name=SMALL, weights=str(path)))


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"these are no weights")
    with pytest.raises(SettingsError, match=f"{name} cannot be read as weights"):
        Backbone(settings(weights=str(tmp_path / name)))


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save(timm.create_model(SMALL), tmp_path / "weights.pth")
    with pytest.raises(SettingsError, match=r"weights\.pth cannot be read as weights"):
        Backbone(settings(weights=str(tmp_path / "weights.pth")))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"none\.pth is not there"):
        Backbone(settings(weights=str(tmp_path / "none.pth")))


def test_an_unknown_name_is_refused_with_near_ones():
    with pytest.raises(SettingsError, match=r"no backbone 'resnet_18'; near it: .*resnet18"):
        Backbone(settings(name="resnet_18"))
    with pytest.raises(SettingsError, match="near it: none"):
        Backbone(settings(name="qqqq"))


def test_a_name_may_have_the_tag_of_its_weights():
    backbone = Backbone(settings(name="mobilenetv3_small_050.lamb_in1k"))
    assert backbone.net.pretrained_cfg["tag"] == "lamb_in1k"
    with pytest.raises(SettingsError, match=r"'mobilenetv3_small_050\.nope' .* cannot be built"):
        Backbone(settings(name="mobilenetv3_small_050.nope"))


@pytest.mark.parametrize("changes", [{"stages": (1, 7)}, {"timm_options": {"colour": 3}}])
def test_unknown_stages_and_options_are_refused(changes):
    with pytest.raises(SettingsError, match=r"'resnet18' with stages .* and options .* cannot be built"):
        Backbone(settings(**changes))


def test_an_unreachable_hub_is_explained(monkeypatch):
    built = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise OSError("no route to host")
        return built(name, **options)

    monkeypatch.setattr(backbones.timm, "create_model", offline)
    monkeypatch.setattr(backbones.hub, "check", lambda *asked: None)  # it answers, and then no more
    with pytest.raises(SettingsError) as caught:
        Backbone(settings(weights="hub"))
    for words in ("'resnet18' could not be fetched", "--backbone-weights", "`random`"):
        assert words in str(caught.value)
    Backbone(settings(weights="random"))


@pytest.mark.parametrize("listens", [False, True], ids=["refuses", "is silent"])
@pytest.mark.parametrize("ask", [backbones.check, Backbone])
def test_a_hub_that_cannot_be_reached_is_told_within_seconds(monkeypatch, tmp_path, listens, ask):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if listens:
            silent.listen()
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", place)
        monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.2)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
        begun = time.monotonic()
        with pytest.raises(
            SettingsError, match=re.escape(f"'resnet18' could not be fetched from the model hub ({place}")
        ):
            ask(settings(weights="hub"))
        assert time.monotonic() - begun < 10


def test_weights_in_the_cache_need_no_hub(monkeypatch, tmp_path):
    repo = tmp_path / "models--timm--resnet18.a1_in1k"
    (repo / "snapshots/1").mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        hub, "try_to_load_from_cache", functools.partial(hub.try_to_load_from_cache, cache_dir=tmp_path)
    )
    with pytest.raises(SettingsError, match="HF_HUB_OFFLINE"):
        backbones.check_hub("resnet18")
    (repo / "snapshots/1/model.safetensors").write_bytes(b"")
    backbones.check_hub("resnet18")


@pytest.mark.parametrize("weights", ["hub", "s3://nowhere/weights.pth"])
def test_a_model_folder_brings_its_own_weights(monkeypatch, weights):
    asked = []
    built = timm.create_model

    def noted(name, pretrained, **options):
        asked.append(pretrained)
        return built(name, **options)

    monkeypatch.setattr(backbones.timm, "create_model", noted)
    Backbone(settings(weights=weights), load_weights=False)
    assert asked == [False]


def test_the_licence_is_that_of_the_weights():
    assert Backbone(settings()).licence == "none needed: random weights"
    assert Backbone(settings(weights="hub"), load_weights=False).licence == "apache-2.0"


@pytest.mark.parametrize("grid", [7, 10, 14])
@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 2)])
def test_the_unet_keeps_the_shape_of_any_grid(grid, multipliers):
    unet = UNet(5, UNetSettings(base_channels=8, multipliers=multipliers, attention_levels=(len(multipliers) - 1,)))
    x = torch.randn(2, 5, grid, grid)
    with torch.no_grad():
        found = unet(x, torch.tensor([0, 999]))
        assert found.shape == x.shape
        assert not torch.allclose(found[1], unet(x, torch.tensor([0, 0]))[1])  # the step counts
        assert unet(x[..., :-3], torch.tensor([0, 0])).shape == (2, 5, grid, grid - 3)


def test_the_unet_pads_with_what_is_at_the_edge():
    unet = UNet(3, UNetSettings(base_channels=8, multipliers=(1, 2, 2), attention_levels=()))
    x = torch.randn(1, 3, 6, 6)
    padded = torch.cat([x, x[..., -1:, :].expand(-1, -1, 2, -1)], 2)
    padded = torch.cat([padded, padded[..., -1:].expand(-1, -1, -1, 2)], 3)
    t = torch.tensor([100])
    with torch.no_grad():
        torch.testing.assert_close(unet(x, t), unet(padded, t)[..., :6, :6])


def test_attention_levels_have_attention_and_others_none():
    def attentions(levels):
        net = UNet(3, UNetSettings(base_channels=8, multipliers=(1, 2), attention_levels=levels)).net
        return sum(type(module).__name__ == "Attention" for module in net.modules())

    assert attentions(()) == 0
    assert 0 < attentions((1,)) < attentions((0, 1))


def test_gradients_reach_all_of_the_unet():
    unet = UNet(3, UNetSettings(base_channels=8, multipliers=(1, 2), attention_levels=(1,)))
    unet(torch.randn(2, 3, 7, 7), torch.tensor([3, 700])).square().mean().backward()
    assert all(parameter.grad is not None for parameter in unet.parameters())


def test_random_weights_are_the_same_in_every_worker_and_leave_the_callers_generator_alone():
    settings = BackboneSettings(name="resnet18", weights="random", stages=(1,), grid=4)
    states, draws = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(Backbone(settings).state_dict())
        draws.append(torch.rand(3))
        torch.manual_seed(seed)
        assert torch.equal(draws[-1], torch.rand(3))
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


VIT = {"name": "vit_tiny_patch16_224", "stages": (3, 7), "neighbourhood": 1}


def test_a_transformer_gives_the_tokens_of_its_blocks():
    """At another image size than its own, with position embeddings resampled to it."""
    backbone = Backbone(settings(**VIT, grid=5, final_norm=True))
    whole = timm.create_model(VIT["name"], img_size=80)
    state = {key.removeprefix("model."): value for key, value in backbone.net.state_dict().items()}
    grown = timm.layers.resample_abs_pos_embed(state["pos_embed"], (5, 5), num_prefix_tokens=1)
    whole.load_state_dict(state | {"pos_embed": grown}, strict=False)
    pixels = (images(2, 80).permute(0, 3, 1, 2) / 255 - backbone.mean) / backbone.std
    wanted = whole.eval().forward_intermediates(pixels, indices=[3, 7], intermediates_only=True, norm=True)
    torch.testing.assert_close(backbone(images(2, 80)), torch.cat(wanted, 1), rtol=1e-4, atol=1e-4)
    plain = Backbone(settings(**VIT, grid=5))(images(2, 80))
    assert plain.shape == (2, 2 * 192, 5, 5)
    assert not torch.allclose(plain, torch.cat(wanted, 1), atol=0.1)
