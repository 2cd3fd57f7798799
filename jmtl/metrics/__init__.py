"""Metrics as sums: exact over uneven batches, devices and hosts."""

from jmtl.metrics.metric import Metric, classification, regression

__all__ = ["Metric", "classification", "regression"]
