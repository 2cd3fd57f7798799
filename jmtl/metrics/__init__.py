"""Metrics as sums: exact over uneven batches, devices and hosts.

Exact for counts and means. What ranks all answers of a split (AUC, average precision, mAP, the
median angle) is read from histograms, whose resolution `scores` and `errors` state.
"""

from jmtl.metrics.boxes import detection, tracking
from jmtl.metrics.confusion import classification, segmentation, tagging
from jmtl.metrics.errors import depth, normals, regression
from jmtl.metrics.metric import Metric
from jmtl.metrics.scores import binary, multi_label

__all__ = [
    "Metric",
    "binary",
    "classification",
    "depth",
    "detection",
    "multi_label",
    "normals",
    "regression",
    "segmentation",
    "tagging",
    "tracking",
]
