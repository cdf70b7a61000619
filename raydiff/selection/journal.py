"""What finished trials have found, for a tuning that is run again after its driver was killed.

A small JSON file a trial, because object stores do not append, each written whole. All lie in a folder that is named by
what their results depend on, so that the same command finds them and a changed one does not. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, MutableMapping
from typing import Any

from raydiff import storage
from raydiff.storage.patience import patiently


class Journal(MutableMapping[str, dict[str, Any]]):
    """A mapping of trials, by what tells one from another, to what they found; each new one becomes a file.

    Args:
        folder: where the journals of all tunings lie.
        depends: all that the results depend on beside the trial itself, as JSON has it.

    Raises:
        StorageError: if the folder is there and cannot be read.
    """

    def __init__(self, folder: str, depends: Any) -> None:
        self._folder = storage.join(folder, _digest(json.dumps(depends, sort_keys=True)))
        files = patiently(storage.list_files, self._folder) if patiently(storage.exists, self._folder) else []
        # What ends otherwise is a file that a killed driver was still writing.
        entries = [patiently(storage.read_json, uri) for uri in files if uri.endswith(".json")]
        self._found: dict[str, dict[str, Any]] = {entry["trial"]: entry["found"] for entry in entries}

    def __getitem__(self, trial: str) -> dict[str, Any]:
        return self._found[trial]

    def __setitem__(self, trial: str, found: dict[str, Any]) -> None:
        entry = {"trial": trial, "found": found}
        patiently(storage.write_json, storage.join(self._folder, f"{_digest(trial)}.json"), entry)
        self._found[trial] = found

    def __delitem__(self, trial: str) -> None:
        patiently(storage.delete, storage.join(self._folder, f"{_digest(trial)}.json"))
        del self._found[trial]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
