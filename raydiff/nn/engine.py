"""What computes a frozen network's features on CPUs: torch, or OpenVINO where somebody asks for it. No torch here."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

from raydiff.errors import SettingsError

Engine = Literal["torch", "openvino"]


def check_engine(engine: Engine) -> None:
    """Whether the engine is installed in this process's Python.

    Raises:
        SettingsError: if it is not.
    """
    assert engine in get_args(Engine)
    if engine == "openvino" and importlib.util.find_spec("openvino") is None:
        raise SettingsError("--engine openvino needs one more package, on all nodes: pip install 'raydiff[openvino]'")
