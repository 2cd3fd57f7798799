"""How many trainings a compiled call holds, so that it fits the memory."""

import dataclasses
import os
from collections.abc import Sequence

import jax

from experiments.across import place
from experiments.problem import Problem
from experiments.study import training
from experiments.study.call import first_method, setting_of, told_of
from experiments.study.config import Program, StudyConfig
from experiments.study.data import Data

MOST = 64
"""Trainings of a call on a CPU, where more gain nothing."""

SMALL_BYTES = 2**20
"""A training state below this needs no look at the memory for `MOST` of them."""

SHARE = 0.6
"""Of the memory that a call may take."""


def fitting(config: StudyConfig, plan: Sequence[Program], problem: Problem, data: Data) -> int:
    """The trainings of a call: those of the largest arm, as many as fit the devices.

    A program's memory is that of its compiled step for one training a device, times the trainings:
    looked up only where the state is not small, for the method with the most to hold.

    Args:
        config: its width does not matter.
        plan: its programs.
        problem: its problem.
        data: its data.

    Returns:
        A multiple of `config.devices`.
    """
    devices = config.devices
    wanted = max(len(arm.trials) for arm in config.arms) * len(config.seeds)
    if jax.default_backend() == "cpu":
        wanted = min(wanted, MOST)
    one = dataclasses.replace(config, width=devices)
    common = training.common(setting_of(one, plan[0], problem), data.example, devices)
    n = data.rows["train"]
    heaviest = max(plan, key=lambda item: _ORDER.index(first_method(one, item, problem).needs))
    told = told_of(one, heaviest, heaviest.trainings[:1])
    placed = place(told, devices, shared=False)
    params = common.params(placed)
    if sum(leaf.nbytes for leaf in jax.tree.leaves(params)) <= SMALL_BYTES * devices:
        return -(-wanted // devices) * devices
    made = training.program(setting_of(one, heaviest, problem), n, devices)
    state = made.init(placed, *params)
    feed = (data.training, *training.start(0, 1, n, config.evaluate_every))
    step = made.advance.lower(state, placed, *feed)  # type: ignore[attr-defined]
    found = step.compile().memory_analysis()
    data_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(data.training))
    each = found.temp_size_in_bytes + found.output_size_in_bytes + found.argument_size_in_bytes
    each = max(each - data_bytes, 1)
    fits = max(int((SHARE * _memory(devices) - data_bytes) // each), 1)
    return min(-(-wanted // devices), fits) * devices


_ORDER = ("losses", "gramian", "gradients")


def _memory(devices: int) -> float:
    """Bytes of one device's memory; on a CPU, its share of the machine's."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / devices
