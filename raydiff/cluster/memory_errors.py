"""What is said where memory ran out: a GPU's, a process's, or a node's as Ray sees it."""

from __future__ import annotations

import re

from ray.exceptions import OutOfMemoryError

from raydiff.errors import ClusterError

_LESS = (
    "give --set accumulation=2 (or more: a batch goes through in parts) or a smaller --set batch_size or "
    "image_size, or let fewer share it (--trials-per-gpu, --replicas, --workers)"
)
_OF_A_GPU = re.compile(r"CUDA out of memory\. Tried to allocate ([\d.]+ \w+)")
_OF_A_PROCESS = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory: you tried to allocate (\d+ bytes)"
    r"|_ArrayMemoryError: Unable to allocate ([\d.]+ \w+)"
)
_OF_A_NODE = re.compile(r"running low on memory|\w*ray\.exceptions\.OutOfMemoryError")


def out_of_memory(error: BaseException) -> ClusterError | None:
    """What to do where an error, or the traceback in its text, says that memory ran out; None where it does not."""
    text = str(error)
    if found := _OF_A_GPU.search(text):
        return ClusterError(f"the memory of a GPU does not suffice ({found[1]} more were asked of it); {_LESS}")
    found = _OF_A_PROCESS.search(text)
    if found or isinstance(error, MemoryError):
        amount = f" ({found[1] or found[2]} more were asked for)" if found else ""
        return ClusterError(f"the memory of this machine, or of a node, does not suffice{amount}; {_LESS}")
    if isinstance(error, OutOfMemoryError) or _OF_A_NODE.search(text):
        return ClusterError(f"the memory of a node does not suffice, so Ray ended a worker there; {_LESS}")
    return None
