"""The training loop's own parts: accumulation, averages, optimisers. What all methods promise is in test_methods."""

import sys

import pytest
import torch
from conftest import ListedExamples, made_images, tiny_settings

from raydiff import methods
from raydiff.errors import SettingsError
from raydiff.model.scorer import examples_of
from raydiff.training.loop import TrainingLoop


def loop(module=None, rank=0, world=1, **changes):
    torch.manual_seed(0)
    method = methods.get("diffusion_ad")(tiny_settings("diffusion_ad", **changes))
    examples = ListedExamples(examples_of(method, made_images(8)))
    return TrainingLoop(method, examples, seed=0, rank=rank, world=world, module=module)


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_makes_the_same_step(parts):
    """With a loss that is a mean over the batch and draws nothing."""

    def loss_of(seen):
        def loss(batch, generator):
            seen.append(len(batch))
            weights = torch.cat([weight.flatten() for weight in running.method.unet.parameters()])
            return (batch.float().mean((1, 2, 3)) / 255 * weights.square().sum()).mean()

        return loss

    found = []
    for accumulation in (1, parts):
        seen = []
        running = loop(loss_of(seen), accumulation=accumulation, batch_size=4)
        losses = [running.advance() for _ in range(2)]
        assert seen == [4 // accumulation] * 2 * accumulation
        found.append((losses, [weight.detach().clone() for weight in running.method.unet.parameters()]))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-5)
    for whole, parted in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(parted, whole, atol=1e-5, rtol=1e-4)


def test_workers_with_unequal_shares_make_the_step_of_one():
    """What they hand in, averaged over the workers as gradients are, is the whole batch's mean, whatever the parts."""

    def summed(world):
        seen, losses = [], []
        for rank in range(world):

            def loss(batch, generator, seen=seen):
                seen.extend(batch.float().mean((1, 2, 3)).tolist())
                return batch.float().mean().requires_grad_()

            running = loop(loss, rank=rank, world=world, batch_size=8, accumulation=2)
            losses.append(running.advance())
        assert len(seen) == 8
        return sum(losses) / world, sum(seen) / 8

    for world in (1, 3, 5):
        found, expected = summed(world)
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_batch_smaller_than_the_workers_is_refused():
    with pytest.raises(SettingsError, match="batch_size 4 is too small for 5 workers"):
        loop(batch_size=4, world=5)


def test_more_parts_than_images_are_as_many_as_images():
    seen = []

    def loss(batch, generator):
        seen.append(len(batch))
        return batch.float().mean().requires_grad_()

    loop(loss, batch_size=4, accumulation=16).advance()
    assert seen == [1, 1, 1, 1]


def test_the_time_goes_with_the_state():
    running = loop(train_steps=4)
    for _ in range(2):
        running.advance()
    assert 0 < running.waiting_share() < 1
    resumed = loop(train_steps=4)
    resumed.load_state(running.state())
    assert resumed.seconds_a_step() == running.seconds_a_step() > 0


def test_without_an_average_the_last_weights_are_kept():
    running = loop(ema_decay=0.0, train_steps=3)
    while not running.finished:
        running.advance()
    last = {name: value.clone() for name, value in running.method.trained.state_dict().items()}
    assert running.state()["ema"] is None
    resumed = loop(ema_decay=0.0, train_steps=3)
    resumed.load_state(running.state())
    for finished in (running.finish(), resumed.finish()):
        for name, value in finished.trained.state_dict().items():
            assert torch.equal(value, last[name]), name


def test_the_package_for_eight_bits_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(SettingsError, match=r"pip install 'raydiff\[8bit\]'"):
        loop(optimizer="adamw_8bit")


def test_a_state_of_eight_bits_leads_the_same_way():
    pytest.importorskip("bitsandbytes", reason="pip install 'raydiff[8bit]' to test it")
    losses = {}
    for name in ("adamw", "adamw_8bit"):
        running = loop(optimizer=name, train_steps=20)
        losses[name] = [running.advance() for _ in range(12)]
    assert losses["adamw_8bit"] != losses["adamw"]
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=0.05)
    kept = [value for state in running._optimizer.state.values() for value in state.values()]
    assert any(torch.is_tensor(value) and value.dtype == torch.uint8 for value in kept)
    resumed = loop(optimizer="adamw_8bit", train_steps=20)
    resumed.load_state(running.state())
    assert resumed.advance() == running.advance()
