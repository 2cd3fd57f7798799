"""Shared set-up: rank promotion refused, seeds, the cache of compiled programs."""

import os
import shutil

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from tests import CACHE

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_unconfigure() -> None:
    if CACHE is not None:  # in the process that made it, not in workers
        shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def same_problems_each_time(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Random families are the same in every run of `make test`, and fresh in slow tests."""
    if "slow" not in request.keywords and "JMTL_TEST_SEED" not in os.environ:
        monkeypatch.setenv("JMTL_TEST_SEED", "0")


@pytest.fixture
def compiled_anew(monkeypatch: pytest.MonkeyPatch):
    """Every program is compiled, here and in what the test starts: none is read from the cache."""
    monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "false")
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()
