"""A trained model and its folder.

A model folder holds two files: `weights.safetensors` (network, statistics, memory bank) and `model.json` (settings,
calibration, card, and the hashes). Neither can execute anything when read. `model.json` is replaced as a whole, so a
reader sees the model before a change or after it; its id is the hash of all that decides a score or an alarm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from raydiff import methods, storage
from raydiff.errors import ImageError, ModelFolderError, SettingsError, StorageError
from raydiff.images.decode import MAX_PIXELS, Seen, see
from raydiff.images.levels import Levels
from raydiff.methods.base import Method, ScoreSettings
from raydiff.model.calibration import Calibration
from raydiff.model.description import DESCRIPTION, FORMAT, WEIGHTS, describe, model_id
from raydiff.model.reconstruction import reconstruction
from raydiff.model.scored import Scored
from raydiff.model.scorer import InRows, score_images
from raydiff.nn.backbones import Backbone
from raydiff.nn.engine import Engine, check_engine
from raydiff.nn.positions import PositionStatistics
from raydiff.views import Arrays, View
from raydiff.views.banded import seen_rows


class Model:
    """A method with its trained state, score settings, position statistics, calibration and card.

    Attributes:
        method: the torch module.
        score_settings: how it scores.
        positions: what normal images' maps hold at each position, or None before `tune`: maps are the method's own.
        calibration: alarm thresholds and p-values, or None before `calibrate`.
        card: how the model was made; free to read, decides nothing.
    """

    def __init__(
        self,
        method: Method,
        score_settings: ScoreSettings,
        calibration: Calibration | None = None,
        card: dict[str, Any] | None = None,
        positions: PositionStatistics | None = None,
    ) -> None:
        self.method = method.eval()
        self.score_settings = score_settings
        self.calibration = calibration
        self.card = card or {}
        self.positions = positions
        self._weights_hash: str | None = None
        self._saved = False

    @property
    def image_size(self) -> int:
        """The networks' input is a square of this many pixels."""
        size: int = self.method.settings.image_size
        return size

    @property
    def view(self) -> View:
        """What of an image the networks see."""
        view: View = self.method.settings.view
        return view

    @property
    def levels(self) -> Levels | None:
        """Which stored values are black and white, for `images.decode`; None: as each file says.

        Of a category that has its own, `levels.of(category)`.
        """
        levels: Levels | None = self.method.settings.levels
        return levels

    @property
    def id(self) -> str:
        """Content hash of weights, settings and calibration: 16 hexadecimal digits."""
        if self._weights_hash is None:
            self._weights_hash = hashlib.sha256(self._weights()).hexdigest()
        return model_id(self._description(self._weights_hash))

    def use(self, engine: Engine) -> None:
        """Have its backbones' features computed on CPUs by this engine from now on; scores move by a millionth.

        Raises:
            SettingsError: if it is not installed.
        """
        check_engine(engine)
        for module in self.method.modules():
            if isinstance(module, Backbone):
                module.use(engine)

    def score(self, images: Sequence[np.ndarray], categories: Sequence[str | None] | None = None) -> Scored:
        """Score RGB images: uint8 arrays (H, W, 3) of any sizes. Maps are at the scale that the model sees them at.

        A file's image is as `decode(data, levels=model.levels)` gives it (`raydiff.images.decode`); where the model
        sees large JPEGs unpacked at a part of their size, only `seen` gives what it sees, to the bit.

        Args:
            categories: what each image shows, where it is known; a category's normal images have odd places of their
                own. The others are guessed, where the method can (`Scored.guessed`).

        Raises:
            SettingsError: if an image has another type or shape, or there are not as many categories as images.
            ImageError: if the view's crop lies outside an image, or it has a region of interest a category and none for
                an image's.
        """
        if categories is not None and len(categories) != len(images):
            raise SettingsError(f"{len(images)} images and {len(categories)} categories; give each image one, or None")
        for position, image in enumerate(images):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise SettingsError(
                    f"image {position} is {image.dtype} {image.shape}; uint8 RGB (height, width, 3) is expected"
                )
        shown = [None] * len(images) if categories is None else categories
        pairs = zip(images, shown, strict=True)
        return self.score_seen([self.view.seen(image, self.image_size, category) for image, category in pairs], shown)

    def seen(
        self, data: bytes, category: str | None = None, max_pixels: int = MAX_PIXELS, page: int | None = None
    ) -> Seen:
        """What the model sees of an image file; `score_seen` of its pixels is the score that every other way tells.

        Args:
            data: the file's bytes.
            category: what the image shows, where it is known; its levels and its region may be its own.
            max_pixels: of a larger image nothing is unpacked.
            page: which page of a file of several, from 1.

        Raises:
            ImageError: if the bytes are no image that is read, or the view's crop lies outside it.
        """
        return see(data, self.view, self.image_size, max_pixels, self.levels, page, category)

    def score_seen(self, images: Arrays, categories: Sequence[str | None] | None = None) -> Scored:
        """Score images as the model's view has them (see `View.seen`)."""
        size = self.image_size
        if not len(images):
            return Scored(np.zeros(0), np.zeros((0, size, size), np.float32), {}, [])
        shown = [None] * len(images) if categories is None else categories
        return score_images(self.method, images, self.score_settings, self.positions, shown)

    def in_rows(
        self, rows: Callable[[], Iterable[np.ndarray]], height: int, width: int, category: str | None = None
    ) -> InRows:
        """The score and the map, row by row, of an image that comes in bands of its rows, as of the whole to the bit.

        The model's view has tiles, and no region of interest.

        Args:
            rows: the image's, uint8 RGB (h, W, 3), from its top on, each time anew.

        Raises:
            ImageError: if the view's crop lies outside the image, or what it leaves is smaller than a tile.
        """
        view, size = self.view, self.image_size
        layout = view.layout_of(height, width, size)
        if min(layout.height, layout.width) < size:
            raise ImageError(
                f"the image is {width} x {height} pixels, and what is to be seen of it narrower than a tile of "
                f"{view.tile}: such images are not read in bands; cut it, or raise --max-pixels"
            )
        return InRows(
            self.method,
            lambda: seen_rows(view, rows(), height, width, size),
            layout,
            self.score_settings,
            self.positions,
            [category],
        )

    def reconstruction(self, image: np.ndarray) -> np.ndarray | None:
        """What the method takes an image for, to look at (see `model.reconstruction`); None where it makes no picture.

        Args:
            image: as the model's view has it (see `View.seen`).
        """
        return reconstruction(self.method, image, self.score_settings)

    def save(self, uri: str) -> None:
        """Write the whole folder; the description goes last, so that a half-written folder is never a model."""
        weights = self._weights()
        self._weights_hash = hashlib.sha256(weights).hexdigest()
        storage.write_bytes(storage.join(uri, WEIGHTS), weights)
        self._saved = True
        self.save_description(uri)

    def save_description(self, uri: str) -> None:
        """Write settings, calibration and card of a model whose weights lie at `uri` already."""
        if not self._saved or self._weights_hash is None:
            raise ModelFolderError(f"{uri}: the weights have not been written; save the whole model first")
        description = self._description(self._weights_hash)
        description |= {"id": model_id(description), "card": self.card}
        storage.write_json(storage.join(uri, DESCRIPTION), description)

    def _weights(self) -> bytes:
        state = {key: value.contiguous().cpu() for key, value in self.method.state_dict().items()}
        return safetensors.torch.save(state)

    def _description(self, weights_hash: str) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "method": self.method.name,
            "settings": {
                "train": self.method.settings.model_dump(mode="json"),
                "score": self.score_settings.model_dump(mode="json"),
            },
            "positions": self.positions.model_dump(mode="json") if self.positions else None,
            "calibration": self.calibration.model_dump(mode="json") if self.calibration else None,
            "weights_sha256": weights_hash,
        }


