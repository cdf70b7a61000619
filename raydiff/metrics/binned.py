"""Pixel metrics in bounded memory: histograms that can be filled on many workers and added up."""

from __future__ import annotations

import numpy as np

from raydiff.errors import DataError
from raydiff.metrics.curve import Curve, PixelMetrics
from raydiff.metrics.pixels import Pixels, split

RANK_BINS = 8192  # over the range of the first look's normal pixels
TAIL_BINS = 1024  # above it, where pixels of defects lie


class BinnedPixelMetrics:
    """Pixel AUROC, average precision, F1-max and AUPRO from three histograms, whatever the number of pixels.

    The bins are placed by a first look at normal pixels and follow their ranks, not their values, so that neither a
    long tail nor a monotone transform of the maps costs accuracy, as it does with evenly spaced thresholds. Values in
    one bin count as tied. Against the exact metrics, AUROC and AUPRO are off by some 1e-6, F1-max by 1e-4 and average
    precision by 3e-4 after a look at a million pixels (1e-3 after one image).

    Its five fields, plain numpy, are its whole state: `BinnedPixelMetrics(**vars(other))` is a copy. 250 kB.

    Attributes:
        edges: (B - 1,) float32, rising: the lower edge of each bin but the lowest.
        normal: (B,) int64, pixels outside the masks.
        anomalous: (B,) int64, pixels inside the masks.
        share: (B,) float64, pixels inside the masks, each weighing 1 / pixels of its region.
        regions: number of regions of all masks.
    """

    def __init__(
        self,
        edges: np.ndarray,
        normal: np.ndarray | None = None,
        anomalous: np.ndarray | None = None,
        share: np.ndarray | None = None,
        regions: np.ndarray | int = 0,
    ) -> None:
        bins = edges.size + 1
        self.edges = edges.copy()
        self.normal = np.zeros(bins, np.int64) if normal is None else normal.copy()
        self.anomalous = np.zeros(bins, np.int64) if anomalous is None else anomalous.copy()
        self.share = np.zeros(bins, np.float64) if share is None else share.copy()
        self.regions = int(regions)

    @classmethod
    def from_normal_pixels(cls, pixels: np.ndarray) -> BinnedPixelMetrics:
        """Empty histograms for maps of the kind that these pixels come from.

        Args:
            pixels: scores of normal pixels of any shape, from many images if possible; some 10^5 are enough.

        Raises:
            DataError: if none of them is a finite number.
        """
        rising = np.sort(np.asarray(pixels, dtype=np.float32)[np.isfinite(pixels)])
        if not rising.size:
            raise DataError("no normal pixel with a finite score to place the bins by; give a map of a normal image")
        # Half of the bins share the normals evenly. The other half steps down the false positive rate by a
        # factor, from 1 to one pixel: most pixels of defects lie where few normals do, and average precision
        # is decided there.
        even = np.arange(1, RANK_BINS // 2 + 1) / (RANK_BINS // 2)
        falling = np.geomspace(1, 1 / rising.size, RANK_BINS // 2)
        above = np.ceil(np.concatenate([even, falling]) * rising.size).astype(np.int64)
        ranked = rising[rising.size - above]
        # Beyond the highest normal, no scale is known: from one step of float32 up to its largest value.
        top = rising[-1]
        largest = np.finfo(np.float32).max
        steps = np.geomspace(np.spacing(np.abs(top)), largest, TAIL_BINS, dtype=np.float64)
        tail = np.minimum(top + steps, largest).astype(np.float32)
        return cls(np.unique(np.concatenate([ranked, tail])))

    def update(self, anomaly_map: np.ndarray, mask: np.ndarray) -> None:
        """Count one image's pixels: (H, W) scores and (H, W) mask, true where defective.

        Raises:
            DataError: if the two differ in shape, or a score is NaN.
        """
        self.add(split(anomaly_map, mask))

    def add(self, pixels: Pixels) -> None:
        """Count one image's pixels, split already."""
        bins = self.edges.size + 1
        # Sorting the many and looking up the edges among them is ten times as fast as a look-up of each.
        below = np.searchsorted(np.sort(pixels.normal), self.edges, side="left")
        self.normal += np.diff(below, prepend=0, append=pixels.normal.size)
        place = np.searchsorted(self.edges, pixels.anomalous, side="right")
        self.anomalous += np.bincount(place, minlength=bins)
        self.share += np.bincount(place, weights=pixels.share, minlength=bins)
        self.regions += pixels.regions

    def merge(self, other: BinnedPixelMetrics) -> None:
        """Count what another one has counted.

        Raises:
            DataError: if its bins are others, that is, if it does not come from the same first look.
        """
        if not np.array_equal(self.edges, other.edges):
            raise DataError(
                "binned metrics of different bin edges cannot be merged; "
                "give every worker a copy of the same empty ones"
            )
        self.normal += other.normal
        self.anomalous += other.anomalous
        self.share += other.share
        self.regions += other.regions

    def compute(self) -> PixelMetrics:
        """The metrics of all that was counted.

        Raises:
            OneClassError: if no pixel is anomalous or none is normal.
        """
        share = self.share / max(1, self.regions)
        return Curve.binned(self.edges, self.normal, self.anomalous, share).pixel_metrics()
