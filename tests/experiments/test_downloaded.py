"""Problems whose data is downloaded, on noise of its form: their recipes fit, and they train."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jmtl
from experiments import parts
from experiments.problems import PROBLEMS
from jmtl.data.molecules import MAX_ATOMS, TARGETS
from jmtl.data.pets import SIZE
from jmtl.data.spoken_digit import LENGTH
from jmtl.tasks import check_labels, task_losses
from jmtl.train.state import fresh_state
from jmtl.train.step import make_step
from tests.nn.sharings import drawn

B = 4
RNG = np.random.default_rng(0)

RAW = {
    "spoken_digit": {
        "audio": RNG.integers(-(2**15), 2**15, (B, LENGTH)).astype(np.int16),
        "digit": np.arange(B, dtype=np.int32),
        "speaker": np.arange(B, dtype=np.int32),
    },
    "qm9": {
        "charges": RNG.choice([0, 1, 6, 7, 8, 9], (B, MAX_ATOMS)).astype(np.uint8),
        "positions": RNG.normal(size=(B, MAX_ATOMS, 3)).astype(np.float32),
        "targets": RNG.normal(size=(B, len(TARGETS))).astype(np.float32),
    },
    "oxford_iiit_pet": {
        "image": RNG.integers(0, 256, (B, SIZE, SIZE, 3)).astype(np.uint8),
        "mask": RNG.integers(0, 3, (B, SIZE, SIZE)).astype(np.uint8),
        "breed": np.arange(B, dtype=np.int32),
        "species": np.arange(B, dtype=np.int32) % 2,
    },
}
"""By problem, a raw batch."""


@pytest.mark.parametrize("name", sorted(RAW))
def test_the_recipe_fits_the_data(name):
    problem = PROBLEMS[name]
    batch = jax.jit(problem.to_batch)(RAW[name])
    check_labels(problem.tasks, batch)
    recipe = problem.recipe
    model = parts.build_model(
        recipe.encoder, parts.encoder_options_of(recipe, None), recipe.head_options, problem
    )

    def losses(key, inputs):
        params, state = model.init(key, inputs)
        outputs, _ = model.apply(params, state, inputs, True, key)
        return task_losses(problem.tasks, outputs, batch)

    found = jax.eval_shape(losses, jax.random.key(0), batch.inputs)
    assert [loss.shape for loss in found] == [()] * len(problem.tasks)
    for augment in problem.augmentations.values():
        shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch))
        assert jax.eval_shape(augment, jax.random.key(0), batch) == shapes


SMALL = {
    "oxford_iiit_pet": {"widths": (4,), "blocks": (1,), "stem": "large", "dense": True},
    "qm9": {"width": 4, "layers": 1, "gaussians": 4},
}


@pytest.mark.parametrize("name", sorted(SMALL))
def test_two_steps_of_pcgrad(name):
    problem, sgd = PROBLEMS[name], optax.sgd(0.01)
    problem = problem._replace(tasks=problem.tasks[:3])  # of eleven, a quarter of the seconds
    method = jmtl.pcgrad(len(problem.tasks), key=jax.random.key(0))
    model = parts.build_model(problem.recipe.encoder, SMALL[name], {}, problem)
    step = make_step(model, problem.tasks, method, sgd)

    raw = RAW[name]
    inputs = jax.eval_shape(problem.to_batch, raw).inputs
    state = fresh_state(jax.random.key(1), *drawn(model, inputs, spread=0.3), method, sgd)

    @jax.jit
    def two(state, raw):
        batch = problem.to_batch(raw)
        return jax.lax.scan(lambda state, _: step(state, batch), state, length=2)[1]

    metrics = two(state, raw)
    assert metrics.losses.shape == (2, len(problem.tasks))
    assert np.isfinite(metrics.losses).all()
    assert jnp.mean(metrics.losses[1]) < jnp.mean(metrics.losses[0])
    assert (metrics.failed == -1).all()
