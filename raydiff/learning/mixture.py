"""What the images are that calibrate a model which has learnt."""

from __future__ import annotations

from typing import NamedTuple


class Mixture(NamedTuple):
    """What a category's calibrating images are."""

    own: int  # normals of the run
    quiet: int  # images judged normal that had not raised an alarm
    alarmed: int  # and those that had

    @property
    def images(self) -> int:
        """All of them."""
        return self.own + self.quiet + self.alarmed

    @property
    def share_alarmed(self) -> float:
        """Of all of them those that had raised an alarm and were judged normal."""
        return self.alarmed / self.images
