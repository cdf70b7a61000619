"""Autoencoders that are given to GLAD against diffusers' own, on folders and files of tiny random networks."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import ListedExamples, made_images, tiny_settings
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file

import raydiff
from raydiff.errors import SettingsError
from raydiff.methods.glad import GLAD, GLADScore
from raydiff.model.scorer import examples_of
from raydiff.nn import given_autoencoder, tiny_autoencoder
from raydiff.training.loop import TrainingLoop

SCORE = GLADScore(start_step=300, denoising_steps=2, least_step=0, switch_distance=None)
TINY = {
    "encoder_block_out_channels": (8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8),
    "num_encoder_blocks": (1, 2, 1),
    "num_decoder_blocks": (2, 1, 1),
    "latent_channels": 5,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The two folders, and the tiny network's weights as a file by either kind of names, factor 4 all of them."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("autoencoders")
    tiny = AutoencoderTiny(**TINY)
    tiny.save_pretrained(root / "tiny")
    AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        norm_num_groups=8,
        latent_channels=3,
        scaling_factor=0.3,
    ).save_pretrained(root / "kl")
    state = tiny.state_dict()
    save_file(state, root / "diffusers_names.safetensors")
    save_file({_taesd(name): value.clone() for name, value in state.items()}, root / "taesd_names.safetensors")
    pooled = tiny_autoencoder.build({**TINY, "pooled": True})
    with torch.no_grad():
        for name, value in pooled.named_parameters():
            if ".pool." in name:
                value.normal_(generator=torch.Generator().manual_seed(len(name)))
    state = {_taesd(name): value.half() for name, value in pooled.state_dict().items()}
    save_file(state, root / "pooled.safetensors")
    return root


def _taesd(name):
    side, _, place, rest = name.split(".", 3)
    return f"{side}.{int(place) + (side == 'decoder')}.{rest}"


def given(place, **changes):
    return tiny_settings("glad", autoencoder=str(place), train_steps=3, **changes)


def trained(place):
    torch.manual_seed(0)
    method = GLAD(given(place)).eval()
    examples = ListedExamples(examples_of(method, made_images(8)))
    method.fit_statistics(examples, 0)
    loop = TrainingLoop(method, examples, seed=0)
    while not loop.finished:
        loop.advance()
    return loop.finish()


every_place = pytest.mark.parametrize("place", ["tiny", "kl", "taesd_names.safetensors", "pooled.safetensors"])


@pytest.mark.parametrize("place", ["tiny", "diffusers_names.safetensors", "taesd_names.safetensors"])
def test_a_tiny_autoencoder_is_diffusers_own(places, place):
    codec = given_autoencoder.load(str(places / place), 32)
    own = AutoencoderTiny.from_pretrained(places / "tiny", low_cpu_mem_usage=False).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        latents = codec.encode(images)
        torch.testing.assert_close(latents, own.encode(2 * images - 1).latents)
        torch.testing.assert_close(codec.decode(latents), ((own.decode(latents).sample + 1) / 2).clamp(0, 1))
    assert (codec.channels, codec.factor) == (5, 4)


def test_a_kl_autoencoder_is_diffusers_own(places):
    codec = given_autoencoder.load(str(places / "kl"), 32)
    own = AutoencoderKL.from_pretrained(places / "kl", low_cpu_mem_usage=False).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        latents = codec.encode(images)
        torch.testing.assert_close(latents, own.encode(2 * images - 1).latent_dist.mode())
        torch.testing.assert_close(codec.decode(latents), ((own.decode(latents).sample + 1) / 2).clamp(0, 1))
    assert (codec.channels, codec.factor) == (3, 4)


def test_the_coarsest_blocks_add_what_a_group_norm_tells(places):
    """By hand, from the file's own tensors: a convolution of one pixel, the norm in four groups, and back."""
    state = {name: value.float() for name, value in load_file(places / "pooled.safetensors").items()}
    codec = given_autoencoder.load(str(places / "pooled.safetensors"), 32)
    x = torch.randn(2, 8, 4, 4)
    for side, first in (("encoder", 6), ("decoder", 3)):  # in taesd's count
        wide = torch.einsum("oi,nihw->nohw", state[f"{side}.{first}.pool.0.weight"][..., 0, 0], x)
        groups = wide.reshape(2, 4, -1)
        normed = (groups - groups.mean(2, keepdim=True)) / (groups.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
        weight, bias = (state[f"{side}.{first}.pool.1.{part}"].view(1, -1, 1, 1) for part in ("weight", "bias"))
        added = torch.einsum(
            "oi,nihw->nohw",
            state[f"{side}.{first}.pool.3.weight"][..., 0, 0],
            (normed.view_as(wide) * weight + bias).relu(),
        )
        block = codec.net.get_submodule(f"{side}.layers.{first - (side == 'decoder')}")
        inner = x + added
        torch.testing.assert_close(block(x), (block.conv(inner) + inner).relu(), atol=1e-4, rtol=1e-4)
    blocks = [m for m in codec.net.modules() if isinstance(m, tiny_autoencoder.PooledBlock)]
    assert len(blocks) == 1 + 2


@every_place
@torch.no_grad()
def test_latents_of_the_training_images_have_zero_mean_and_unit_variance(places, place):
    method = GLAD(given(places / place)).eval()
    images = made_images(7)
    method.fit_statistics(ListedExamples(examples_of(method, images)), 0)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
    latents = method._encode(pixels)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(latents.shape[1]), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3), correction=0), torch.ones(latents.shape[1]), atol=1e-3, rtol=0)
    plain = given_autoencoder.load(str(places / place), 32)
    torch.testing.assert_close(method._decode(latents), plain.decode(plain.encode(pixels)), atol=1e-4, rtol=1e-4)


