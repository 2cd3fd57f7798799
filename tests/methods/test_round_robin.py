import jax
import jax.numpy as jnp
import numpy as np

import jmtl
from jmtl.method import Seen
from jmtl.methods.round_robin import RoundRobinState
from tests.methods.scalarizers import run


def test_each_task_has_its_turn() -> None:
    weights, state = run(jmtl.round_robin(3), [[1.0, 2.0, 3.0]] * 7)
    np.testing.assert_array_equal(weights, np.eye(3)[[0, 1, 2, 0, 1, 2, 0]])
    assert state.task == 1
    np.testing.assert_array_equal(run(jmtl.round_robin(1), [[5.0]] * 2)[0], 1.0)


def test_a_step_is_the_gradient_of_one_task() -> None:
    method = jmtl.round_robin(2)
    fun = lambda x: jnp.stack([jnp.sum(x**2), jnp.sum(jnp.sin(x))])
    x = jnp.asarray([0.3, -1.2])
    step = jax.jit(jmtl.value_and_grads(fun, method))
    first = step(method.init(x), x)
    second = step(first.state, x)
    np.testing.assert_allclose(first.gradient, 2 * x, rtol=1e-6)
    np.testing.assert_allclose(second.gradient, jnp.cos(x), rtol=1e-6)


def test_copies_that_start_apart_stay_apart() -> None:
    method = jmtl.round_robin(3)
    answers, states = jax.vmap(lambda t: method.update(Seen(jnp.ones(3)), RoundRobinState(t)))(
        jnp.arange(3)
    )
    np.testing.assert_array_equal(answers.weights, np.eye(3))
    np.testing.assert_array_equal(states.task, [1, 2, 0])
