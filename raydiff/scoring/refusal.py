"""What an HTTP request is refused with."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """A request that is not answered as it wished: the status and one sentence that says why."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = dict(headers or {})