def load(uri: str, device: str | torch.device | None = None) -> Model:
    """Load a model folder. Nothing in it is executed.

    Args:
        uri: the folder, local or in object storage.
        device: where to compute; a GPU if there is one, by default.

    Raises:
        ModelFolderError: if the folder is missing, incomplete, changed since it was written, or of another format.
    """
    description = describe(uri)
    try:
        weights = storage.read_bytes(storage.join(uri, WEIGHTS))
    except StorageError as error:
        raise ModelFolderError(f"{uri} is not a whole model folder: {error}") from None
    if hashlib.sha256(weights).hexdigest() != description["weights_sha256"]:
        raise ModelFolderError(
            f"{uri}: {WEIGHTS} is not the file that {DESCRIPTION} describes (changed or cut short); "
            "copy the folder anew"
        )
    settings = description["settings"]
    try:
        kind = methods.get(description["method"])
        method = kind.untrained(kind.TrainSettings.parse(settings["train"]))
        score = kind.ScoreSettings.parse(settings["score"])
        method.load_trained(safetensors.torch.load(weights))
    except SettingsError as error:
        raise ModelFolderError(f"{uri} was written by another raydiff: {error}") from None
    except (RuntimeError, SafetensorError, KeyError) as error:
        raise ModelFolderError(f"{uri}: the weights do not fit {description['method']}: {error}") from None
    method.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    positions, calibration = description["positions"], description["calibration"]
    model = Model(
        method,
        score,
        Calibration.parse(calibration) if calibration else None,
        description["card"],
        PositionStatistics.parse(positions) if positions else None,
    )
    model._weights_hash = description["weights_sha256"]
    model._saved = True
    return model
