"""NYUv2 as papers train it: on all 795 rooms, without a validation split; see `nyuv2`.

    python -m experiments train nyuv2_published --method pcgrad

What is reported is of the last step; papers print the mean of the last 10 epochs.
"""

from experiments.problems import nyuv2

PROBLEM = nyuv2.at("published")
