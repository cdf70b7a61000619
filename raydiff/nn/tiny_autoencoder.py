"""The tiny autoencoders of madebyollin/taesd, built from nothing but the names and shapes of their tensors.

diffusers' AutoencoderTiny is the same network, but for the one of FLUX.2: there the blocks of the coarsest level first
add what a group norm, and so the whole image, tells of each position.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from torch import Tensor, nn

GROUPS = 4  # of the group norm
WIDER = 4  # times the block's channels, where it stands
POOLED = "pooled"  # in a configuration: whether the coarsest blocks have a group norm


class PooledBlock(AutoencoderTinyBlock):
    """A block that adds group-normalised features to what it is given."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, "relu")
        wide = WIDER * width
        self.pool = nn.Sequential(
            nn.Conv2d(width, wide, 1, bias=False),
            nn.GroupNorm(GROUPS, wide),
            nn.ReLU(),
            nn.Conv2d(wide, width, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, width, h, w) to the same shape."""
        output: Tensor = super().forward(x + self.pool(x))
        return output


def build(config: Mapping[str, Any]) -> Any:
    """The network of a configuration: AutoencoderTiny's, and whether it is `pooled`."""
    # diffusers writes `block_out_channels` beside the two that it reads
    own = {name: value for name, value in config.items() if name not in (POOLED, "block_out_channels")}
    net: Any = AutoencoderTiny.from_config(own)
    if config.get(POOLED):
        encoder, decoder = net.encoder.layers, net.decoder.layers
        blocks, last = config["num_encoder_blocks"][-1], len(encoder) - 1  # a convolution stands behind the blocks
        for place in range(last - blocks, last):
            encoder[place] = PooledBlock(config["encoder_block_out_channels"][-1])
        for place in range(2, 2 + config["num_decoder_blocks"][0]):  # a convolution and its activation before them
            decoder[place] = PooledBlock(config["decoder_block_out_channels"][0])
    return net


def recognise(state: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration that a state dict is of, and the state by the names of `build`'s network.

    Tensors are called as in taesd (`encoder.0.weight`) or as in AutoencoderTiny (`encoder.layers.0.weight`).

    Raises:
        ValueError: if there is no encoder or no decoder in it.
    """
    renamed = {_name(name): tensor for name, tensor in state.items()}
    config: dict[str, Any] = {POOLED: any(".pool." in name for name in renamed)}
    for side in ("encoder", "decoder"):
        blocks, widths, last = _levels(renamed, side)
        config |= {f"num_{side}_blocks": blocks, f"{side}_block_out_channels": widths}
        if side == "encoder":
            config["latent_channels"] = last
    return config, renamed


def _name(name: str) -> str:
    side, _, rest = name.partition(".")
    place, _, rest = rest.partition(".")
    if not place.isdigit():
        return name
    return f"{side}.layers.{int(place) - (side == 'decoder')}.{rest}"  # taesd counts the clamp before the decoder


def _levels(state: Mapping[str, Tensor], side: str) -> tuple[list[int], list[int], int]:
    """Blocks and channels of each level of one side, and the channels that come out of it."""
    layers: dict[int, int | None] = {}  # channels out of a convolution that stands alone, None of a block
    for name, tensor in state.items():
        whose, _, rest = name.partition(".layers.")
        number, _, what = rest.partition(".")
        if whose == side and number.isdigit():
            layers[int(number)] = tensor.shape[0] if what in ("weight", "bias") else None
    if not layers:
        raise ValueError(f"it holds no {side}")
    blocks, widths = [], []
    for place in sorted(layers):
        width = layers[place]
        if width is not None:
            blocks.append(0)
            widths.append(width)
        elif blocks:
            blocks[-1] += 1
    return blocks[:-1], widths[:-1], widths[-1]
