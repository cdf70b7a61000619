"""Which folders hold normals and which anomalies, as a user names them: `--normal OK --anomalous NG,scratch`."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from raydiff.errors import SettingsError
from raydiff.images.names import MASK_FOLDERS, few, said_by


@dataclass(frozen=True)
class FolderNames:
    """Names of folders, as given; they are compared without regard to case."""

    normal: tuple[str, ...] = ()
    anomalous: tuple[str, ...] = ()

    @classmethod
    def parse(cls, normal: Sequence[str] | None, anomalous: Sequence[str] | None) -> FolderNames:
        """From options that may be repeated and hold several names, with commas between.

        Raises:
            SettingsError: if one is no folder's name, or is given as both.
        """
        given = {"--normal": _split(normal), "--anomalous": _split(anomalous)}
        for option, names in given.items():
            for name in names:
                if not name or "/" in name or name in (".", ".."):
                    raise SettingsError(f"{option} {name!r} is not a folder's name, as in --normal OK --anomalous NG")
        both = {name.lower() for name in given["--normal"]} & {name.lower() for name in given["--anomalous"]}
        if both:
            raise SettingsError(f"{', '.join(sorted(both))} cannot be --normal and --anomalous; give it once")
        return cls(given["--normal"], given["--anomalous"])

    def __bool__(self) -> bool:
        return bool(self.normal or self.anomalous)

    def label(self, folder: str) -> int | None:
        """0 for a folder of normals, 1 for one of anomalies, None for another."""
        if folder.lower() in map(str.lower, self.normal):
            return 0
        return 1 if folder.lower() in map(str.lower, self.anomalous) else None


def options_for(folders: Collection[str]) -> str:
    """The options that name some folders, of which at least one is called as defects or normals are, but for masks."""
    said = {name: said_by(name) for name in folders if not set(name.lower().split("_")) & set(MASK_FOLDERS)}
    if not any(label is not None for label in said.values()):
        return f"--normal NAME --anomalous NAME, with the names of {few(sorted(folders))}"
    normal = [name for name, label in said.items() if label == 0]
    others = [name for name, label in said.items() if label != 0]
    if not normal:  # what is not called a defect is normal then
        normal = [name for name in others if said[name] is None]
        others = [name for name in others if said[name] == 1]
    return options(normal, others)


def options(normal: Collection[str], anomalous: Collection[str]) -> str:
    """The options that name these folders."""
    given = (("--normal", normal), ("--anomalous", anomalous))
    return " ".join(f"{option} {shlex.quote(','.join(sorted(names)))}" for option, names in given if names)


def _split(given: Sequence[str] | None) -> tuple[str, ...]:
    names = (name.strip() for item in given or () for name in item.split(","))
    return tuple(dict.fromkeys(names))