@every_place
def test_a_model_folder_needs_nothing_of_the_autoencoder_it_was_given(places, place, tmp_path):
    copy = tmp_path / place
    (shutil.copytree if (places / place).is_dir() else shutil.copy)(places / place, copy)
    model = raydiff.Model(trained(copy), SCORE)
    model.save(str(tmp_path / "model"))
    shutil.rmtree(copy) if copy.is_dir() else copy.unlink()
    images = made_images(3, seed=4)
    loaded = raydiff.load(str(tmp_path / "model"), "cpu")
    np.testing.assert_array_equal(loaded.score(images).maps, model.score(images).maps)
    assert str(copy).encode() not in (tmp_path / "model/weights.safetensors").read_bytes()
    assert str(copy) in loaded.method.about()["autoencoder"]


def test_only_the_unet_is_trained(places):
    before = GLAD(given(places / "kl")).state_dict()
    after = trained(places / "kl").state_dict()
    changed = {key.split(".")[0] for key, value in after.items() if not torch.equal(before[key], value)}
    assert changed - {"foreground_share"} == {"unet", "codec"}
    moved = {key for key, value in after.items() if key.startswith("codec.") and not torch.equal(before[key], value)}
    assert moved == {"codec.mean", "codec.deviation"}


def refused(place, match, **changes):
    """Both by the check and by the training itself."""
    settings = given(place, **changes)
    for attempt in (GLAD.check, GLAD):
        with pytest.raises(SettingsError, match=match):
            attempt(settings)


@every_place
def test_an_image_size_that_does_not_fit_is_refused(places, place):
    GLAD.check(given(places / place, image_size=36))
    refused(
        places / place,
        r"image_size 34 does not fit the autoencoder .* 4 x 4 pixels; give a multiple of 4",
        image_size=34,
    )


def test_what_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "nowhere", "the autoencoder .*nowhere is not there; give a folder with config.json and")


def test_a_folder_of_something_else_is_refused(places, tmp_path):
    refused(tmp_path, "there is no config.json in it; give a folder")
    shutil.copytree(places / "kl", tmp_path / "copy")
    config = tmp_path / "copy/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "VQModel"}))
    refused(tmp_path / "copy", "its config.json is of VQModel; give a folder")
    config.write_text(json.dumps({"_class_name": "AutoencoderKL", "norm_num_groups": 7}))
    refused(tmp_path / "copy", "it cannot be built")


def test_a_folder_without_weights_or_with_others_is_refused(places, tmp_path):
    shutil.copytree(places / "kl", tmp_path / "copy")
    weights = tmp_path / "copy/diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    save_file({name: value for name, value in state.items() if not name.startswith("decoder")}, weights)
    with pytest.raises(SettingsError, match=r"copy cannot be read as an autoencoder: .* \"decoder\."):
        GLAD(given(tmp_path / "copy"))
    weights.write_bytes(b"no tensors")
    with pytest.raises(SettingsError, match=r"model\.safetensors cannot be read as weights"):
        GLAD(given(tmp_path / "copy"))
    weights.unlink()
    refused(tmp_path / "copy", "there is no diffusion_pytorch_model.safetensors in it")


def test_stable_diffusions_former_names_are_read(places, tmp_path):
    shutil.copytree(places / "kl", tmp_path / "copy")
    weights = tmp_path / "copy/diffusion_pytorch_model.safetensors"
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(weights)
    for now, then in former.items():
        state = {name.replace(f".{now}.", f".{then}."): value for name, value in state.items()}
    assert any(".proj_attn." in name for name in state)
    save_file(state, weights)
    images = torch.rand(1, 3, 32, 32)
    now, then = (given_autoencoder.load(str(place), 32) for place in (places / "kl", tmp_path / "copy"))
    assert torch.equal(now.encode(images), then.encode(images))


def test_a_file_of_something_else_is_refused(places, tmp_path):
    file = tmp_path / "weights.safetensors"
    state = load_file(places / "taesd_names.safetensors")
    save_file({name: value for name, value in state.items() if name.startswith("encoder")}, file)
    refused(file, "it holds no decoder; give a folder")
    save_file({name.replace("conv.4", "conv.5"): value for name, value in state.items()}, file)
    refused(file, r"cannot be read as an autoencoder: .*conv\.4")
    file.write_bytes(b"no tensors")
    refused(file, "cannot be read as weights")


def test_what_a_pretrained_unet_cannot_be_is_refused(places):
    with pytest.raises(
        SettingsError, match="a pretrained U-Net predicts the noise; leave out pretrained or prediction"
    ):
        tiny_settings("glad", pretrained="somewhere", prediction="v_prediction")
    with pytest.raises(SettingsError, match="pretrained brings an autoencoder of its own; leave out pretrained or"):
        given(places / "kl", pretrained="somewhere")


def test_a_misspelt_setting_of_a_learnt_autoencoder_has_its_hint():
    with pytest.raises(SettingsError, match="AutoencoderSettings has no setting 'chanels'; did you mean 'channels'"):
        tiny_settings("glad", autoencoder={"chanels": [8, 8]})
