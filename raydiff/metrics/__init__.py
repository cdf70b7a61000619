"""How well scores and anomaly maps tell defects from normals.

Exact functions for numpy arrays, and `BinnedPixelMetrics` for pixels that do not fit in memory or lie on many
workers.
"""

from raydiff.metrics.binned import BinnedPixelMetrics
from raydiff.metrics.curve import OneClassError, PixelMetrics
from raydiff.metrics.exact import aupro, auroc, average_precision, f1_max, f1_max_threshold, pixel_metrics

__all__ = [
    "BinnedPixelMetrics",
    "OneClassError",
    "PixelMetrics",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "f1_max_threshold",
    "pixel_metrics",
]
