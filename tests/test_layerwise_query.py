"""UniAD's transformer: what positions see, against loops, and its layers, against torch's own."""

import itertools

import pytest
import torch
from torch import nn

from raydiff.nn.layerwise_query import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    LayerwiseQueryTransformer,
    PositionEmbedding,
    Sight,
    TransformerSettings,
    outside_neighbourhood,
)

GRID, WIDTH = 5, 12
SHAPE = TransformerSettings(width=WIDTH, heads=3, encoder_layers=2, decoder_layers=2, feedforward=20, neighbourhood=3)
ALL = Sight.of(torch.ones(2, GRID**2, GRID**2, dtype=torch.bool))


def positions(seed: int) -> torch.Tensor:
    return torch.randn(2, GRID**2, WIDTH, generator=torch.Generator().manual_seed(seed))


def not_zero(module: nn.Module) -> None:
    """Biases and norms that a mistake would show in."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)


def as_torchs(attention: Attention) -> nn.MultiheadAttention:
    """torch's own with the same weights."""
    other = nn.MultiheadAttention(WIDTH, SHAPE.heads, batch_first=True)
    other.load_state_dict(
        {
            "in_proj_weight": attention.enter.weight,
            "in_proj_bias": attention.enter.bias,
            "out_proj.weight": attention.leave.weight,
            "out_proj.bias": attention.leave.bias,
        }
    )
    return other.eval()


# What positions see


@pytest.mark.parametrize(("grid", "neighbourhood"), [(14, 7), (5, 3), (4, 1), (6, 11)])
def test_a_position_sees_what_lies_outside_its_neighbourhood(grid, neighbourhood):
    found = outside_neighbourhood(grid, neighbourhood)
    reach = neighbourhood // 2
    for row, column, other_row, other_column in itertools.product(range(grid), repeat=4):
        near = other_row in range(row - reach, row + reach + 1) and other_column in range(
            column - reach, column + reach + 1
        )
        assert bool(found[row * grid + column, other_row * grid + other_column]) == (not near)


@pytest.mark.parametrize("grid", range(1, 12))
def test_a_neighbourhood_fits_where_every_position_sees_something(grid):
    for neighbourhood in (1, 3, 5, 7, 9):
        seen = outside_neighbourhood(grid, neighbourhood).any(1).all()
        assert TransformerSettings(neighbourhood=neighbourhood).fits(grid) == bool(seen)


def test_attention_is_torchs_with_a_mask_and_zero_where_nothing_is_seen():
    attention = Attention(SHAPE).eval()
    not_zero(attention)
    queries, keys, values = map(positions, range(3))
    allowed = torch.rand(2, GRID**2, GRID**2, generator=torch.Generator().manual_seed(3)) < 0.3
    allowed[1, 7] = False
    found = attention(queries, keys, values, Sight.of(allowed))
    assert torch.equal(found[1, 7], attention.leave.bias)
    told = allowed.clone()
    told[1, 7] = True
    wanted, _ = as_torchs(attention)(queries, keys, values, attn_mask=~told.repeat_interleave(SHAPE.heads, 0))
    rows = allowed.any(2)
    torch.testing.assert_close(found[rows], wanted[rows], rtol=1e-4, atol=1e-5)


def test_a_reconstruction_knows_nothing_of_its_neighbourhood_after_one_layer():
    shape = SHAPE.changed(encoder_layers=1)
    layer = EncoderLayer(shape).eval()
    x = positions(0).requires_grad_()
    sight = Sight.of(outside_neighbourhood(GRID, 3).expand(2, -1, -1))
    attended = layer.attention(x, x, x, sight)
    # values and keys of others alone; of itself only the query
    (gradient,) = torch.autograd.grad(attended[0, 12].sum(), x)
    touched = gradient[0].abs().sum(1).view(GRID, GRID) > 0
    wanted = torch.ones(GRID, GRID, dtype=torch.bool)
    wanted[1:4, 1:4] = False
    wanted[2, 2] = True
    assert torch.equal(touched, wanted)
    assert not gradient[1].any()


def test_what_is_not_looked_at_moves_nothing():
    torch.manual_seed(0)
    network = LayerwiseQueryTransformer(4, GRID, SHAPE).eval()
    features = torch.randn(2, 4, GRID, GRID)
    inside = torch.rand(2, GRID, GRID) < 0.6
    other = torch.where(inside[:, None], features, 100)
    found, again = network(features, inside), network(other, inside)
    chosen = inside[:, None].expand_as(found)
    assert torch.equal(found[chosen], again[chosen])
    assert not torch.allclose(found[chosen], network(other, torch.ones_like(inside))[chosen])


def test_an_image_of_which_little_is_looked_at_has_finite_numbers_and_gradients():
    network = LayerwiseQueryTransformer(4, GRID, SHAPE)
    features = torch.randn(2, 4, GRID, GRID, requires_grad=True)
    inside = torch.zeros(2, GRID, GRID, dtype=torch.bool)
    inside[0, 2, 2] = inside[1, :2, :2] = True
    found = network(features, inside)
    found.sum().backward()
    assert found.isfinite().all()
    assert all(each.grad.isfinite().all() for each in (features, *network.parameters()))


