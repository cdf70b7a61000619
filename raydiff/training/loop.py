"""The training loop: plain torch, one step at a time, resumable, the same curve for the same seed. No Ray here."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from raydiff.errors import SettingsError
from raydiff.methods.base import Method
from raydiff.training.store import ExampleStore


class TrainingLoop:
    """Gradient steps of one worker out of `world`.

    Batches are drawn without replacement within an epoch of the worker's own examples. Every step's randomness comes
    from (seed, step, rank) alone, so a resumed loop goes on exactly as the unbroken one would have.

    Args:
        method: with its statistics fitted; trained in place.
        examples: this worker's share.
        module: what to call for the loss, if not the method itself (its DistributedDataParallel wrapper).
    """

    def __init__(
        self,
        method: Method,
        examples: ExampleStore,
        seed: int,
        rank: int = 0,
        world: int = 1,
        module: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    ) -> None:
        settings = method.settings
        trained = method.trained
        assert trained is not None, f"{method.name} has nothing to train by gradients"
        if settings.batch_size < world:
            raise SettingsError(
                f"batch_size {settings.batch_size} is too small for {world} workers; each needs an image of every batch"
            )
        self.method = method
        self.examples = examples
        self.seed, self.rank = seed, rank
        self.step = 0
        self._batch = settings.batch_size // world + (rank < settings.batch_size % world)
        self._weight = world / settings.batch_size  # of an image, when gradients are averaged over the workers
        self._seconds = self._waited = 0.0  # of all steps so far, and of them waiting for examples
        self._module: Any = module or method
        groups = method.parameter_groups()
        self._rates = [group["lr"] for group in groups]
        self._optimizer = _optimizer(settings.optimizer)(groups, weight_decay=settings.weight_decay)
        self._ema = AveragedModel(trained, avg_fn=self._average) if settings.ema_decay else None
        self._epoch = -1
        self._order: list[int] = []

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return bool(self.step >= self.method.settings.train_steps)

    def advance(self) -> float:
        """One gradient step; its loss, to be averaged over the workers."""
        trained = self.method.trained
        assert trained is not None
        trained.train()
        begun = time.monotonic()
        batch = self.examples.take(self._next_indices())
        waited = time.monotonic() - begun
        parts = batch.tensor_split(min(self.method.settings.accumulation, len(batch)))
        generator = self._generator("step", self.step)
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for number, part in enumerate(parts, 1):
            waits = number < len(parts) and isinstance(self._module, DistributedDataParallel)
            with self._module.no_sync() if waits else contextlib.nullcontext():
                loss = self._module(part, generator) * (len(part) * self._weight)
                loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(trained.parameters(), self.method.clip_norm)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = self._scheduled(rate)
        self._optimizer.step()
        if self._ema:
            self._ema.update_parameters(trained)
        self.step += 1
        self._seconds += time.monotonic() - begun
        self._waited += waited
        return total

    def seconds_a_step(self) -> float:
        """How long a step of this worker took, on average."""
        return self._seconds / max(1, self.step)

    def waiting_share(self) -> float:
        """The share of that time in which the worker waited for its examples."""
        return self._waited / self._seconds if self._seconds else 0.0

    def finish(self) -> Method:
        """The method, with the averaged weights in place of the last ones if they were averaged."""
        trained = self.method.trained
        assert trained is not None
        if self._ema:
            trained.load_state_dict(self._ema.module.state_dict())
        return self.method.eval()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds: tensors and plain values only."""
        trained = self.method.trained
        assert trained is not None
        return {
            "step": self.step,
            "seconds": (self._seconds, self._waited),
            "trained": trained.state_dict(),
            "ema": self._ema.state_dict() if self._ema else None,
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        trained = self.method.trained
        assert trained is not None
        trained.load_state_dict(state["trained"])
        if self._ema:
            self._ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self._seconds, self._waited = state["seconds"]

    def _scheduled(self, rate: float) -> float:
        settings = self.method.settings
        warm = min(1.0, (self.step + 1) / (settings.warmup_steps + 1))
        decay = 0.1 if self.step >= settings.decay_from * settings.train_steps else 1.0
        return rate * warm * decay

    def _average(self, average: Tensor, value: Tensor, updates: Tensor | int) -> Tensor:
        # ramps up, so that a short training is not averaged with its random start
        decay = min(self.method.settings.ema_decay, (1 + float(updates)) / (10 + float(updates)))
        return torch.lerp(value, average, decay)

    def _next_indices(self) -> list[int]:
        start = self.step * self._batch
        return [self._position(start + offset) for offset in range(self._batch)]

    def _position(self, drawn: int) -> int:
        epoch, place = divmod(drawn, len(self.examples))
        if epoch != self._epoch:
            generator = self._generator("epoch", epoch)
            self._order = torch.randperm(len(self.examples), generator=generator).tolist()
            self._epoch = epoch
        return self._order[place]

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        digest = hashlib.sha256(f"{purpose}:{self.seed}:{number}:{self.rank}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def _optimizer(name: str) -> Callable[..., torch.optim.Optimizer]:
    if name == "adamw":
        return functools.partial(torch.optim.AdamW, fused=True)  # on CPUs, too, a third of the time
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise SettingsError("optimizer adamw_8bit needs one more package: pip install 'raydiff[8bit]'") from None
    kind: Callable[..., torch.optim.Optimizer] = AdamW8bit
    return kind
