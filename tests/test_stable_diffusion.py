"""A pretrained Stable Diffusion in GLAD, on a folder of its layout with tiny networks of random weights."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from conftest import ListedExamples, made_images, tiny_settings
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import raydiff
from raydiff.errors import SettingsError
from raydiff.methods.glad import GLAD, GLADScore
from raydiff.model.scorer import examples_of
from raydiff.nn.stable_diffusion import load_pretrained
from raydiff.training.loop import TrainingLoop

SCORE = GLADScore(start_step=300, denoising_steps=2, least_step=0, switch_distance=None, guidance_scale=3.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """unet, vae, text_encoder and tokenizer, as Stable Diffusion 1.x has them."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("stable") / "diffusion"
    (root / "tokenizer").mkdir(parents=True)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (root / "tokenizer/vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (root / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    files = [str(root / "tokenizer" / name) for name in ("vocab.json", "merges.txt")]
    CLIPTokenizer(*files, model_max_length=16).save_pretrained(root / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=len(words) - 2,
        eos_token_id=len(words) - 1,
    )
    CLIPTextModel(config).save_pretrained(root / "text_encoder")
    UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        norm_num_groups=8,
        attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).save_pretrained(root / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
    ).save_pretrained(root / "vae")
    return root


def pretrained(folder, **changes):
    return tiny_settings("glad", pretrained=str(folder), train_steps=3, **changes)


def trained(folder, **changes):
    method = GLAD(pretrained(folder, **changes)).eval()
    loop = TrainingLoop(method, ListedExamples(examples_of(method, made_images(8))), seed=0)
    while not loop.finished:
        loop.advance()
    return loop.finish()


def test_only_the_unet_is_trained_on(folder):
    before = GLAD(pretrained(folder)).state_dict()
    after = trained(folder).state_dict()
    changed = {key.split(".")[0] for key, value in after.items() if not torch.equal(before[key], value)}
    assert changed == {"unet"}
    assert torch.equal(before["unet.prompts"], after["unet.prompts"])


def test_a_model_folder_needs_nothing_of_what_it_began_with(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    model = raydiff.Model(trained(copy), SCORE)
    model.save(str(tmp_path / "model"))
    shutil.rmtree(copy)
    images = made_images(3, seed=4)
    loaded = raydiff.load(str(tmp_path / "model"), "cpu")
    np.testing.assert_array_equal(loaded.score(images).maps, model.score(images).maps)
    assert str(copy).encode() not in (tmp_path / "model/weights.safetensors").read_bytes()


def test_the_prompts_are_the_text_encoders(folder):
    _, _, unet = load_pretrained(str(folder), "a photo of sks")
    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
    for text, found in zip(("a photo of sks", ""), unet.prompts, strict=True):
        ids = tokenizer(text, padding="max_length", max_length=16, return_tensors="pt").input_ids
        torch.testing.assert_close(encoder(ids).last_hidden_state[0], found)
    assert not torch.allclose(*unet.prompts)


def test_guidance_goes_from_the_empty_prompt_through_the_prompt(folder):
    _, _, unet = load_pretrained(str(folder), "cookie")
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 500])
    with torch.no_grad():
        told, empty = (
            unet.net(x, t, encoder_hidden_states=each.expand(2, -1, -1)).sample for each in unet.prompts.split(1)
        )
        torch.testing.assert_close(unet(x, t), told)
        torch.testing.assert_close(unet.guided(x, t, 1.0), told)
        torch.testing.assert_close(unet.guided(x, t, 3.0), empty + 3 * (told - empty))
        assert not torch.allclose(told, empty)


def test_latents_are_the_vaes_scaled_means(folder):
    _, codec, _ = load_pretrained(str(folder), "cookie")
    vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", low_cpu_mem_usage=False)
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        latents = codec.encode(images)
        torch.testing.assert_close(latents, 0.18215 * vae.encode(2 * images - 1).latent_dist.mode())
        wanted = ((vae.decode(latents / 0.18215).sample + 1) / 2).clamp(0, 1)
        torch.testing.assert_close(codec.decode(latents), wanted)


def test_gradient_checkpointing_changes_no_gradient(folder):
    def gradients(on):
        method = GLAD(pretrained(folder, gradient_checkpointing=on)).train()
        examples = examples_of(method, made_images(4))
        method(examples, torch.Generator().manual_seed(0)).backward()
        return {name: value.grad for name, value in method.unet.named_parameters()}

    plain, saving = gradients(False), gradients(True)
    for name, value in plain.items():
        torch.testing.assert_close(saving[name], value)


@pytest.mark.parametrize("part", ["unet", "vae", "tokenizer", "text_encoder"])
def test_a_missing_part_is_named(folder, tmp_path, part):
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / part)
    with pytest.raises(SettingsError, match=f"copy cannot be read as Stable Diffusion .* {part}"):
        GLAD(pretrained(tmp_path / "copy"))


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read as Stable Diffusion"):
        GLAD(pretrained(tmp_path / "nowhere"))


def test_the_package_that_is_needed_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SettingsError, match=r"pip install 'raydiff\[stable-diffusion\]'"):
        GLAD(pretrained(folder))
