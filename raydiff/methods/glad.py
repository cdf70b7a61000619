"""GLAD: global and local adaptive diffusion (Yao et al., arXiv 2406.07487, ECCV 2024).

A latent diffusion model reconstructs the image as if it were normal. Three ideas adapt it to the anomaly: training on
made anomalies towards the normal image (ATP), a number of denoising steps of each image's own (ADS), and a fusion that
keeps the normal places as they are (SAFF). Where features of image and reconstruction part, the image is anomalous.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raydiff.methods.anomalies import AnomalyMethod, looked_at
from raydiff.methods.base import AnomalyMaps, Examples, Report, quiet
from raydiff.methods.glad_settings import DEMO, PAPER, SMALL, GLADScore, GLADTrain
from raydiff.nn import backbones, given_autoencoder
from raydiff.nn.backbones import Backbone
from raydiff.nn.batches import filled
from raydiff.nn.codec import Autoencoder, Pixels
from raydiff.nn.diffusion import Diffusion, keyed_noise, spaced_timesteps
from raydiff.nn.given_autoencoder import GivenAutoencoder
from raydiff.nn.maps import LargestPixels, MapReader, gaussian_blur
from raydiff.nn.stable_diffusion import Architecture, PromptedUNet, check_pretrained, load_pretrained
from raydiff.nn.tokens import nearest_token_distance
from raydiff.nn.unet import UNet

PROBED = 4  # images whose two estimates are compared at a time: the same shapes, however many still need it
ENCODED = 8  # images at a time, for the statistics of their latents
PROBE_TOKENS = 10  # an image's probing score is the mean of so many largest token distances


class GLAD(AnomalyMethod):
    """Reconstruction by latent diffusion that adapts to each image, compared in the features of a backbone.

    What the original has and this does not: the category-wise object masks and the reverse comparison, which were
    chosen by category. What is otherwise than in its code: the sign of the ATP target (its newest is wrong), the first
    network call is at the step that the image was corrupted to, and nothing is taken over the batch.
    """

    name = "glad"
    noise_cut, opacity = 0.3, (0.0, 0.8)
    TrainSettings = GLADTrain
    ScoreSettings = GLADScore
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"demo": DEMO, "small": SMALL, "paper": PAPER}

    def __init__(self, train: GLADTrain, load_weights: bool = True) -> None:
        super().__init__(train)
        self.backbone = Backbone(train.backbone, load_weights)
        self.diffusion = Diffusion("scaled_linear", train.prediction)
        self.architecture: Tensor  # of networks that came from elsewhere, so that a model folder needs nothing else
        self.register_buffer("architecture", torch.zeros(0, dtype=torch.uint8))
        if train.pretrained:
            if load_weights:
                architecture, *networks = load_pretrained(train.pretrained, train.prompt)
                self.architecture = architecture.to_tensor()
                self._take(*networks)
        elif isinstance(train.autoencoder, str):
            if load_weights:
                given = given_autoencoder.load(train.autoencoder, train.image_size)
                self.architecture = given.to_tensor()
                self._take(given, UNet(given.channels, train.unet))
        else:
            codec = Autoencoder(train.autoencoder) if train.autoencoder else Pixels()
            self._take(codec, UNet(codec.channels, train.unet))

    @classmethod
    def untrained(cls, train: GLADTrain) -> GLAD:
        """The method with its backbone's weights left out."""
        return cls(train, load_weights=False)

    @classmethod
    def check(cls, train: GLADTrain) -> None:
        """Also the backbone's weights, the pretrained model and the given autoencoder."""
        super().check(train)
        backbones.check(train.backbone)
        if train.pretrained:
            check_pretrained(train.pretrained)
        elif isinstance(train.autoencoder, str):
            given_autoencoder.check(train.autoencoder, train.image_size)

    def load_trained(self, state: Mapping[str, Tensor]) -> None:
        """Take over a trained state; networks that came from elsewhere are built as it says."""
        told = state["architecture"]
        self.architecture = torch.empty_like(told)
        if self.settings.pretrained:
            self._take(*Architecture.from_tensor(told).build())
        elif isinstance(self.settings.autoencoder, str):
            given = GivenAutoencoder.from_tensor(told)
            self._take(given, UNet(given.channels, self.settings.unet))
        super().load_trained(state)

    def _take(self, codec: Any, unet: Any) -> None:
        self.codec, self.unet = codec, unet
        if self.settings.gradient_checkpointing:
            unet.net.enable_gradient_checkpointing()

    @property
    def trained(self) -> nn.Module:
        """The U-Net and, where one is learnt, the autoencoder."""
        learnt = {"codec": self.codec} if isinstance(self.codec, Autoencoder) else {}
        return nn.ModuleDict({"unet": self.unet} | learnt)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The two networks learn at rates of their own."""
        groups = [{"params": list(self.unet.parameters()), "lr": self.settings.learning_rate}]
        if isinstance(self.codec, Autoencoder):
            groups.append({"params": list(self.codec.parameters()), "lr": self.codec.settings.learning_rate})
        return groups

    @property
    def saw_made_anomalies(self) -> bool:
        """Unless it was trained on normal images alone."""
        return bool(self.settings.anomaly_oriented)

    def about(self) -> dict[str, Any]:
        """Also the backbone's licence and what the networks began as."""
        began = {"pretrained": self.settings.pretrained or "nothing, trained from scratch"}
        codec = self.codec
        if isinstance(codec, GivenAutoencoder):
            shape = f"factor {codec.factor}, {codec.channels} channels"
            began["autoencoder"] = f"{codec.kind} from {self.settings.autoencoder}, {shape}, frozen"
        return {**super().about(), "backbone_licence": self.backbone.licence, **began}

    def fit_statistics(self, examples: Examples, seed: int, report: Report = quiet) -> None:
        """Also what brings a given autoencoder's latents to zero mean and unit variance."""
        super().fit_statistics(examples, seed, report)
        if isinstance(self.codec, GivenAutoencoder):
            self.codec.fit(self._images(examples, report))

    def _images(self, examples: Examples, report: Report) -> Iterator[Tensor]:
        done = 0
        for batch in examples.batches():
            for part in batch.split(ENCODED):
                yield part[:, :3].to(self.device) / 255
            done += len(batch)
            report("latents", done, len(examples))

    def forward(self, examples: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the prediction that leads to the normal image (ATP), and the autoencoder's own loss."""
        shown, masks = self.with_anomalies(examples.cpu(), generator)
        normal = (examples[:, :3] / 255).to(self.device)
        with self.autocast():
            codec_loss = self.codec.loss(normal, generator)
            with torch.no_grad():
                z_normal = self.codec.encode(normal).float()
                z_shown = z_normal.clone()
                rows = masks.flatten(1).any(1).nonzero()[:, 0]  # the others are as they were
                if self.settings.anomaly_oriented and len(rows):
                    z_shown[rows.to(self.device)] = self.codec.encode(shown[rows].to(self.device)).float()
        z_normal, z_shown = (z.repeat(self.settings.noise_draws, 1, 1, 1) for z in (z_normal, z_shown))
        low, high = self.settings.noise_steps
        t = torch.randint(low, high, (len(z_normal),), generator=generator).to(self.device)
        noise = torch.randn(z_normal.shape, generator=generator).to(self.device)
        start = self.soft_start(z_normal, z_shown, t)
        output = self._predict(self.diffusion.add_noise(start, noise, t), t)
        return F.mse_loss(output, self.anomaly_oriented_target(start, z_normal, noise, t)) + codec_loss

    def soft_start(self, normal: Tensor, shown: Tensor, t: Tensor) -> Tensor:
        """x_s = (t / T) z_a + (1 - t / T) z_n: the more noise is to come, the more of the anomaly is in."""
        return torch.lerp(normal, shown, (t.to(normal.dtype) / self.diffusion.steps).view(-1, 1, 1, 1))

    def anomaly_oriented_target(self, start: Tensor, normal: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The target whose clean estimate is the normal latent z_n.

        Of the noise: noise + r (x_s - z_n) with r = sqrt(abar / (1 - abar)); v then has that noise and z_n in it.
        """
        alpha_bar = self.diffusion.alpha_bar[t].view(-1, 1, 1, 1)
        led = noise + (alpha_bar / (1 - alpha_bar)).sqrt() * (start - normal)
        return self.diffusion.target(normal, led, t)

    @torch.inference_mode()
    def maps(self, examples: Tensor, keys: Sequence[str], score: GLADScore) -> AnomalyMaps:
        """Distances of the image's features to those of its reconstruction; each image's own step is told of it."""
        images = examples[:, :3].to(self.device).float() / 255
        latents = self._encode(images)
        clean, details = self._denoised(latents, keys, score)
        reconstructed = self._decode(clean)
        found = torch.zeros_like(images[:, :1])
        for layer, other in zip(self._features(images), self._features(reconstructed), strict=True):
            distance = nearest_token_distance(layer, other, score.reach)[:, None]
            found += F.interpolate(distance, images.shape[-2:], mode="bilinear", align_corners=False)
        if score.latent_weight:
            apart = (clean - latents).square().mean(1, keepdim=True).sqrt()
            apart = F.interpolate(apart, images.shape[-2:], mode="bilinear", align_corners=False)
            found += score.latent_weight * apart
        if score.pixel_weight:
            difference = (images - reconstructed).abs().mean(1, keepdim=True)
            found += score.pixel_weight * difference * _largest(found) / _largest(difference).clamp_min(1e-6)
        found = found * looked_at(examples).to(self.device)
        return AnomalyMaps(gaussian_blur(found, score.blur_sigma)[:, 0], details)

    @property
    def reconstructs(self) -> bool:
        """Always."""
        return True

    @torch.inference_mode()
    def reconstructions(self, examples: Tensor, keys: Sequence[str], score: GLADScore) -> Tensor:
        """Those whose features the images' own are compared with."""
        clean, _ = self._denoised(self._encode(examples[:, :3].to(self.device).float() / 255), keys, score)
        return self._decode(clean).clamp(0, 1)

    def reader(self, score: GLADScore, height: int, width: int) -> MapReader:
        """Image scores are the mean of the map's largest pixels."""
        return LargestPixels(score.top_pixels)

    def reconstruct(self, latents: Tensor, noise: Tensor, score: GLADScore) -> tuple[Tensor, dict[str, Tensor]]:
        """Adaptive denoising of latents (N, C, h, w): the reconstruction, and what it tells of each image.

        `chosen_step` is the step where the image itself took over from the path of pure denoising, 0 if it never did;
        `probing_score` is the largest that was seen until then, told only where there is a switch distance.
        """
        x = self.diffusion.add_noise(latents, noise, _full(score.start_step, latents))
        probing = torch.ones(len(latents), dtype=torch.bool, device=latents.device)
        chosen, largest = torch.zeros_like(latents[:, 0, 0, 0]), torch.zeros_like(latents[:, 0, 0, 0])
        clean = latents
        timesteps = spaced_timesteps(score.start_step, score.denoising_steps)
        for at, following in itertools.pairwise([*timesteps, 0]):
            t = _full(at, latents)
            output = self._predict(x, t, score.guidance_scale)
            clean, estimated = self.diffusion.estimates(output, x, t)
            rows, forced = probing.nonzero()[:, 0], at < score.least_step
            if len(rows) and (forced or score.switch_distance is not None):
                restarted, _ = self.diffusion.estimates(output, self.diffusion.add_noise(latents, noise, t), t)
                switch = torch.full_like(rows, forced, dtype=torch.bool)
                share = torch.zeros_like(clean[rows, :1])  # of the path, where the image itself takes over
                if score.switch_distance is not None:
                    distance = self._probe(restarted[rows], clean[rows])
                    seen = distance.flatten(1).topk(min(PROBE_TOKENS, distance[0].numel())).values.mean(1)
                    largest[rows] = torch.maximum(largest[rows], seen)
                    parted = seen > score.switch_distance
                    switch |= parted
                    if score.fusion:
                        share = self.fusion_mask(distance, latents.shape[-2:]) * parted.view(-1, 1, 1, 1)
                now = rows[switch]
                clean[now] = torch.lerp(restarted[now], clean[now], share[switch])
                chosen[now] = at
                probing[now] = False
            if following:
                x = self.diffusion.add_noise(clean, estimated, _full(following, latents))
        details = {"chosen_step": chosen}
        return clean, details if score.switch_distance is None else details | {"probing_score": largest}

    def fusion_mask(self, distance: Tensor, size: Sequence[int]) -> Tensor:
        """SAFF's share of the path's estimate (N, 1, *size): sigmoid of the token distances, so from a half up."""
        return F.interpolate(distance[:, None], size, mode="bilinear", align_corners=False).sigmoid()

    def _probe(self, restarted: Tensor, path: Tensor) -> Tensor:
        """(M, g, g) distances of the two estimates' last-layer tokens, a few images at a time."""
        found = []
        for pair in zip(restarted.split(PROBED), path.split(PROBED), strict=True):
            inside, along = (self._features(self._decode(filled(each, PROBED)))[-1] for each in pair)
            found.append(nearest_token_distance(inside, along)[: len(pair[0])])
        return torch.cat(found)

    def _features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The backbone's layers of images (N, 3, S, S) in [0, 1]."""
        size = (self.settings.feature_size,) * 2
        resized = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        with self.autocast():
            features: Tensor = self.backbone.features(resized)
        return features.float().split(self.backbone.stage_channels, 1)

    def _denoised(self, latents: Tensor, keys: Sequence[str], score: GLADScore) -> tuple[Tensor, dict[str, Tensor]]:
        noise = keyed_noise(keys, latents.shape[1:], score.noise_seed, latents.device)
        return self.reconstruct(latents, noise, score)

    def _encode(self, images: Tensor) -> Tensor:
        with self.autocast():
            latents: Tensor = self.codec.encode(images)
        return latents.float()

    def _decode(self, latents: Tensor) -> Tensor:
        with self.autocast():
            images: Tensor = self.codec.decode(latents)
        return images.float()

    def _predict(self, x: Tensor, t: Tensor, guidance_scale: float = 1.0) -> Tensor:
        guided = guidance_scale != 1 and isinstance(self.unet, PromptedUNet)
        with self.autocast():
            output: Tensor = self.unet.guided(x, t, guidance_scale) if guided else self.unet(x, t)
        return output.float()


def _full(step: int, like: Tensor) -> Tensor:
    return torch.full((len(like),), step, device=like.device)


def _largest(maps: Tensor) -> Tensor:
    return maps.amax((1, 2, 3), keepdim=True)
