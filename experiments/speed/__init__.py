"""Step time, memory and distance from the floor, of jmtl and of PyTorch side by side in one run.

    python -m experiments speed [options]      with everything installed
    python -m experiments.speed [options]      where jax, flax, optax, numpy and jaxtyping are

Both are the same command. Data are made on the device. The programs of a cell (a model with K
tasks) are timed in turn, round after round, and medians are shown, so that what else the machine
does falls on all alike. `experiments.speed.floor` says what a step cannot be faster than.
"""
