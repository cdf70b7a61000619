"""What was made last, as far as so many bytes hold it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

V = TypeVar("V")


class Recent(Generic[V]):
    """A cache of bounded size; may be used by several threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._held = most_bytes, 0
        self._found: OrderedDict[Hashable, tuple[V, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> V | None:
        """What was put there, None where that is gone."""
        with self._lock:
            if key not in self._found:
                return None
            self._found.move_to_end(key)
            return self._found[key][0]

    def put(self, key: Hashable, value: V, size: int) -> None:
        """Keep a value of so many bytes; those that were longest not asked for make room. One too large is not kept."""
        if size > self._most:
            return
        with self._lock:
            self._held += size - self._found.pop(key, (value, 0))[1]
            self._found[key] = value, size
            while self._held > self._most:
                _, (_, freed) = self._found.popitem(last=False)
                self._held -= freed
