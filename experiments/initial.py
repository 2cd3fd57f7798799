"""What a run begins with, by its configuration: method, optimiser, model and first state."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jaxtyping import PRNGKeyArray

from experiments import origin
from experiments.config import RunConfig, make_method
from experiments.parts import build_model, build_optimizer
from experiments.problem import Problem
from jmtl.method import Method
from jmtl.nn import Model
from jmtl.train import rates
from jmtl.train.parallel import Shell
from jmtl.train.state import TrainState, fresh_state, init_state


def method_of(config: RunConfig, problem: Problem) -> Method:
    """The method of a run."""
    return make_method(config.method, config.method_options, config.seed, problem)


def optimizer_of(config: RunConfig) -> optax.GradientTransformation:
    """The optimiser of a run."""
    made = build_optimizer(
        config.optimizer, config.learning_rate, config.weight_decay, config.schedule
    )
    return rates.scaled(made, config.rate_factors)


def model_of(config: RunConfig, problem: Problem, axis_name: str | None = None) -> Model:
    """The model of a run."""
    made = build_model(
        config.encoder,
        config.encoder_options,
        config.head_options,
        problem,
        config.sharing,
        config.sharing_options,
        axis_name,
        config.dtype,
        config.remat,
    )
    return rates.frozen(made, config.rate_factors)


def shapes_of(
    config: RunConfig, problem: Problem, method: Method, example: Mapping[str, Any]
) -> TrainState:
    """The state of a run as `jax.ShapeDtypeStruct`s: nothing is computed.

    Raises:
        ValueError, TypeError: the data, the encoder, the method and its options do not fit.
    """
    return jax.eval_shape(_drawn(config, problem, method, example), jax.random.key(config.seed))


def state_of(
    config: RunConfig,
    problem: Problem,
    method: Method,
    example: Mapping[str, Any],
    on_devices: Shell | None = None,
) -> TrainState:
    """The state that a run's seed draws: placed on the shell's devices, or on one."""
    create = _on_one if on_devices is None else on_devices.create
    return create(_drawn(config, problem, method, example), jax.random.key(config.seed))


def with_origin(
    config: RunConfig, method: Method, state: TrainState, on_devices: Shell
) -> tuple[RunConfig, TrainState]:
    """The state that was drawn, placed, with the encoder's parameters from where the run says.

    Returns:
        The configuration, whose origin says what was taken, and the state, placed.

    Raises:
        UserError: as `experiments.origin.fill`.
    """
    drawn = on_devices.unplace(state)
    config, params, model_state = origin.fill(config, drawn.params, drawn.model_state)
    key, optimizer = jax.random.key(config.seed), optimizer_of(config)

    def begin(params: Any, model_state: Any) -> TrainState:
        return fresh_state(key, params, model_state, method, optimizer)

    return config, on_devices.create(begin, params, model_state)


def _drawn(
    config: RunConfig, problem: Problem, method: Method, example: Mapping[str, Any]
) -> Callable[[PRNGKeyArray], TrainState]:
    net, optimizer = model_of(config, problem), optimizer_of(config)
    inputs = problem.to_batch(example).inputs
    return lambda key: init_state(key, net, method, optimizer, inputs)


def _on_one(init: Callable[..., TrainState], *given: Any) -> TrainState:
    return jax.jit(init)(*given)
