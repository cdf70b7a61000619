"""Frozen timm backbones as hierarchical feature extractors on one grid (LafitE section 3.1, UniAD's aggregation)."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from safetensors.torch import load_file
from torch import Tensor, nn

from raydiff import storage
from raydiff.errors import SettingsError
from raydiff.nn import hub, packaged
from raydiff.nn.engine import Engine
from raydiff.nn.folding import fold_batch_norms
from raydiff.nn.openvino_net import OpenVINONet
from raydiff.nn.packaged import PACKAGES
from raydiff.settings import Settings
from raydiff.vision_libraries import timm

HUB = "hub"
PACKAGE = "package"
RANDOM = "random"
RANDOM_SEED = 0
TRANSFORMERS = ("timm.models.vision_transformer", "timm.models.deit", "timm.models.eva")  # of tokens on one grid
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm looks for, in this order
UNTRAINED = (
    "The backbone has random weights. Untrained features find defects in textures but miss many on parts; "
    "give --backbone tf_efficientnet_lite0, whose weights come with raydiff, or --backbone-weights a weights file, or "
    "`hub` where a model hub can be reached."
)


class BackboneSettings(Settings):
    """Which frozen network, with which weights, and what is taken from it."""

    name: str = "efficientnet_b4"
    # "package" (installed with pip, see `packaged`; the default of networks that have one), "hub" (timm's pretrained
    # weights; the default of all others), "random", or the URI of a weights file
    weights: str = HUB
    timm_options: dict[str, Any] = Field(default_factory=dict)  # passed to timm.create_model, e.g. {"pad_type": "same"}
    mean: tuple[float, float, float] | None = None  # of the weights' training images; timm's own by default
    std: tuple[float, float, float] | None = None
    stages: tuple[int, ...] = Field((0, 1, 2, 3), min_length=1)  # timm's feature levels, shallow first
    grid: int = Field(28, ge=1)  # every stage is brought to grid x grid positions
    neighbourhood: int = Field(3, ge=1)  # each stage is averaged over this many positions a side; 1 = not
    # what lies beyond the image in that average: nothing, or zeros, as in PatchCore, which fades the border
    neighbourhood_padding: Literal["left_out", "zeros"] = "left_out"
    final_norm: bool = False  # a transformer's last normalisation is applied to the tokens of each of its `stages`

    @model_validator(mode="before")
    @classmethod
    def _weights_of_a_package(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("name") in PACKAGES:
            return {"weights": PACKAGE, **values}
        return values


class Backbone(nn.Module):
    """Images to one (N, C, grid, grid) feature tensor; never trained.

    Args:
        settings: what to build. Weights are fetched only here.
        load_weights: False builds the network without its weights, for a model folder that brings them.

    Raises:
        SettingsError: if timm does not know the name or the stages, or the weights cannot be had or do not fit.
    """

    def __init__(self, settings: BackboneSettings, load_weights: bool = True) -> None:
        super().__init__()
        self.settings = settings
        if not timm.is_model(settings.name):
            near = difflib.get_close_matches(settings.name, timm.list_models(), n=5)
            raise SettingsError(f"timm has no backbone {settings.name!r}; near it: {', '.join(near) or 'none'}")
        try:
            # Every worker builds the network anew, and random weights must be the same in all of them.
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(RANDOM_SEED)
                self.net: Any = self._build(pretrained=load_weights and settings.weights == HUB)
        except (AssertionError, IndexError, RuntimeError, TypeError) as error:
            raise SettingsError(
                f"backbone {settings.name!r} with stages {settings.stages} and options {settings.timm_options} "
                f"cannot be built: {error}"
            ) from error
        if load_weights and settings.weights == PACKAGE:
            self._fill(packaged.read(settings.name), f"the package with weights of {settings.name!r}")
        elif load_weights and settings.weights not in (HUB, RANDOM):
            self._check_kind(settings.weights)
            with storage.local_copy(settings.weights) as path:
                self._fill(read_weights(settings.weights, path), settings.weights)
        config: Mapping[str, Any] = getattr(self.net, "pretrained_cfg", None) or {}
        # of the weights: timm knows its own; whoever gives a file knows that file's
        known = {HUB: str(config.get("license") or "not stated by timm"), RANDOM: "none needed: random weights"}
        if settings.name in PACKAGES:
            known[PACKAGE] = PACKAGES[settings.name].licence
        self.licence = known.get(settings.weights, f"that of {settings.weights}")
        mean = settings.mean or config.get("mean") or timm.data.IMAGENET_DEFAULT_MEAN
        std = settings.std or config.get("std") or timm.data.IMAGENET_DEFAULT_STD
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1))
        self._channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"  # Swin's, for one
        self.stage_channels: list[int] = self.net.feature_info.channels()
        self.channels = sum(self.stage_channels)
        self.requires_grad_(False).eval()
        fold_batch_norms(self.net)
        self._openvino: OpenVINONet | None = None

    def use(self, engine: Engine) -> None:
        """Compute features on CPUs with this engine from now on."""
        self._openvino = OpenVINONet(self.net) if engine == "openvino" else None

    def train(self, mode: bool = True) -> Backbone:
        """Stay in evaluation mode: batch statistics must not move."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, H, W, 3) images to (N, C, grid, grid) features."""
        return self.features(images.permute(0, 3, 1, 2).to(self.mean.dtype).div(255))

    def features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] to (N, C, grid, grid) features."""
        pixels = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        compiled = self._openvino if pixels.device.type == "cpu" and not pixels.requires_grad else None
        stages = (compiled or self.net)(pixels)
        if self._channels_last:
            stages = [stage.permute(0, 3, 1, 2) for stage in stages]
        return torch.cat([self._on_grid(stage) for stage in stages], dim=1)

    def _on_grid(self, stage: Tensor) -> Tensor:
        width = self.settings.neighbourhood
        if width > 1:
            rows, columns = stage.shape[-2:]  # an even width would give one more of both
            zeros = self.settings.neighbourhood_padding == "zeros"
            stage = F.avg_pool2d(stage, width, stride=1, padding=width // 2, count_include_pad=zeros)
            stage = stage[..., :rows, :columns]
        grid = (self.settings.grid, self.settings.grid)
        return F.interpolate(stage, grid, mode="bilinear", align_corners=False)

    def _build(self, pretrained: bool) -> Any:
        if pretrained:
            check_hub(self.settings.name)
        settings = self.settings
        options = dict(settings.timm_options)
        if timm.model_entrypoint(settings.name).__module__ in TRANSFORMERS:
            options = {"dynamic_img_size": True} | options  # position embeddings are resampled to the images' size
        try:
            if settings.final_norm:
                whole = timm.create_model(settings.name, pretrained=pretrained, num_classes=0, **options)
                return timm.models._features.FeatureGetterNet(whole, settings.stages, norm=True)
            return timm.create_model(
                settings.name, pretrained=pretrained, features_only=True, out_indices=settings.stages, **options
            )
        except hub.FAILURES as error:
            raise _not_fetched(self.settings.name, type(error).__name__) from None

    @staticmethod
    def _check_kind(weights: str) -> None:
        """Whether that is meant for a file; a word alone is more likely one of three that is misspelt."""
        if re.fullmatch(r"\w*", weights) and not storage.exists(weights):
            raise SettingsError(
                f"--backbone-weights {weights!r} is none of {PACKAGE}, {HUB} and {RANDOM}, and no file of weights is "
                "called so; give one of them, or the URI of a .safetensors or .pth file"
            )

    def _fill(self, state: Mapping[str, Tensor], where: str) -> None:
        wanted = self.net.state_dict()
        found = {key: state[name] for key in wanted for name in _names_in_file(key) if name in state}
        lacking = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
        if lacking:
            raise SettingsError(
                f"{where} lacks {len(lacking)} of the {len(wanted)} tensors of {self.settings.name!r} "
                f"(the first: {lacking[0]}); give the weights of that architecture"
            )
        try:
            self.net.load_state_dict(found, strict=False)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise SettingsError(f"{where} does not fit {self.settings.name!r}: {reason}") from None


def check(settings: BackboneSettings) -> None:
    """Whether the network can be built and its weights can be had, before anything is begun with them.

    A file is read whole; a model hub is only asked, within some seconds.

    Raises:
        SettingsError, StorageError: as `Backbone`.
    """
    Backbone(settings, load_weights=settings.weights != HUB)
    if settings.weights == HUB:
        check_hub(settings.name)


def check_hub(name: str) -> None:
    """Whether timm's pretrained weights can be had; timm itself would try for minutes.

    Raises:
        SettingsError: if they cannot.
    """
    config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    try:
        if config is not None and config.hf_hub_id:
            repo, _, revision = config.hf_hub_id.partition("@")
            files = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
            hub.check(repo, files, revision or None)
        elif config is not None and config.url:
            url = str(config.url)
            if not os.path.exists(os.path.join(torch.hub.get_dir(), "checkpoints", os.path.basename(url))):
                hub.check_url(url)
    except hub.HubError as error:
        raise _not_fetched(name, str(error)) from None


def read_weights(uri: str, path: str) -> Mapping[str, Tensor]:
    """The tensors of a file of weights that lies at `path`; nothing in it is executed.

    Raises:
        SettingsError: if it is neither safetensors nor a state dict and nothing else; names it by `uri`.
    """
    try:
        if path.endswith(".safetensors"):
            return load_file(path)
        state: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both libraries raise many kinds
        raise SettingsError(
            f"{uri} cannot be read as weights ({type(error).__name__}); "
            "give a .safetensors file, or a .pth file of a state dict and nothing else"
        ) from None
    return state


def _not_fetched(name: str, reason: str) -> SettingsError:
    return SettingsError(
        f"the pretrained weights of {name!r} could not be fetched from the model hub ({reason}); give "
        "--backbone-weights the URI of a weights file, or `random` to go on untrained, or --backbone "
        "tf_efficientnet_lite0, whose weights come with raydiff"
    )


def _names_in_file(key: str) -> tuple[str, str, str]:
    """What a tensor of a feature network may be called in the file of the whole: timm takes some networks apart, so
    that `stages.0` becomes `stages_0`, and wraps others in `model`. The last one there counts.
    """
    return key.replace("_", ".", 1), key.removeprefix("model."), key
