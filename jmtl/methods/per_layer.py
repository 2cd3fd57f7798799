"""A Gramian method on every layer's own Gramian."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jmtl.gramian import combine, layer_gramians, layers_of
from jmtl.method import Answer, Method, Seen, State, named_key, respond
from jmtl.methods.smooth import shape_of_answer
from jmtl.products import compute_dtype


def _own_keys(state: State, name: str) -> State:
    """The state with every key made the layer's own, so that layers draw independently."""
    return jax.tree.map(
        lambda leaf: (
            named_key(leaf, name) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        ),
        state,
    )


def per_layer(method: Method) -> Method:
    """Runs a Gramian method on each layer's own Gramian, layer by layer.

    A layer is a group of leaves that share their parent's path; leaves at the top of the tree are
    one layer. Each layer has its own weights, its own state and its own draws; its part of the
    update is the combination of its part of the task gradients. K backward passes, the stack of
    gradients, and one vmapped K×K solve for all layers. Where an `if` of the method would skip
    work, vmap runs both sides.

    No one vector of weights gives the update: it is answered as a gradient, the weights are NaN,
    and the tasks' own gradients stay as they are, also for a method that `scales_heads`. To weigh
    losses as well, put this last: `chain(uncertainty(K), per_layer(pcgrad(K, key=key)))`.

    Args:
        method: a Gramian method of one batch, not a chain.

    Returns:
        A gradient method; its residual is the largest of the layers'.

    Raises:
        ValueError: a method of another kind, of several batches, or with a rule for the heads.
    """
    if method.needs != "gramian" or method.batches > 1:
        kind = f"takes {method.batches} batches" if method.batches > 1 else f"needs {method.needs}"
        raise ValueError(f"per_layer serves Gramian methods of one batch; {method.name} {kind}")
    if shape_of_answer(method).heads is not None:
        raise ValueError(
            f"per_layer: {method.name} weighs the tasks' own gradients too, and layers differ in "
            "their weights: put the loss methods before it, as chain(weights, per_layer(surgery)), "
            "or make it with scales_heads=False"
        )

    def init(shared_params: Any) -> State:
        states = [
            _own_keys(method.init(shared_params), name) for name in layers_of(shared_params).names
        ]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        leaves, structure = jax.tree.flatten(seen.gradients)
        dtype = compute_dtype(leaves)
        members = layers_of(seen.gradients).members
        grams = layer_gramians(seen.gradients).values()
        gram = jax.tree.map(lambda *parts: jnp.stack([p.astype(dtype) for p in parts]), *grams)

        def one(gram: Any, state: State) -> tuple[Answer, State]:
            return respond(method, Seen(seen.losses, gram), state)

        answers, state = jax.vmap(one)(gram, state)
        combined = list(leaves)
        for weights, layer in zip(answers.weights, members, strict=True):
            for i in layer:
                combined[i] = combine(leaves[i], weights)
        answer = Answer(
            jnp.full((method.num_tasks,), jnp.nan, dtype),
            gradient=jax.tree.unflatten(structure, combined),
            residual=jnp.max(answers.residual),
        )
        return answer, state

    def observe(before: Array, after: Array, state: State) -> State:
        assert method.observe is not None
        return jax.vmap(method.observe, in_axes=(None, None, 0))(before, after, state)

    return method._replace(
        name=f"per_layer({method.name})",
        init=init,
        update=update,
        needs="gradients",
        observe=observe if method.observe else None,
        scales_heads=False,
    )
