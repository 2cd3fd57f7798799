"""Cityscapes as papers train it: on all 2,975 streets, without validation; see `cityscapes`.

    python -m experiments train cityscapes_published --method pcgrad

What is reported is of the last step; papers print the mean of the last 10 epochs.
"""

from experiments.problems import cityscapes

PROBLEM = cityscapes.at("published")
