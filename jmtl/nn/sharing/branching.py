"""Learning to branch: a tree of stages whose edges are drawn from learned probabilities."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_count, check_number
from jmtl.nn.sharing.parts import Sharing, finish, mixed, staged


class Edge(nn.Module):
    """A child's choice among its parents.

    Attributes:
        parents: How many there are.
        temperature: τ before the first step, and after the last of `anneal_steps`.
        anneal_steps: Steps in between.
    """

    parents: int
    temperature: tuple[float, float]
    anneal_steps: int

    @nn.compact
    def __call__(self, train: bool) -> Float[Array, " N"]:
        """Weights over the parents: drawn in training, the most probable one in evaluation.

        Raises:
            ValueError: If training has no key.
        """
        logits = self.param("logits", nn.initializers.zeros, (self.parents,))
        step = self.variable("branching", "step", lambda: jnp.zeros((), jnp.int32))
        if not train:
            return jax.nn.one_hot(jnp.argmax(logits), self.parents)
        if not self.has_rng("dropout"):
            raise ValueError("branching draws a tree in training: pass a key")
        noise = jax.random.gumbel(self.make_rng("dropout"), logits.shape)
        first, last = self.temperature
        done = jnp.minimum(step.value / max(self.anneal_steps, 1), 1.0)
        step.value = step.value + 1
        return nn.softmax((logits + noise) / (first * (last / first) ** done))


class Tree(nn.Module):
    """The nodes of every stage, and the edges into all but the first.

    Attributes:
        encoder: Whose stages the nodes are copies of.
        nodes: How many a stage has.
        temperature: See `Edge`.
        anneal_steps: See `Edge`.
    """

    encoder: nn.Module
    nodes: int
    temperature: tuple[float, float]
    anneal_steps: int

    @nn.compact
    def __call__(self, inputs: Any, train: bool) -> tuple[Any, ...]:
        """The representation that each node of the last stage gives."""
        encoder, stages, neck = staged(self.encoder, "branching")
        copies = [encoder.copy(name=f"node_{j}") for j in range(self.nodes)]
        xs = [inputs] * self.nodes
        for i, stage in enumerate(stages):
            if i > 0:
                edges = [
                    Edge(self.nodes, self.temperature, self.anneal_steps, name=f"edge_{i}_{j}")
                    for j in range(self.nodes)
                ]
                xs = [mixed(edge(train), xs) for edge in edges]
            xs = [copy(x, train, stage) for copy, x in zip(copies, xs, strict=True)]
        return tuple(copy(x, train, neck) for copy, x in zip(copies, xs, strict=True))


class Leaf(nn.Module):
    """A task's choice of a node of the last stage, and its head.

    Attributes:
        nodes: How many there are.
        temperature: See `Edge`.
        anneal_steps: See `Edge`.
        head: From the representation to the output.
    """

    nodes: int
    temperature: tuple[float, float]
    anneal_steps: int
    head: nn.Module

    @nn.compact
    def __call__(self, given: tuple[Any, ...], train: bool) -> Array:
        """The task's output."""
        edge = Edge(self.nodes, self.temperature, self.anneal_steps, name="edge")
        return finish(self.head, mixed(edge(train), given), train)


def branching(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    *,
    nodes: int | None = None,
    temperature: tuple[float, float] = (5.0, 0.1),
    anneal_steps: int = 5_000,
) -> Sharing:
    """A tree of stages: every node, and every task, draws its parent among the nodes before it.

    Child j of a stage reads `Σ_i d_i x_i` of its N possible parents, with
    `d = softmax((log π_j + ε) / τ)`, ε Gumbel noise: one draw a step for the whole batch
    and all devices, from the step's key. In evaluation a child reads its most probable parent, so
    nodes that nobody's ancestor is could be left out. τ falls geometrically.

    The paper first trains the nodes alone with the probabilities held, then both, and at last
    trains the found tree anew; here both train from the start, and the numbers of the temperature
    are ours.

    Shared: all nodes (`node_j` holds those of every stage) and the edges between stages
    (`edge_i_j`, log π). A task's own: its choice of a last node, and its head. With one node it is
    hard sharing. An encoder with stages.

    Args:
        encoder: Whose stages the nodes are copies of.
        heads: by task.
        nodes: How many a stage has; None is one a task.
        temperature: τ at the start and the end, positive.
        anneal_steps: Steps between them.

    References:
        Guo et al., *Learning to Branch for Multi-Task Learning*, ICML 2020.
    """
    count = check_count("branching", "nodes", len(heads) if nodes is None else nodes, 1)
    check_count("branching", "anneal_steps", anneal_steps, 0)
    for value in temperature:
        check_number("branching", "temperature", value, above=0)
    first, last = temperature
    staged(encoder, "branching")
    options = (count, (float(first), float(last)), anneal_steps)
    own: dict[str, nn.Module] = {name: Leaf(*options, head) for name, head in heads.items()}
    return Sharing(Tree(encoder, *options), own)
