"""UniAD's transformer (You et al., NeurIPS 2022, section 3.2): it cannot learn to copy its input.

Its encoder and decoder hide from each position what lies around it (neighbour masked attention), and each layer of the
decoder begins from queries of its own that are learned (layer-wise query decoder), not from its input.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from raydiff.settings import Settings


class TransformerSettings(Settings):
    """Shape of the transformer. The defaults are UniAD's."""

    width: int = Field(256, ge=2)  # channels inside
    heads: int = Field(8, ge=1)
    encoder_layers: int = Field(4, ge=1)
    decoder_layers: int = Field(4, ge=1)
    feedforward: int = Field(1024, ge=1)  # channels inside a layer's second half
    dropout: float = Field(0.1, ge=0, lt=1)
    neighbourhood: int = Field(7, ge=1)  # of each position so many a side, itself in the middle, are hidden from it

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of the {self.heads} heads")
        if self.neighbourhood % 2 == 0:
            raise ValueError(f"neighbourhood {self.neighbourhood} has no middle; give an odd number")
        return self

    def fits(self, grid: int) -> bool:
        """Whether the middle of a grid of so many positions a side sees any of them."""
        return self.neighbourhood // 2 < grid // 2


class Sight(NamedTuple):
    """What each of L positions of N images may look at."""

    visible: Tensor  # (N, L, L) of bool, queries by keys; those that may look at nothing have all, for finite numbers
    blind: Tensor  # (N, L, 1) of bool: which those are; attention gives them zero

    @classmethod
    def of(cls, allowed: Tensor) -> Sight:
        """From (N, L, L) of bool: which keys each query may look at."""
        blind = ~allowed.any(2, keepdim=True)
        return cls(allowed | blind, blind)


def outside_neighbourhood(grid: int, neighbourhood: int) -> Tensor:
    """(L, L) of bool over the L = grid * grid positions, row by row: which lie beyond each one's neighbourhood."""
    along = torch.arange(grid)
    rows, columns = (each.flatten() for each in torch.meshgrid(along, along, indexing="ij"))
    apart = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
    return apart > neighbourhood // 2


class LayerwiseQueryTransformer(nn.Module):
    """(N, channels, grid, grid) features to their reconstruction, of the same shape."""

    def __init__(self, channels: int, grid: int, settings: TransformerSettings) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(channels, settings.width), nn.Linear(settings.width, channels)
        self.where = PositionEmbedding(grid, settings.width)
        self.encoder = nn.ModuleList(EncoderLayer(settings) for _ in range(settings.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(grid**2, settings) for _ in range(settings.decoder_layers))
        self.norm = nn.LayerNorm(settings.width)
        self.allowed: Tensor
        self.register_buffer("allowed", outside_neighbourhood(grid, settings.neighbourhood), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, features: Tensor, inside: Tensor) -> Tensor:
        """The reconstruction; nothing is seen of positions that are not `inside`, (N, grid, grid) of bool."""
        sight, where = Sight.of(self.allowed & inside.flatten(1)[:, None]), self.where()
        encoded = self.enter(features.flatten(2).transpose(1, 2))
        for layer in self.encoder:
            encoded = layer(encoded, where, sight)
        decoded = encoded
        for layer in self.decoder:
            decoded = layer(decoded, encoded, where, sight)
        output: Tensor = self.leave(self.norm(decoded))
        return output.transpose(1, 2).unflatten(2, features.shape[2:])


class PositionEmbedding(nn.Module):
    """(L, width): a learned vector for each column and, behind it, one for each row."""

    def __init__(self, grid: int, width: int) -> None:
        super().__init__()
        self.columns, self.rows = (nn.Parameter(torch.rand(grid, width // 2)) for _ in range(2))

    def forward(self) -> Tensor:
        """The embedding of each position, row by row."""
        grid = len(self.rows)
        return torch.cat([self.columns.repeat(grid, 1), self.rows.repeat_interleave(grid, 0)], 1)


class EncoderLayer(nn.Module):
    """Neighbour masked self-attention, then a small network a position, each normalised after its shortcut."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        self.attention = Attention(settings)
        self.mix = _feedforward(settings)
        self.norms = nn.ModuleList(nn.LayerNorm(settings.width) for _ in range(2))
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, x: Tensor, where: Tensor, sight: Sight) -> Tensor:
        """(N, L, width) one layer on."""
        placed = x + where
        x = self.norms[0](x + self.dropout(self.attention(placed, placed, x, sight)))
        output: Tensor = self.norms[1](x + self.dropout(self.mix(x)))
        return output


class DecoderLayer(nn.Module):
    """Own queries look at what was encoded, then at the layer before, then a small network a position."""

    def __init__(self, positions: int, settings: TransformerSettings) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(positions, settings.width))
        self.at_encoded, self.at_before = Attention(settings), Attention(settings)
        self.mix = _feedforward(settings)
        self.norms = nn.ModuleList(nn.LayerNorm(settings.width) for _ in range(3))
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, before: Tensor, encoded: Tensor, where: Tensor, sight: Sight) -> Tensor:
        """(N, L, width) of the layer before, which is what was encoded for the first, one layer on."""
        x = self.queries.expand_as(encoded)
        x = self.norms[0](x + self.dropout(self.at_encoded(x + where, encoded + where, encoded, sight)))
        x = self.norms[1](x + self.dropout(self.at_before(x + where, before + where, before, sight)))
        output: Tensor = self.norms[2](x + self.dropout(self.mix(x)))
        return output


class Attention(nn.Module):
    """Multi-head attention that looks at what it may."""

    def __init__(self, settings: TransformerSettings) -> None:
        super().__init__()
        self.heads, self.dropout = settings.heads, settings.dropout
        self.enter = nn.Linear(settings.width, 3 * settings.width)  # queries, keys and values, one after the other
        self.leave = nn.Linear(settings.width, settings.width)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, sight: Sight) -> Tensor:
        """(N, L, width) of each."""
        weights, biases = self.enter.weight.chunk(3), self.enter.bias.chunk(3)
        q, k, v = (
            F.linear(*each).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for each in zip((queries, keys, values), weights, biases, strict=True)
        )
        dropout = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=sight.visible[:, None], dropout_p=dropout)
        output: Tensor = self.leave(torch.where(sight.blind, 0, found.transpose(1, 2).flatten(2)))
        return output


def _feedforward(settings: TransformerSettings) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(settings.width, settings.feedforward),
        nn.ReLU(),
        nn.Dropout(settings.dropout),
        nn.Linear(settings.feedforward, settings.width),
    )
