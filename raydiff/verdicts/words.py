"""Which of the words that people write of an image means which verdict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from raydiff.errors import SettingsError
from raydiff.images.names import ABNORMAL_WORDS, NORMAL_WORDS
from raydiff.verdicts.table import DEFECT, NORMAL, UNSURE

_KNOWN = {
    **dict.fromkeys((*NORMAL_WORDS, "false alarm", "false positive", "no defect", "fine"), NORMAL),
    **dict.fromkeys((*ABNORMAL_WORDS, DEFECT, "true positive"), DEFECT),
    **dict.fromkeys((UNSURE, "uncertain", "unclear", "unknown", "borderline", "doubtful", "maybe"), UNSURE),
}


@dataclass(frozen=True)
class Words:
    """What words mean, as the user says it and by themselves; compared without regard to case and to what joins them.

    Attributes:
        given: verdicts by words of the user's.
    """

    given: dict[str, str]

    @classmethod
    def parse(cls, normal: Sequence[str] | None, defect: Sequence[str] | None, unsure: Sequence[str] | None) -> Words:
        """From options that may be repeated and hold several words, with commas between.

        Raises:
            SettingsError: if a word is empty or is said to mean two verdicts.
        """
        given: dict[str, str] = {}
        for verdict, told in zip((NORMAL, DEFECT, UNSURE), (normal, defect, unsure), strict=True):
            for word in (word for item in told or () for word in item.split(",")):
                if not _plain(word):
                    raise SettingsError(f"--{verdict} {word!r} is no word, as in --normal reflection --defect scratch")
                if given.setdefault(_plain(word), verdict) != verdict:
                    raise SettingsError(f"{word} cannot be --{given[_plain(word)]} and --{verdict}; give it once")
        return cls(given)

    def of_cell(self, word: str) -> str | None:
        """The verdict that a table's cell means, None where it is no word for one."""
        return self.given.get(_plain(word)) or _KNOWN.get(_plain(word))

    def of_label(self, name: str) -> str | None:
        """The verdict that a drawn label means by its name, as `scratch`; None where that is not said.

        Labels are drawn for what is found. So all that mean nothing else are defects, unless the user names these.
        """
        return self.of_cell(name) or (None if DEFECT in self.given.values() else DEFECT)


def _plain(word: str) -> str:
    return re.sub(r"[\s_-]+", " ", word).strip().lower()
