"""Data: indices (which examples a step sees), TFDS sources, Grain loading, arrays on the device.

Nothing is imported here: `jmtl.data.indices` needs numpy and jax alone, the rest TFDS and Grain.
"""
