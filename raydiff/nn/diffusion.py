"""Noise schedules, the DDIM sampler and noise that depends on nothing but the image and the seed."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from raydiff.settings import Settings

Prediction = Literal["epsilon", "v_prediction"]
Schedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]  # diffusers' names; the last is the cosine one

STEPS = 1000  # T of the noise schedules


class NoiseSettings(Settings):
    """Train settings of the noise that a method learns to take away."""

    prediction: Prediction = "epsilon"  # the papers'; v_prediction learns faster, and bounds the error at much noise
    # steps that are trained on, from the first up to below the second; all, or no more than scoring may ask for
    noise_steps: tuple[int, int] = (0, STEPS)

    @model_validator(mode="after")
    def _some_steps(self) -> Self:
        low, high = self.noise_steps
        if not 0 <= low < high <= STEPS:
            raise ValueError(f"noise_steps {low}, {high} are not two ascending numbers in 0..{STEPS}")
        return self


class Diffusion(nn.Module):
    """The forward process with T steps and its inversion from a network's prediction.

    Steps t run from 0 to T - 1; `alpha_bar[t]` is the cumulative product of 1 - beta (DDPM, equation 4).
    """

    def __init__(self, schedule: Schedule, prediction: Prediction, steps: int = STEPS) -> None:
        super().__init__()
        self.steps = steps
        self.prediction = prediction
        self.alpha_bar: Tensor
        self.register_buffer("alpha_bar", (1 - betas(schedule, steps)).cumprod(0), persistent=False)

    def add_noise(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise, for t of shape (N,)."""
        signal, sigma = self._levels(t, clean)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network should predict at x_t."""
        if self.prediction == "epsilon":
            return noise
        signal, sigma = self._levels(t, clean)
        return signal * noise - sigma * clean

    def estimates(self, output: Tensor, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The clean estimate and the noise estimate that a network output at x_t stands for."""
        signal, sigma = self._levels(t, x)
        if self.prediction == "epsilon":
            return (x - sigma * output) / signal, output
        return signal * x - sigma * output, sigma * x + signal * output

    def denoise(
        self,
        x: Tensor,
        timesteps: Sequence[int],
        network: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """Deterministic DDIM (eta 0) from x at timesteps[0] through all of them to the clean estimate.

        One timestep is the one-step reconstruction: the clean estimate of a single network call.
        """
        clean = x
        for step, at in enumerate(timesteps):
            t = torch.full((len(x),), at, device=x.device)
            clean, noise = self.estimates(network(x, t).to(x.dtype), x, t)
            if step + 1 < len(timesteps):
                x = self.add_noise(clean, noise, torch.full_like(t, timesteps[step + 1]))
        return clean

    def _levels(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alpha_bar[t].to(like.dtype).view(-1, *[1] * (like.dim() - 1))
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def betas(schedule: Schedule, steps: int) -> Tensor:
    """(steps,) noise variances beta_t, as diffusers' schedulers have them (importing those takes seconds a process).

    DDPM's linear ones, Stable Diffusion's, which are linear in their square roots, and Nichol and Dhariwal's cosine
    (arXiv 2102.09672, equation 17).
    """
    if schedule == "linear":
        return torch.linspace(1e-4, 0.02, steps)
    if schedule == "scaled_linear":
        return torch.linspace(0.00085**0.5, 0.012**0.5, steps) ** 2
    kept = [math.cos((step / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(steps + 1)]
    return torch.tensor([min(1 - after / before, 0.999) for before, after in itertools.pairwise(kept)])


def spaced_timesteps(start: int, count: int) -> list[int]:
    """`count` timesteps from `start` down, evenly spaced towards 0 (which itself needs no network call)."""
    if not 1 <= count <= start:
        raise ValueError(f"{count} denoising steps do not fit between corruption step {start} and 0")
    return [round(start * (count - i) / count) for i in range(count)]


def keyed_noise(keys: Sequence[str], shape: Sequence[int], seed: int, device: torch.device) -> Tensor:
    """Standard normal noise (len(keys), *shape), each item's drawn from its own key and the seed alone.

    Drawn on the CPU, so that it is the same whatever the device, the batch and the neighbours.
    """
    items = []
    for key in keys:
        digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        items.append(torch.randn(*shape, generator=generator))
    return torch.stack(items).to(device)
