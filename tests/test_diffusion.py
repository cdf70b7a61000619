"""Schedules against published constants, the sampler against diffusers' own."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.models.embeddings import get_timestep_embedding

from raydiff.nn.blocks import step_embedding
from raydiff.nn.diffusion import Diffusion, betas, keyed_noise, spaced_timesteps

# alpha-bar of the three schedules at some steps, to four decimals
TABLE = {
    "scaled_linear": {99: 0.8955, 200: 0.7537, 300: 0.5905, 449: 0.3485, 500: 0.2763, 849: 0.0235, 999: 0.0047},
    "linear": {99: 0.8970, 200: 0.6563, 300: 0.3940, 449: 0.1270, 500: 0.0778, 721: 0.0051, 849: 0.0007},
    "squaredcos_cap_v2": {99: 0.9721, 200: 0.8978, 300: 0.7856, 449: 0.5715, 500: 0.4923, 721: 0.1763, 849: 0.0537},
}


@pytest.mark.parametrize("schedule", TABLE)
def test_alpha_bar_has_the_published_values(schedule):
    alpha_bar = Diffusion(schedule, "epsilon").alpha_bar
    found = {t: round(float(alpha_bar[t]), 4) for t in TABLE[schedule]}
    assert found == pytest.approx(TABLE[schedule], abs=1.01e-4)


@pytest.mark.parametrize("schedule", TABLE)
@pytest.mark.parametrize("steps", [10, 1000])
def test_betas_are_those_of_diffusers(schedule, steps):
    low, high = {"scaled_linear": (0.00085, 0.012)}.get(schedule, (1e-4, 0.02))
    reference = DDPMScheduler(num_train_timesteps=steps, beta_schedule=schedule, beta_start=low, beta_end=high)
    torch.testing.assert_close(betas(schedule, steps), reference.betas, rtol=1e-6, atol=0)


@pytest.mark.parametrize("channels", [4, 128])
def test_the_embedding_of_a_step_is_that_of_diffusers(channels):
    t = torch.tensor([0, 1, 37, 999])
    torch.testing.assert_close(step_embedding(t, channels), get_timestep_embedding(t, channels), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_target_leads_back_to_the_clean_input(prediction):
    generator = torch.Generator().manual_seed(0)
    diffusion = Diffusion("squaredcos_cap_v2", prediction).double()
    clean = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.double)
    noise = torch.randn(5, 3, 4, 4, generator=generator, dtype=torch.double)
    t = torch.tensor([0, 10, 400, 700, 990])
    x = diffusion.add_noise(clean, noise, t)
    found_clean, found_noise = diffusion.estimates(diffusion.target(clean, noise, t), x, t)
    torch.testing.assert_close(found_clean, clean, rtol=0, atol=1e-6)
    torch.testing.assert_close(found_noise, noise, rtol=0, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_denoising_equals_the_ddim_of_diffusers(prediction):
    reference = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )
    reference.set_timesteps(5)

    def network(x, t):
        return torch.sin(x) * 0.3 + t.view(-1, 1, 1, 1) / 1000

    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    mine = Diffusion("squaredcos_cap_v2", prediction).denoise(x, reference.timesteps.tolist(), network)
    for t in reference.timesteps:
        x = reference.step(network(x, t.expand(2)), t, x).prev_sample
    torch.testing.assert_close(mine, x, rtol=1e-4, atol=1e-4)


def test_one_step_is_the_clean_estimate_of_one_call():
    diffusion = Diffusion("squaredcos_cap_v2", "epsilon")
    calls = []

    def network(x, t):
        calls.append(t.tolist())
        return torch.zeros_like(x)

    x = torch.ones(2, 1, 2, 2)
    found = diffusion.denoise(x, spaced_timesteps(500, 1), network)
    assert calls == [[500, 500]]
    torch.testing.assert_close(found, x / diffusion.alpha_bar[500].sqrt())


@pytest.mark.parametrize(
    ("start", "count", "steps"), [(500, 1, [500]), (500, 5, [500, 400, 300, 200, 100]), (3, 3, [3, 2, 1])]
)
def test_timesteps_are_spaced_evenly(start, count, steps):
    assert spaced_timesteps(start, count) == steps


@pytest.mark.parametrize("count", [0, 11])
def test_more_steps_than_fit_are_refused(count):
    with pytest.raises(ValueError, match="denoising steps do not fit"):
        spaced_timesteps(10, count)


def test_noise_depends_on_key_and_seed_alone():
    cpu = torch.device("cpu")
    alone = keyed_noise(["b"], (4, 3), 0, cpu)
    among = keyed_noise(["a", "b", "c"], (4, 3), 0, cpu)
    assert torch.equal(alone[0], among[1])
    assert not torch.equal(among[0], among[1])
    assert not torch.equal(alone, keyed_noise(["b"], (4, 3), 1, cpu))
    many = keyed_noise([str(i) for i in range(200)], (100,), 0, cpu)
    assert abs(float(many.mean())) < 0.02
    assert float(many.std()) == pytest.approx(1, abs=0.02)
