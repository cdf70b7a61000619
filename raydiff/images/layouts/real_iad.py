"""Real-IAD (Wang et al., arXiv 2403.12580): `realiad_jsons/realiad_jsons/<category>.json`, or a folder less.

They hold the lists `train` and `test`, beside `realiad_1024/<category>/` (or raw, 512, 256). Five cameras see a part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator

from raydiff.images.layouts.split_files import GOOD, DataSet, Listed
from raydiff.images.names import stem

_RESOLUTIONS = ("realiad_raw", "realiad_1024", "realiad_512", "realiad_256")  # its folders, the best first


def _real_iad(file: str, text: str, folders: Collection[str]) -> Iterator[Listed]:
    told = json.loads(text)
    category = stem(file).rpartition("/")[2]
    pixels = next((name for name in _RESOLUTIONS if name in folders), _RESOLUTIONS[1])
    below = f"{pixels}/{category}/"
    for split in ("train", "test"):
        for each in told[split]:
            defect = GOOD if each["anomaly_class"] == told["meta"]["normal_class"] else each["anomaly_class"]
            mask = below + each["mask_path"] if each["mask_path"] else ""
            yield Listed(below + each["image_path"], category, split, defect, mask)


REAL_IAD = DataSet(
    "Real-IAD, with its split",
    re.compile(r"(?:.*?/)??(?P<file>(?:realiad_jsons/){1,2}[^/]+\.json)"),
    _real_iad,
    r"(?P<part>[^/]+/(?:OK|NG)/(?:[^/]+/)?S\d+)/",
)
