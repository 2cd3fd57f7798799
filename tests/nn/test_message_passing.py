"""SchNet against its formula, and what must not change a molecule's features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import nn

rng = np.random.default_rng(0)
CHARGES = np.array([6, 1, 8, 1])
POSITIONS = rng.normal(size=(4, 3)).astype(np.float32) * 1.5
ENCODER = nn.SchNet(width=4, layers=2, gaussians=6, cutoff=4.0)


def molecules(*each, places=6):
    """A batch of molecules with noise where there are no atoms."""
    charges = np.zeros((len(each), places), np.int32)
    positions = rng.normal(size=(len(each), places, 3)).astype(np.float32)
    for row, (atoms, where) in enumerate(each):
        charges[row, : len(atoms)], positions[row, : len(atoms)] = atoms, where
    return {"charges": jnp.asarray(charges), "positions": jnp.asarray(positions)}


@pytest.fixture(scope="module")
def variables():
    shapes = jax.eval_shape(
        lambda key: ENCODER.init(key, molecules((CHARGES, POSITIONS)), False), jax.random.key(0)
    )
    fill = lambda leaf: jnp.asarray(0.7 * rng.normal(size=leaf.shape), leaf.dtype)
    return jax.tree.map(fill, shapes)


def test_order_turns_moves_mirrors_and_padding_change_nothing(variables):
    order = np.array([2, 0, 3, 1])
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    further = POSITIONS + np.array([[0.3], [0], [0], [0]], np.float32)
    same = [
        (CHARGES, POSITIONS),
        (CHARGES[order], POSITIONS[order]),
        (CHARGES, POSITIONS @ turn),
        (CHARGES, POSITIONS @ -turn),  # one of the two is a mirror
        (CHARGES, POSITIONS + np.array([5.0, -2.0, 1.0])),
    ]
    others = [(CHARGES[order], POSITIONS), (CHARGES, further), (CHARGES[:3], POSITIONS[:3])]

    @jax.jit
    def run(variables, wide, narrow):
        return ENCODER.apply(variables, wide, False), ENCODER.apply(variables, narrow, False)

    wide, narrow = run(
        variables, molecules(*same, *others), molecules((CHARGES, POSITIONS), places=4)
    )
    vectors = np.asarray(wide["vector"])
    assert vectors.shape == (8, 8)
    np.testing.assert_allclose(vectors[:5], vectors[[0] * 5], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(narrow["vector"][0], vectors[0], rtol=1e-4, atol=1e-5)
    sequences = np.asarray(wide["sequence"])
    np.testing.assert_allclose(sequences[1, :4], sequences[0, order], rtol=1e-4, atol=1e-5)
    assert (sequences[:5, 4:] == 0).all()
    # Other molecules have other features.
    assert (np.abs(vectors[5:] - vectors[0]).max(axis=1) > 1e-2).all()


def test_layers_are_the_formula(variables):
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    dense = lambda name, x: x @ p[name]["kernel"] + p[name].get("bias", 0)
    ssp = lambda x: np.log(0.5 * np.exp(x) + 0.5)
    x = p["embedding"]["embedding"][CHARGES]
    centres = np.linspace(0, 4, 6)
    for layer in ("layer0", "layer1"):
        sent = x @ p[f"{layer}_send"]["kernel"]
        received = np.zeros_like(x)
        for i in range(4):
            for j in set(range(4)) - {i}:
                d = np.linalg.norm(POSITIONS[i].astype(float) - POSITIONS[j])
                if d < 4:
                    written = np.exp(-0.5 * ((d - centres) / 0.8) ** 2)
                    weights = dense(f"{layer}_filter_1", ssp(dense(f"{layer}_filter_0", written)))
                    received[i] += weights * sent[j] * 0.5 * (np.cos(np.pi * d / 4) + 1)
        x = x + dense(f"{layer}_receive_1", ssp(dense(f"{layer}_receive_0", received)))
    y = ssp(dense("neck_dense", x))
    answer = jax.jit(ENCODER.apply, static_argnums=2)(
        variables, molecules((CHARGES, POSITIONS)), False
    )
    np.testing.assert_allclose(answer["sequence"][0, :4], x, rtol=1e-4, atol=1e-4)
    expected = np.concatenate([y.mean(0), y.sum(0) / 18])
    np.testing.assert_allclose(answer["vector"][0], expected, rtol=1e-4, atol=1e-4)


def test_a_molecule_without_atoms_and_two_in_one_place_are_finite(variables):
    batch = molecules((CHARGES[:0], POSITIONS[:0]), (CHARGES[:2], POSITIONS[[0, 0]]), places=2)

    def total(positions):
        inputs = {"charges": batch["charges"], "positions": positions}
        return ENCODER.apply(variables, inputs, False)["vector"].sum()

    value, slope = jax.jit(jax.value_and_grad(total))(batch["positions"])
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_what_a_gate_reads():
    shares = ENCODER.gate_inputs(molecules((CHARGES, POSITIONS), (CHARGES[:0], POSITIONS[:0])))
    expected = np.zeros((2, 10))
    expected[0, [6, 1, 8]] = 0.25, 0.5, 0.25
    np.testing.assert_allclose(shares, expected)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (jnp.ones((2, 3)), "molecules are {'charges'"),
        ({"charges": jnp.ones((2, 3)), "positions": jnp.ones((2, 3, 3))}, r"integers \[B, A\]"),
        (
            {"charges": jnp.ones((2, 3), int), "positions": jnp.ones((2, 3))},
            r"positions are \(2, 3, 3\), got \(2, 3\)",
        ),
    ],
)
def test_what_is_no_molecule_is_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda key: ENCODER.init(key, inputs, False), jax.random.key(0))
