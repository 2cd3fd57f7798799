"""Cityscapes as papers train it: on all 2,975 streets, without validation; see `cityscapes`.

    python -m experiments train cityscapes_published --method pcgrad

A run reports the scores of its last step, and as papers do their mean at the ends of the last 10
epochs, with Δm of that mean (`experiments.last_epochs`).
"""

from experiments.problems import cityscapes

PROBLEM = cityscapes.at("published")
