"""Shared set-up: eight simulated devices, cheap compilation, and rank promotion refused."""

import os

# Level 0: the suite compiles some thousand small programs and runs each for milliseconds.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
).strip()

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
