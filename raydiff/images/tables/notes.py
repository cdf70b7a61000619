"""What of a user's table was taken for what, said in a few lines when it has been read."""

from __future__ import annotations

from collections import defaultdict

MOST_WORDS = 12  # of a column; a word may come in many spellings


class Notes:
    """Gathers sentences, each once and in their order."""

    def __init__(self) -> None:
        self._sentences: dict[str, None] = {}
        self._words: defaultdict[str, dict[str, str]] = defaultdict(dict)

    def say(self, sentence: str) -> None:
        """Something about the whole table or a column."""
        self._sentences[sentence] = None

    def word(self, column: str, word: str, meaning: str) -> None:
        """A column's value that was taken for another."""
        if word.strip() and len(self._words[column]) < MOST_WORDS:
            self._words[column].setdefault(word, meaning)

    def sentences(self) -> list[str]:
        """All of them."""
        words = [
            f"column {column!r}: {', '.join(f'{word} -> {meaning}' for word, meaning in found.items())}"
            for column, found in self._words.items()
        ]
        return [*self._sentences, *words]