# The layers


def test_an_encoder_layer_is_torchs_where_places_are_added_to_queries_and_keys_alone():
    layer = EncoderLayer(SHAPE).eval()
    not_zero(layer)
    other = nn.TransformerEncoderLayer(WIDTH, SHAPE.heads, SHAPE.feedforward, batch_first=True, norm_first=False)
    other.self_attn = as_torchs(layer.attention)
    other.linear1, other.linear2 = layer.mix[0], layer.mix[3]
    other.norm1, other.norm2 = layer.norms
    x, where = positions(0), positions(1)[0]
    wanted = other.eval()(x)
    torch.testing.assert_close(layer(x, torch.zeros_like(where), ALL), wanted, rtol=1e-4, atol=1e-5)

    placed = x + where
    mixed = layer.norms[0](x + as_torchs(layer.attention)(placed, placed, x)[0])
    wanted = layer.norms[1](mixed + layer.mix[3](layer.mix[0](mixed).clamp_min(0)))
    torch.testing.assert_close(layer(x, where, ALL), wanted, rtol=1e-4, atol=1e-5)


def test_a_decoder_layer_is_a_plain_loop_over_queries_and_heads():
    layer = DecoderLayer(GRID**2, SHAPE).eval()
    not_zero(layer)
    before, encoded, where = positions(0), positions(1), positions(2)[0]
    allowed = outside_neighbourhood(GRID, SHAPE.neighbourhood)

    def attended(attention, query, keys, values, place):
        wq, wk, wv = (
            (w, b) for w, b in zip(attention.enter.weight.chunk(3), attention.enter.bias.chunk(3), strict=True)
        )
        others = [other for other in range(GRID**2) if allowed[place, other]]
        q = query @ wq[0].T + wq[1]
        heads, size = [], WIDTH // SHAPE.heads
        for start in range(0, WIDTH, size):
            part = slice(start, start + size)
            k = torch.stack([(keys[other] @ wk[0].T + wk[1])[part] for other in others])
            v = torch.stack([(values[other] @ wv[0].T + wv[1])[part] for other in others])
            shares = torch.exp(k @ q[part] / size**0.5)
            heads.append((shares / shares.sum()) @ v)
        return attention.leave(torch.cat(heads))

    found = layer(before, encoded, where, Sight.of(allowed.expand(2, -1, -1)))
    for image, place in itertools.product(range(2), (0, 7, 12, 24)):
        x, at = layer.queries[place], where[place]
        x = layer.norms[0](x + attended(layer.at_encoded, x + at, encoded[image] + where, encoded[image], place))
        x = layer.norms[1](x + attended(layer.at_before, x + at, before[image] + where, before[image], place))
        x = layer.norms[2](x + layer.mix(x))
        torch.testing.assert_close(found[image, place], x, rtol=1e-4, atol=1e-4)


def test_the_transformer_is_its_layers_one_after_the_other():
    network = LayerwiseQueryTransformer(4, GRID, SHAPE).eval()
    features = torch.randn(2, 4, GRID, GRID)
    sight = Sight.of(outside_neighbourhood(GRID, 3).expand(2, -1, -1))
    tokens = torch.stack([features[..., row, column] for row in range(GRID) for column in range(GRID)], 1)
    where, encoded = network.where(), network.enter(tokens)
    for layer in network.encoder:
        encoded = layer(encoded, where, sight)
    first = network.decoder[0](encoded, encoded, where, sight)
    tokens = network.leave(network.norm(network.decoder[1](first, encoded, where, sight)))
    found = network(features, torch.ones(2, GRID, GRID, dtype=torch.bool))
    for row, column in itertools.product(range(GRID), repeat=2):
        torch.testing.assert_close(found[..., row, column], tokens[:, row * GRID + column])


def test_places_are_told_by_column_and_row():
    embedding = PositionEmbedding(GRID, WIDTH)
    found = embedding()
    for row, column in itertools.product(range(GRID), repeat=2):
        expected = torch.cat([embedding.columns[column], embedding.rows[row]])
        assert torch.equal(found[row * GRID + column], expected)


def test_the_transformer_begins_as_the_authors_does():
    """Xavier's uniform weights, no bias, queries of unit variance and places within [0, 1]."""
    torch.manual_seed(0)
    network = LayerwiseQueryTransformer(48, 8, TransformerSettings(width=64, feedforward=256))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            limit = (6 / sum(module.weight.shape)) ** 0.5
            assert 0.95 * limit < float(module.weight.detach().abs().max()) <= limit
            assert not module.bias.any()
    queries = torch.stack([layer.queries for layer in network.decoder]).detach()
    assert float(queries.std()) == pytest.approx(1, abs=0.02)
    places = network.where().detach()
    assert 0 <= float(places.min()) < 0.05
    assert 0.95 < float(places.max()) <= 1
