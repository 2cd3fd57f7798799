"""PyTorch's steps are jmtl's: the same update from the same parameters and batch."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jmtl

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    from experiments import peers
    from experiments.peer_models import named

from experiments.speed.models import CLASSES, Sizes, build, draw, to_batch
from experiments.speed.steps import make_method
from jmtl.methods.pcgrad import project
from jmtl.tasks import task_losses
from jmtl.train.state import init_params

RATE = 1e-3
TINY = {
    "mlp": Sizes("mlp", {"hidden": (12, 8)}, (6,), 16),
    "lenet": Sizes("lenet", {}, (28, 28), 4),
    "resnet": Sizes("resnet", {"widths": (4, 8), "blocks": (1, 1)}, (8, 8, 3), 8),
    "transformer": Sizes(
        "transformer",
        {"vocabulary": 20, "width": 8, "layers": 1, "heads": 2, "max_length": 6},
        (5,),
        8,
        "tokens",
    ),
}


def conflicting(sizes):
    """A model of two tasks, and the first of some batches on which their gradients conflict."""
    built = build(sizes, 2)
    raw = draw(sizes, 2)
    inputs = to_batch(sizes, built.tasks, raw).inputs
    params, state = init_params(jax.random.key(1), built.net, inputs)

    def losses(shared, own, data):
        both = {"shared": shared, "tasks": own}
        return task_losses(built.tasks, built.net.apply(both, state, data.inputs, True)[0], data)

    shared, own = params["shared"], params["tasks"]
    gramian_of = jax.jit(jmtl.value_and_gramian(losses))
    for seed in range(100):
        labels = jax.random.randint(jax.random.key(seed), (sizes.rows, 2), 0, CLASSES)
        data = to_batch(sizes, built.tasks, {**raw, "labels": labels})
        if gramian_of(shared, own, data)[1].cosine[0, 1] < -0.01:
            break
    else:
        raise AssertionError("no batch with a conflict")

    def gradient(method):
        run = jax.jit(jmtl.value_and_grads(losses, method, split=True))
        return run(method.init(shared), shared, own, data).gradient

    return params, labels, inputs, gradient


@pytest.mark.parametrize("model", TINY)
def test_one_step_is_ours(model):
    sizes = TINY[model]
    peers.prepare(1)
    params, labels, inputs, ours = conflicting(sizes)
    setting = peers.Setting(
        sizes, 2, params, np.asarray(inputs), np.asarray(labels), learning_rate=RATE
    )
    found, notes = peers.peers(setting, ("equal", "pcgrad"))
    assert notes == []
    sources = {peer.source for peer in found}
    assert {"torch", "torch loop"} <= sources
    adam = optax.adam(RATE)
    for peer in found:
        shared, own = ours(make_method(peer.method, 2))
        gradient = {"shared": shared, "tasks": own}
        updates, _ = adam.update(gradient, adam.init(params))
        after = named(optax.apply_updates(params, updates), sizes)
        expected = named(gradient, sizes)
        peer.run(1)
        for name, parameter in peer.net.named_parameters():
            if peer.source == "torchjd" and name.startswith("heads"):
                continue  # its engine's guide weighs the heads too
            wanted, got = expected[name], parameter.grad.numpy()
            scale = np.abs(wanted).max()
            np.testing.assert_allclose(got, wanted, atol=2e-5 * scale + 1e-7, rtol=1e-4)
            clear = np.abs(wanted) > 1e-3 * scale + 1e-6  # Adam divides by what is nearly 0
            np.testing.assert_allclose(
                parameter.detach().numpy()[clear], after[name][clear], atol=2e-3 * RATE, rtol=1e-6
            )


def test_graddrop_keeps_one_sign_of_every_element():
    torch.manual_seed(0)
    rows = torch.randn(3, 50)
    kept = peers.graddrop(rows)
    choices = torch.stack([rows.clamp(min=0).sum(0), rows.clamp(max=0).sum(0)])
    assert bool(torch.isclose(choices, kept).any(0).all())
    assert not bool(torch.isclose(choices[0], kept).all())


def test_three_rows_are_projected_in_turn():
    torch.manual_seed(0)
    first, *others = torch.randn(3, 7)
    rows = torch.stack([first, *(0.3 * other - first for other in others)])
    gram = jmtl.gramian(rows.numpy())
    ratios = np.asarray(gram.norms)[:, None] / np.asarray(gram.norms)[None, :]
    two = [((1, 2), (2, 1)), ((0, 2), (2, 0)), ((0, 1), (1, 0))]
    results = []
    for orders in itertools.product(*two):
        visits = jnp.array([[i, *order] for i, order in enumerate(orders)])
        weights = (ratios * np.asarray(project(gram, visits))).sum(0)
        results.append(weights @ rows.numpy())
    for _ in range(5):
        got = peers.pcgrad(rows).numpy()
        assert any(np.allclose(got, wanted, rtol=1e-4, atol=1e-5) for wanted in results)
