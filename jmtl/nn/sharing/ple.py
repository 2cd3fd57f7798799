"""Progressive layered extraction: shared and task experts at every level."""

import itertools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from jmtl.checks import check_count
from jmtl.nn.sharing.parts import Gate, Sharing, finish, gate_inputs, mixed, staged

Level = range | None
"""The blocks of an encoder that the experts of a level are copies of; None is all of them."""


class Extraction(nn.Module):
    """All levels but the last, and the shared experts of the last.

    Attributes:
        encoder: What experts are copies of.
        levels: The blocks of each level's experts.
        tasks: Names of the K tasks.
        shared_experts: Shared experts at a level.
        task_experts: Experts of each task at a level.
    """

    encoder: nn.Module
    levels: tuple[Level, ...]
    tasks: tuple[str, ...]
    shared_experts: int
    task_experts: int

    @nn.compact
    def __call__(self, inputs: Any, train: bool) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """What the shared experts of the last level give, and for each task (candidates, read).

        A task's input to the last level is the mixture of its candidates by a gate that reads
        `read`: the mixing is the task's own, as no other task's loss reaches it.
        """
        groups: tuple[str | None, ...] = (*self.tasks, None)  # None: the shared experts'
        xs = dict.fromkeys(groups, inputs)
        reads = dict.fromkeys(groups, gate_inputs(self.encoder, inputs))
        candidates: dict[str | None, tuple[Any, ...]] = dict.fromkeys(groups, (inputs,))
        *before, last = self.levels
        for i, level in enumerate(before):
            given = {g: self._experts(i, level, g, xs[g], train) for g in groups}
            every = tuple(itertools.chain(*given.values()))
            candidates = {g: every if g is None else (*given[g], *given[None]) for g in groups}
            nearly_last = i == len(before) - 1
            for group in (None,) if nearly_last else groups:
                gate = Gate(len(candidates[group]), name=f"level{i}_gate{_suffix(group)}")
                xs[group] = mixed(gate(reads[group]), candidates[group])
                if not nearly_last:
                    reads[group] = self.encoder.gate_features(xs[group])
        shared = self._experts(len(before), last, None, xs[None], train)
        return shared, tuple((candidates[task], reads[task]) for task in self.tasks)

    def _experts(
        self, i: int, level: Level, group: str | None, x: Any, train: bool
    ) -> tuple[Any, ...]:
        count = self.shared_experts if group is None else self.task_experts
        names = [f"level{i}_expert{_suffix(group)}_{j}" for j in range(count)]
        return tuple(_run(self.encoder.copy(name=name), x, train, level) for name in names)


class Extract(nn.Module):
    """A task's part of the last level, and its head.

    Attributes:
        index: The task's place among all.
        encoder: What experts are copies of.
        level: The blocks of the last level's experts.
        first: Whether there is no level before it.
        task_experts: The task's experts.
        shared_experts: The shared ones.
        head: From the mixture to the output.
    """

    index: int
    encoder: nn.Module
    level: Level
    first: bool
    task_experts: int
    shared_experts: int
    head: nn.Module

    @nn.compact
    def __call__(self, given: tuple[Any, Any], train: bool) -> Array:
        """The task's output."""
        shared, tasks = given
        candidates, read = tasks[self.index]
        x = candidates[0]
        if not self.first:
            x = mixed(Gate(len(candidates), name="gate_before")(read), candidates)
            read = self.encoder.gate_features(x)
        experts = [self.encoder.copy(name=f"expert_{i}") for i in range(self.task_experts)]
        outputs = [_run(expert, x, train, self.level) for expert in experts]
        weights = Gate(self.task_experts + self.shared_experts, name="gate")(read)
        return finish(self.head, mixed(weights, (*outputs, *shared)), train)


def _run(expert: nn.Module, x: Any, train: bool, level: Level) -> Any:
    return expert(x, train) if level is None else expert(x, train, level)


def _suffix(group: str | None) -> str:
    return "_shared" if group is None else f"_task_{group}"


def extraction(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    levels: tuple[Level, ...],
    shared_experts: int,
    task_experts: int,
) -> Sharing:
    """The modules of `ple` and `cgc`."""
    trunk = Extraction(encoder, levels, tuple(heads), shared_experts, task_experts)
    own: dict[str, nn.Module] = {
        name: Extract(i, encoder, levels[-1], len(levels) == 1, task_experts, shared_experts, head)
        for i, (name, head) in enumerate(heads.items())
    }
    return Sharing(trunk, own)


def ple(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    *,
    shared_experts: int = 1,
    task_experts: int = 1,
) -> Sharing:
    """Experts of every task and shared ones at every stage, mixed by gates between the stages.

    At level j, with S the experts' outputs: task k goes on with `x_k = w_k(x_k) [S_k, S_s]`, the
    shared experts with `x_s = w_s(x_s) [S_1, …, S_K, S_s]`, and `w = softmax(W x)`. The experts of
    a level are copies of a stage of the encoder, those of the last with the neck. The first gates
    read what `mmoe`'s read, later ones the features' mean over positions.

    Shared: all experts of all levels but the last, the gates between them, and the shared experts
    of the last. Below the last level the experts of one task feed the shared ones of the next, so
    every loss reaches them. A task's own: its experts at the last level, the gates at and before
    it, its head. With one level it is `cgc`. An encoder with stages. (A public implementation has
    no stream of shared experts: it runs them on each task's own features.)

    Args:
        encoder: Whose stages the experts are copies of.
        heads: by task.
        shared_experts: Shared experts at a level, at least 1.
        task_experts: Experts of each task at a level, at least 1.

    References:
        Tang et al., *Progressive Layered Extraction (PLE)*, RecSys 2020.
    """
    check_count("ple", "shared_experts", shared_experts, 1)
    check_count("ple", "task_experts", task_experts, 1)
    _, stages, neck = staged(encoder, "ple")
    levels = (*stages[:-1], range(stages[-1].start, neck.stop))
    return extraction(encoder, heads, levels, shared_experts, task_experts)
