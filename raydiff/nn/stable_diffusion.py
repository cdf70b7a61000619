"""A Stable-Diffusion-1.x folder as diffusion over its latents with one fixed prompt: VAE, conditional U-Net, prompts.

The text encoder is asked once; what is kept are the embeddings of the prompt and of the empty prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from raydiff import storage
from raydiff.errors import SettingsError
from raydiff.nn import hub, json_tensor
from raydiff.nn.codec import FixedCodec, from_signed, to_signed

UNREADABLE: tuple[type[Exception], ...] = (ValueError, *hub.FAILURES)
PARTS = ("unet", "vae", "text_encoder", "tokenizer")
SCALE = 0.18215  # of Stable Diffusion 1.x's latents, where its VAE's config does not say


class FrozenCodec(FixedCodec):
    """A pretrained VAE, never trained. `encode` gives the latent's mean, so that an image has one latent."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.net: Any = AutoencoderKL.from_config(dict(config))
        self.scale = float(config.get("scaling_factor", SCALE))
        self.requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] to latents (N, 4, S / 8, S / 8)."""
        latents: Tensor = self.net.encode(to_signed(images)).latent_dist.mean
        return self.scale * latents

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to images in [0, 1]."""
        images: Tensor = self.net.decode(latents / self.scale).sample
        return from_signed(images)


class PromptedUNet(nn.Module):
    """The conditional U-Net under the fixed prompt, as (N, C, h, w) and t (N,) to a prediction of the same shape."""

    def __init__(self, config: Mapping[str, Any], prompts: Tensor) -> None:
        super().__init__()
        self.net: Any = UNet2DConditionModel.from_config(dict(config))
        self.prompts: Tensor
        self.register_buffer("prompts", prompts)  # (2, tokens, width): the prompt's embedding, the empty one's

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """The network's prediction at x_t under the prompt."""
        return self._predict(x, t, self.prompts[:1])

    def guided(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance: from the empty prompt's prediction through the prompt's, `scale` times as far."""
        empty = self._predict(x, t, self.prompts[1:])
        return empty + scale * (self._predict(x, t, self.prompts[:1]) - empty)

    def _predict(self, x: Tensor, t: Tensor, prompt: Tensor) -> Tensor:
        output: Tensor = self.net(x, t, encoder_hidden_states=prompt.expand(len(x), -1, -1)).sample
        return output


class Architecture:
    """What must be known to build the two networks without the folder: their configurations, as bytes in a tensor."""

    def __init__(self, unet: Mapping[str, Any], vae: Mapping[str, Any], prompts: tuple[int, ...]) -> None:
        self.unet, self.vae, self.prompts = dict(unet), dict(vae), prompts

    def build(self) -> tuple[FrozenCodec, PromptedUNet]:
        """Both networks, with weights to be loaded."""
        return FrozenCodec(self.vae), PromptedUNet(self.unet, torch.zeros(self.prompts))

    def to_tensor(self) -> Tensor:
        """For a model folder."""
        return json_tensor.to_tensor({"unet": self.unet, "vae": self.vae, "prompts": self.prompts})

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Self:
        """What `to_tensor` wrote."""
        values = json_tensor.from_tensor(tensor)
        return cls(values["unet"], values["vae"], tuple(values["prompts"]))


def load_pretrained(source: str, prompt: str) -> tuple[Architecture, FrozenCodec, PromptedUNet]:
    """The networks of a Stable-Diffusion-1.x folder with their weights.

    Args:
        source: a folder or its URI, with `unet`, `vae`, `text_encoder` and `tokenizer` in it, or a model hub's name.
        prompt: what the U-Net is always told.

    Raises:
        SettingsError: if a part is missing or cannot be read, or the package transformers is not installed.
    """
    try:
        from transformers import CLIPTextModel, CLIPTokenizer
    except ImportError:
        raise SettingsError(
            "a pretrained Stable Diffusion needs one more package: pip install 'raydiff[stable-diffusion]'"
        ) from None
    check_pretrained(source)
    with storage.local_folder(source) as folder:
        try:
            unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", low_cpu_mem_usage=False)
            vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", low_cpu_mem_usage=False)
            tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
            text_encoder = CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
        except UNREADABLE as error:
            raise _unusable(source, " ".join(str(error).split())) from None
    tokens = tokenizer(
        [prompt, ""],
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        prompts = text_encoder(tokens.input_ids).last_hidden_state.float()
    unet_config, vae_config = (_shape(each.config) for each in (unet, vae))
    architecture = Architecture(unet_config, vae_config, tuple(prompts.shape))
    codec, prompted = architecture.build()
    codec.net.load_state_dict(vae.state_dict())
    prompted.net.load_state_dict(unet.state_dict())
    prompted.prompts.copy_(prompts)
    return architecture, codec, prompted


def check_pretrained(source: str) -> None:
    """Whether there is such a folder with the parts of Stable Diffusion, or a model hub that has it; none is read.

    Raises:
        SettingsError: if not.
        StorageError: if the store cannot be asked.
    """
    if storage.is_local(source) and not storage.exists(source):
        try:
            hub.check(source, ("model_index.json",))
        except hub.HubError as error:
            raise _unusable(source, str(error)) from None
        return
    missing = [part for part in PARTS if not storage.exists(storage.join(source, part))]
    if missing:
        raise SettingsError(
            f"{source} cannot be read as Stable Diffusion 1.x: it has no folder {' and no folder '.join(missing)}"
        )


def _unusable(source: str, reason: str) -> SettingsError:
    return SettingsError(
        f"{source} cannot be read as Stable Diffusion 1.x, a folder with {', '.join(PARTS)} or a model hub's name: "
        f"{reason}"
    )


def _shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without diffusers' notes on where it came from."""
    return {key: value for key, value in config.items() if not key.startswith("_")}
