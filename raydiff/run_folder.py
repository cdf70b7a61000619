"""Where the things of one run lie under its `--out` folder."""

from __future__ import annotations

from raydiff import storage
from raydiff.errors import DataError

ROLES = ("fit", "tune", "calibrate", "test")


class RunFolder:
    """The layout of a run: `images.parquet`, `tables/`, `models/`, `tuning/`, `scores/`, `report.html`, `work/`.

    With a model per category, each has a run of its own under `categories/`.
    `work/` holds what only makes a second start faster (examples, checkpoints, finished trials); it may be deleted.
    """

    def __init__(self, uri: str) -> None:
        self.uri = storage.absolute(uri)
        self.images = storage.join(self.uri, "images.parquet")
        self.report = storage.join(self.uri, "report.html")
        self.work = storage.join(self.uri, "work")
        self.trials = storage.join(self.uri, "tuning", "trials.csv")
        self.trials_plot = storage.join(self.uri, "tuning", "trials.svg")

    @classmethod
    def existing(cls, uri: str) -> RunFolder:
        """A run that is there.

        Raises:
            DataError: if it has no image table.
        """
        run = cls(uri)
        if not storage.exists(run.images):
            raise DataError(f"{run.uri} holds no image table; run `raydiff index --data URI --out {run.uri}` first")
        return run

    def table(self, role: str) -> str:
        """The part of the image table with one role (see images.holdout): fit, tune, calibrate or test."""
        return storage.join(self.uri, "tables", f"{role}.parquet")

    def category(self, name: str) -> str:
        """The run of one category alone."""
        return storage.join(self.uri, "categories", name)

    def model(self, name: str) -> str:
        """A model folder."""
        return storage.join(self.uri, "models", name)

    def existing_model(self, name: str) -> str:
        """A model folder that is there.

        Raises:
            DataError: if the run has no model of that name.
        """
        if not storage.exists(self.model(name)):
            raise DataError(f"{self.uri} has no model {name!r}; it has {', '.join(self.models())}")
        return self.model(name)

    def tuning(self, name: str) -> str:
        """The result of a tuning."""
        return storage.join(self.uri, "tuning", f"{name}.json")

    def scores(self, name: str, model_id: str, role: str = "test") -> str:
        """The score table that one state of a model (its id) makes of the images with a role."""
        return storage.join(self.uri, "scores", f"{name}-{model_id}", role)

    def evaluation(self, name: str, model_id: str) -> str:
        """The evaluation of the test score table."""
        return storage.join(self.uri, "scores", f"{name}-{model_id}", "evaluation.json")

    def models(self) -> list[str]:
        """Names of the models there are.

        Raises:
            DataError: if there is none.
        """
        folder = storage.join(self.uri, "models")
        names = [storage.name(uri) for uri in storage.list_folders(folder)] if storage.exists(folder) else []
        if not names:
            raise DataError(f"{self.uri} holds no model yet; run `raydiff train --out {self.uri}` first")
        return names
