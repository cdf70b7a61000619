"""VisA (Zou et al., arXiv 2207.14315): `split_csv/1cls.csv` beside `<category>/Data/`.

Its columns are object, split, label, image and mask. The two-class splits beside it train on defects, and are not read.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterator

from raydiff.images.layouts.split_files import GOOD, DataSet, Listed


def _visa(file: str, text: str, folders: Collection[str]) -> Iterator[Listed]:
    for row in csv.DictReader(io.StringIO(text)):
        defect = GOOD if row["label"] == "normal" else row["label"]
        yield Listed(row["image"], row["object"], row["split"], defect, row["mask"] or "")


VISA = DataSet("VisA, with its one-class split", re.compile(r"(?:.*?/)??(?P<file>split_csv/1cls\.csv)"), _visa)
