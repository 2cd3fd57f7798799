"""What the README says runs, and importing the core stays light."""

import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp

import jmtl

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_lines_of_use_run_as_they_stand():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert "jnp.stack([...])" in code
    code = code.replace("[...]", "[jnp.sum((params - b) ** 2) for b in batch]")
    names = {"K": 2, "params": jnp.zeros(3)}
    exec(code, names)
    params, state = names["params"], names["opt_state"]
    batch = jnp.array([[1.0, 0, 0], [-1, 1, 0]])
    for _ in range(3):
        params, state = names["step"](params, state, batch)
    assert params[1] > 0
    assert jmtl.info(state).weights.shape == (2,)


def test_files_and_methods_that_it_names_are_there():
    for link in re.findall(r"\]\((?!https:)([^)]+)\)", README):
        assert (ROOT / link).exists(), link
    for name in jmtl.METHODS:
        assert f"`{name}`" in README, name


def test_importing_the_core_loads_neither_flax_nor_data():
    heavy = ("flax", "orbax", "grain", "tensorflow_datasets", "sklearn", "tyro", "matplotlib")
    code = f"import jmtl, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
