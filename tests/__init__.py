"""What must be in the environment before jax is imported: devices, cheap compilation, its cache."""

import os
import tempfile
from importlib.metadata import version

# Level 0: the suite compiles some thousand small programs and runs each for milliseconds.
FLAGS = ["--xla_force_host_platform_device_count=8", "--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # compiles in half the time; 0.12 knows no such flag
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()

# One compilation of a program for all workers, which find the variable set, and for the commands
# that tests start.
CACHE = None
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    CACHE = tempfile.mkdtemp(prefix="jmtl-compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
