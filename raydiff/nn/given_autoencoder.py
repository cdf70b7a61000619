"""An autoencoder that is given: trained elsewhere, on other images, and frozen here.

It comes from a folder as diffusers writes it (AutoencoderTiny or AutoencoderKL) or from a file of weights in the
arrangement of madebyollin/taesd. Nothing of either is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Self

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from raydiff import storage
from raydiff.errors import SettingsError
from raydiff.nn import json_tensor, tiny_autoencoder
from raydiff.nn.backbones import read_weights
from raydiff.nn.category_statistics import CategorySums
from raydiff.nn.codec import FixedCodec, from_signed, to_signed

KL, TINY = "AutoencoderKL", "AutoencoderTiny"
CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
EXPECTED = (
    f"give a folder with {CONFIG} and {WEIGHTS} of diffusers' {TINY} or {KL}, or a .safetensors file of encoder and "
    "decoder in the arrangement of madebyollin/taesd"
)
FORMER_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of attention's parts
LEAST_DEVIATION = 1e-3  # of a latent channel that says next to nothing about the training images


class GivenAutoencoder(FixedCodec):
    """A frozen autoencoder whose latents have zero mean and unit variance per channel over the training images.

    Args:
        architecture: the kind's name as `kind`, and its configuration; all that must be known to build it again.
    """

    def __init__(self, architecture: Mapping[str, Any]) -> None:
        super().__init__()
        self.architecture = dict(architecture)
        config = {name: value for name, value in architecture.items() if name != "kind"}
        self.kind: str = architecture["kind"]
        self.net: Any = (tiny_autoencoder.build if self.kind == TINY else AutoencoderKL.from_config)(config)
        self.channels: int = config["latent_channels"]
        levels = config["num_encoder_blocks"] if self.kind == TINY else config["block_out_channels"]
        self.factor = 2 ** (len(levels) - 1)  # pixels of a latent's side
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(self.channels))
        self.register_buffer("deviation", torch.ones(self.channels))
        self.requires_grad_(False)

    @classmethod
    def from_tensor(cls, tensor: Tensor) -> Self:
        """With weights and statistics to be loaded, from what `to_tensor` gave."""
        return cls(json_tensor.from_tensor(tensor))

    def to_tensor(self) -> Tensor:
        """The architecture, for a model folder."""
        return json_tensor.to_tensor(self.architecture)

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [0, 1] to latents (N, C, S / f, S / f)."""
        return (self._raw(images) - self.mean[:, None, None]) / self.deviation[:, None, None]

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to images in [0, 1]."""
        raw = latents * self.deviation[:, None, None] + self.mean[:, None, None]
        images: Tensor = self.net.decode(raw.contiguous(memory_format=torch.channels_last)).sample
        return from_signed(images)

    @torch.inference_mode()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Mean and deviation of the latents of images, given as batches (N, 3, S, S) in [0, 1]."""
        sums = CategorySums(1, self.channels)
        for images in batches:
            sums.add(self._raw(images), torch.zeros(len(images)))
        self.mean.copy_(sums.mean[0])
        self.deviation.copy_(sums.deviation[0].clamp_min(LEAST_DEVIATION))

    def _raw(self, images: Tensor) -> Tensor:
        """The network's own latents; a KL autoencoder's are the distribution's mean, so that an image has one."""
        encoded = self.net.encode(to_signed(images).contiguous(memory_format=torch.channels_last))
        latents: Tensor = encoded.latents if self.kind == TINY else encoded.latent_dist.mean
        return latents.float()


def load(source: str, image_size: int) -> GivenAutoencoder:
    """The autoencoder at a path or URI, with its weights, for images of a size.

    Raises:
        SettingsError: if it is not there, is something else, cannot be read, or does not fit the size.
        StorageError: if the store cannot be asked.
    """
    if _is_folder(source):
        codec, weights = _of_folder(source, image_size), storage.join(source, WEIGHTS)
        with storage.local_copy(weights) as path:
            state = {_today(name): tensor for name, tensor in read_weights(weights, path).items()}
    else:
        codec, state = _of_file(source, image_size)
    try:
        codec.net.load_state_dict(state)
    except RuntimeError as error:
        raise _unusable(source, " ".join(str(error).split())) from None
    return codec.eval()


def check(source: str, image_size: int) -> None:
    """Whether it can be had; of a folder only the configuration is read, a file is read whole.

    Raises:
        SettingsError, StorageError: as `load`.
    """
    if _is_folder(source):
        _of_folder(source, image_size)
    else:
        load(source, image_size)


def _is_folder(source: str) -> bool:
    if storage.is_folder(source):
        return True
    if not storage.exists(source):
        raise SettingsError(f"the autoencoder {source} is not there; {EXPECTED}")
    return False


def _of_folder(source: str, image_size: int) -> GivenAutoencoder:
    """The autoencoder that a folder's configuration is of, without its weights."""
    for file in (CONFIG, WEIGHTS):
        if not storage.exists(storage.join(source, file)):
            raise _unusable(source, f"there is no {file} in it")
    values = storage.read_json(storage.join(source, CONFIG))
    kind = values.get("_class_name") if isinstance(values, dict) else None
    if kind not in (TINY, KL):
        raise _unusable(source, f"its {CONFIG} is of {kind or 'no class'}")
    own = {name: value for name, value in values.items() if not name.startswith("_")}
    return _built(source, {"kind": kind, **own}, image_size)


def _of_file(source: str, image_size: int) -> tuple[GivenAutoencoder, dict[str, Tensor]]:
    """The autoencoder that a file's tensors are of, and them, not yet loaded."""
    with storage.local_copy(source) as path:
        state = read_weights(source, path)
    try:
        config, renamed = tiny_autoencoder.recognise(state)
    except ValueError as error:
        raise _unusable(source, str(error)) from None
    return _built(source, {"kind": TINY, **config}, image_size), renamed


def _today(name: str) -> str:
    """What a tensor is called that a file of Stable Diffusion's first years calls otherwise."""
    whose, attention, part = name.partition(".attentions.")
    for former, now in FORMER_NAMES.items():
        part = part.replace(f".{former}.", f".{now}.")
    return whose + attention + part


def _built(source: str, architecture: Mapping[str, Any], image_size: int) -> GivenAutoencoder:
    try:
        codec = GivenAutoencoder(architecture)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise _unusable(source, f"it cannot be built ({' '.join(str(error).split())})") from None
    if image_size % codec.factor:
        raise SettingsError(
            f"image_size {image_size} does not fit the autoencoder {source}, which has one latent for {codec.factor} x "
            f"{codec.factor} pixels; give a multiple of {codec.factor}"
        )
    return codec


def _unusable(source: str, reason: str) -> SettingsError:
    return SettingsError(f"{source} cannot be read as an autoencoder: {reason}; {EXPECTED}")
