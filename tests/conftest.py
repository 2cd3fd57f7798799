"""Shared set-up: eight simulated devices, cheap compilation, rank promotion refused, seeds."""

import os
import shutil
import tempfile
from importlib.metadata import version

# Level 0: the suite compiles some thousand small programs and runs each for milliseconds.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # compiles in half the time; 0.12 knows no such flag
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()

# One compilation of a program for all workers and for the commands that tests start.
CACHE = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    CACHE = tempfile.mkdtemp(prefix="jmtl-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_unconfigure() -> None:
    # The process that made it is the one that removes it: workers find the variable set.
    if CACHE is not None:
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
