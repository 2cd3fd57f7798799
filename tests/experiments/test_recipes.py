"""Recipes by name and their schedules: closed forms, rate factors, the same bits resumed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import cli, commands
from experiments.config import schedule_of
from experiments.errors import UserError
from experiments.parts import build_optimizer
from experiments.problem import Recipe
from experiments.problems import PROBLEMS
from experiments.study import command as studies
from jmtl.train import rates
from tests.experiments import tiny
from tests.experiments.tiny import CONFIG, left_behind

SLOW = Recipe("mlp", learning_rate=1e-4, schedule=((10, 0.5),), steps=20)
DEEP = Recipe("lenet", sharing="mtan", sharing_options={"reduction": 2}, optimizer="adam_l2")
TWO = PROBLEMS["multi_digits"]._replace(recipe=SLOW, recipes={"slow": SLOW, "deep": DEEP})


@pytest.fixture
def two(monkeypatch):
    """The command line knows one problem, of two recipes."""
    for module in (cli, studies):
        monkeypatch.setattr(module, "find_problem", lambda name: TWO)


def moves(made, steps):
    """The updates of two parameters, whose gradients are 1 at every step."""
    params = {"shared": {"w": jnp.zeros(1)}, "tasks": {"a": jnp.zeros(1)}}
    state, ones = made.init(params), jax.tree.map(jnp.ones_like, params)
    found = []
    for _ in range(steps):
        updates, state = made.update(ones, state, params)
        found.append([float(leaf[0]) for leaf in jax.tree.leaves(updates)])
    return np.array(found)


@pytest.mark.parametrize("factors", [{}, {"encoder": 0.25}])
def test_a_schedule_multiplies_the_rate_from_its_steps_on(factors):
    made = build_optimizer("sgd", 2.0, 0.0, [[2, 0.5], [5, 0.1]])
    found = moves(rates.scaled(made, factors), 7)
    expected = -np.array([2, 2, 1, 1, 1, 0.1, 0.1])
    np.testing.assert_allclose(found[:, 0], expected * factors.get("encoder", 1), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], expected, rtol=1e-6)


def test_adam_under_a_schedule_is_optax_with_the_rate_of_each_step():
    made = build_optimizer("adam", 1e-2, 0.1, [[3, 0.5]])
    fast, slow = (optax.adamw(rate, weight_decay=0.1) for rate in (1e-2, 5e-3))
    expected = np.concatenate([moves(fast, 5)[:3], moves(slow, 5)[3:]])
    np.testing.assert_allclose(moves(made, 5), expected, rtol=1e-6)


def test_adam_l2_has_its_decay_in_the_gradient():
    # Adam's first step is the sign of the gradient times the rate, whatever its size.
    params, none = jnp.array([2.0, -3.0]), jnp.zeros(2)
    for name, expected in (("adam", [-0.1 * 0.2, 0.1 * 0.3]), ("adam_l2", [-0.1, 0.1])):
        made = build_optimizer(name, 0.1, 0.1)
        updates, _ = made.update(none, made.init(params), params)
        np.testing.assert_allclose(updates, expected, rtol=1e-5)


def test_schedules_from_the_command_line():
    assert schedule_of(["200=0.1", "100=0.5"]) == [[100, 0.5], [200, 0.1]]
    assert schedule_of(["none"]) == []


def test_a_recipe_fills_in_what_is_not_given(two):
    first = cli.resolve(commands.Train("multi_digits"), None)
    assert (first.recipe, first.encoder, first.sharing) == ("slow", "mlp", "hard")
    assert (first.schedule, first.learning_rate, first.steps) == ([[10, 0.5]], 1e-4, 20)
    other = cli.resolve(commands.Train("multi_digits", recipe="deep", steps=7), None)
    assert (other.recipe, other.encoder, other.steps) == ("deep", "lenet", 7)
    assert (other.sharing, other.sharing_options) == ("mtan", {"reduction": 2})
    assert (other.schedule, other.optimizer) == ([], "adam_l2")
    told = commands.Train("multi_digits", schedule=("5=0.5",), sharing=("hard",), recipe="deep")
    config = cli.resolve(told, None)
    assert (config.schedule, config.sharing, config.sharing_options) == ([[5, 0.5]], "hard", {})
    # What was saved stays; another recipe's name is a difference, which a resume refuses.
    assert cli.resolve(commands.Train("multi_digits"), other) == other
    assert cli.resolve(commands.Train("multi_digits", recipe="slow"), other).recipe == "slow"


def test_a_study_has_recipes_too(two):
    command = commands.Study("multi_digits", methods=("pcgrad",), recipe="slow", seeds=("0",))
    config, _ = studies.resolve(dataclasses.replace(command, evaluate_every=10))
    assert (config.recipe, config.schedule, config.steps) == ("slow", ((10, 0.5),), 20)
    with pytest.raises(UserError, match="has no recipe 'slwo': did you mean 'slow'"):
        studies.resolve(dataclasses.replace(command, recipe="slwo"))


def test_a_scheduled_run_is_resumed_and_goes_on(tmp_path, monkeypatch):
    tiny.install(monkeypatch)
    half = dataclasses.replace(CONFIG, schedule=[[15, 0.5]], rate_factors={"encoder": 0.5})
    config = dataclasses.replace(half, steps=30)
    tiny.train(config, tmp_path / "whole")
    tiny.train(dataclasses.replace(half, steps=10), tmp_path / "broken")
    assert tiny.train(config, tmp_path / "broken", resume=True, stop_at=20)[0] is None
    tiny.train(config, tmp_path / "broken", resume=True)
    assert left_behind(tmp_path / "broken") == left_behind(tmp_path / "whole")
    with pytest.raises(UserError, match="schedule"):
        tiny.train(dataclasses.replace(config, schedule=[]), tmp_path / "broken", resume=True)
