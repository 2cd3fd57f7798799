"""Data: indices (which examples a step sees), TFDS sources, Grain loading, arrays on the device.

Nothing is imported here: `indices`, `affine` and `augment` need numpy and jax alone, the rest TFDS
and Grain.
"""
