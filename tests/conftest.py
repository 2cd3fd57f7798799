"""Shared set-up: eight simulated devices, cheap compilation, rank promotion refused, seeds."""

import os

# Level 0: the suite compiles some thousand small programs and runs each for milliseconds.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
).strip()

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def same_problems_each_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Random families are the same in every run of `make test`, and fresh in slow tests."""
    if "slow" not in request.keywords and "JMTL_TEST_SEED" not in os.environ:
        monkeypatch.setenv("JMTL_TEST_SEED", "0")
