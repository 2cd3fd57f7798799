"""NYUv2 as papers train it: on all 795 rooms, without a validation split; see `nyuv2`.

    python -m experiments train nyuv2_published --method pcgrad

A run reports the scores of its last step, and as papers do their mean at the ends of the last 10
epochs, with Δm of that mean (`experiments.last_epochs`).
"""

from experiments.problems import nyuv2

PROBLEM = nyuv2.at("published")
