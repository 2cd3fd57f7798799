"""Ways of sharing against the forms they reduce to, and against their formulas in NumPy."""

import inspect
import textwrap

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl import nn, tasks
from jmtl.nn.encoders.staged import spans
from jmtl.nn.sharing.branching import Edge
from jmtl.nn.sharing.dselect_k import entropy, selected, smooth_step, unreachable
from jmtl.nn.sharing.mtan import fitted
from jmtl.nn.sharing.parts import mixed
from jmtl.train.state import fresh_state
from jmtl.train.step import make_step
from tests.nn.sharings import LABELS, PCGRAD, PRESENT, SGD, TASKS, drawn
from tests.nn.tiny import B

X = jax.random.normal(jax.random.key(0), (B, 4))
BATCH = tasks.batch(X, LABELS, PRESENT)
ENCODER = nn.MLP((5, 4, 3), activation="tanh")
HEADS = nn.make_heads(TASKS)
KEY = jax.random.key(1)


def sharing(name, encoder=ENCODER, **options):
    return nn.make_sharing(name, encoder, HEADS, **options)


def initial(model, spread=0.5):
    return drawn(model, X, spread)


def outputs(model, params, state, train=False):
    key = jax.random.key(2) if train else None
    return jax.jit(model.apply, static_argnums=3)(params, state, X, train, key)[0]


def same(one, other, rtol=1e-6):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=rtol, atol=1e-7)


HARD = sharing("hard")


# What a way of sharing reduces to


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("name", "options", "copy", "own"),
    [
        ("mmoe", {"experts": 1}, "expert_0", "gate"),
        ("branching", {"nodes": 1}, "node_0", "edge"),
        ("dselect_k", {"experts": 1, "k": 2}, "expert_0", "alpha"),
    ],
)
def test_one_expert_or_node_is_hard_sharing(name, options, copy, own, train):
    model = sharing(name, **options)
    params, state = initial(model)
    assert all(own in task for task in params["tasks"].values())
    as_hard = {
        "shared": params["shared"][copy],
        "tasks": {task: part["head"] for task, part in params["tasks"].items()},
    }
    expected = outputs(HARD, as_hard, initial(HARD)[1])
    same(outputs(model, params, state, train), expected)


def independent():
    """The outputs and parameters of independent networks."""
    model = sharing("none")
    params, state = initial(model)
    return params["tasks"], outputs(model, params, state)


def test_cross_stitch_with_identities_is_independent_networks():
    networks, expected = independent()
    model = sharing("cross_stitch", same=1.0)
    params, state = jax.jit(model.init)(KEY, X)
    assert params["shared"]["unit_0"].shape == (2, 2, 1)
    params = {
        "shared": params["shared"] | {f"network_{k}": v["encoder"] for k, v in networks.items()},
        "tasks": {k: {"network": v["encoder"], "head": v["head"]} for k, v in networks.items()},
    }
    same(outputs(model, params, state), expected)


def test_cross_stitch_starts_with_rows_that_sum_to_one():
    params, _ = jax.jit(sharing("cross_stitch", same=0.7, per_channel=True).init)(KEY, X)
    expected = np.broadcast_to(np.array([[0.7, 0.3], [0.3, 0.7]])[..., None], (2, 2, 4))
    np.testing.assert_allclose(params["shared"]["unit_1"], expected, rtol=1e-6)


def test_cross_stitch_is_the_formula():
    model = sharing("cross_stitch", per_channel=True)
    params, state = initial(model)
    alpha = {name: params["shared"][name] for name in ("unit_0", "unit_1")}
    assert alpha["unit_1"].shape == (2, 2, 4)
    dense = lambda x, p: x @ np.asarray(p["kernel"], float) + np.asarray(p["bias"], float)
    xs = [np.asarray(X, float)] * 2
    own = [params["tasks"][task] for task in ("kind", "size")]
    networks = [
        params["shared"][f"network_{task}"] | params["tasks"][task]["network"]
        for task in ("kind", "size")
    ]
    for i in range(3):
        xs = [np.tanh(dense(x, p[f"Dense_{i}"])) for x, p in zip(xs, networks, strict=True)]
        if i < 2:
            a = np.asarray(alpha[f"unit_{i}"], float)
            xs = [sum(a[k, j] * xs[j] for j in range(2)) for k in range(2)]
    heads = [part["head"]["Dense_0"] for part in own]
    expected = dict(zip(("kind", "size"), map(dense, xs, heads), strict=True))
    same(outputs(model, params, state), expected, rtol=1e-4)


def test_cgc_without_shared_experts_is_independent_networks():
    networks, expected = independent()
    model = sharing("cgc", shared_experts=0)
    params, state = initial(model)
    assert params["shared"] == {}
    own = {
        k: {**v, "expert_0": networks[k]["encoder"], "head": networks[k]["head"]}
        for k, v in params["tasks"].items()
    }
    same(outputs(model, {"shared": {}, "tasks": own}, state), expected)


def test_ple_over_one_stage_is_cgc():
    encoder = nn.MLP((3,), activation="tanh")
    models = [sharing(n, encoder, shared_experts=2, task_experts=2) for n in ("ple", "cgc")]
    (ple, state), (cgc, _) = map(initial, models)
    assert jax.tree.structure(ple) == jax.tree.structure(cgc)
    same(outputs(models[0], ple, state), outputs(models[1], ple, state))


def test_ple_is_the_formula():
    model = sharing("ple", nn.MLP((4, 3), activation="tanh"), task_experts=2)
    params, state = initial(model)
    p = jax.tree.map(lambda x: np.asarray(x, float), params)
    shared, own = p["shared"], p["tasks"]
    expert = lambda part, layer, x: np.tanh(
        x @ part[f"Dense_{layer}"]["kernel"] + part[f"Dense_{layer}"]["bias"]
    )

    def gated(gate, x, parts):
        logits = x @ gate["logits"]["kernel"]
        w = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return sum(w[:, i : i + 1] * part for i, part in enumerate(parts))

    x = np.asarray(X, float)
    first = {
        task: [expert(shared[f"level0_expert_task_{task}_{j}"], 0, x) for j in range(2)]
        for task in ("kind", "size")
    }
    common = [expert(shared["level0_expert_shared_0"], 0, x)]
    stream = gated(shared["level0_gate_shared"], x, first["kind"] + first["size"] + common)
    last = [expert(shared["level1_expert_shared_0"], 1, stream)]
    expected = {}
    for task, part in own.items():
        mine = gated(part["gate_before"], x, first[task] + common)
        experts = [expert(part[f"expert_{j}"], 1, mine) for j in range(2)] + last
        head = part["head"]["Dense_0"]
        expected[task] = gated(part["gate"], mine, experts) @ head["kernel"] + head["bias"]
    same(outputs(model, params, state), expected, rtol=1e-4)


def test_mtan_with_open_masks_is_hard_sharing():
    model = sharing("mtan", reduction=2)
    params, state = initial(model)
    assert params["tasks"]["kind"]["attend_2_g"]["kernel"].shape == (6, 1)
    own = {}
    for task, part in params["tasks"].items():
        opened = {"norm": {"scale": 0.0, "bias": 50.0}}  # a sigmoid of 50 is 1 in float32
        fill = lambda name, leaves: jax.tree.map(jnp.full_like, leaves, opened)  # noqa: B023
        own[task] = {k: fill(k, v) if k.endswith("_h_norm") else v for k, v in part.items()}
    as_hard = {
        "shared": params["shared"]["encoder"],
        "tasks": {task: part["head"] for task, part in own.items()},
    }
    expected = outputs(HARD, as_hard, initial(HARD)[1])
    same(outputs(model, {**params, "tasks": own}, state), expected)


def test_mtan_is_the_formula():
    model = sharing("mtan")
    params, state = initial(model)
    p = jax.tree.map(lambda x: np.asarray(x, float), params)
    dense = lambda part, x: x @ part["kernel"] + part["bias"]

    def norm(part, x):
        part, centred = part["norm"], x - x.mean(1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6) * part["scale"]
            + part["bias"]
        )

    features, x = [], np.asarray(X, float)
    for i in range(3):
        x = np.tanh(dense(p["shared"]["encoder"][f"Dense_{i}"], x))
        features.append(x)
    expected = {}
    for task, part in p["tasks"].items():
        attended = None
        for i, u in enumerate(features):
            read = u
            if i > 0:
                passing = p["shared"][f"passing_{i - 1}"]
                f = np.maximum(norm(passing["norm"], dense(passing["conv"], attended)), 0)
                read = np.concatenate([u, f], axis=1)
            g = np.maximum(norm(part[f"attend_{i}_g_norm"], dense(part[f"attend_{i}_g"], read)), 0)
            h = norm(part[f"attend_{i}_h_norm"], dense(part[f"attend_{i}_h"], g))
            attended = u / (1 + np.exp(-h))
        expected[task] = dense(part["head"]["Dense_0"], attended)
    same(outputs(model, params, state), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "like", "expected"),
    [
        ((1, 4, 4, 1), (1, 2, 2, 3), [5, 7, 13, 15]),
        ((1, 2, 2, 1), (1, 2, 2, 5), [0, 1, 2, 3]),
        ((1, 2, 2, 1), (1, 3), [1.5]),
        ((1, 1, 2, 1), (1, 1, 4, 1), [0, 0.25, 0.75, 1]),
    ],
)
def test_features_are_fitted_to_a_resolution(shape, like, expected):
    x = jnp.arange(float(np.prod(shape))).reshape(shape)
    np.testing.assert_allclose(fitted(x, jnp.zeros(like)).reshape(-1), expected)


def test_mixtures_leave_masks_alone():
    mask = jnp.array([True, False])
    parts = [(jnp.full((2, 3, 1), i + 1.0, "bfloat16"), mask) for i in range(2)]
    per_example, kept = mixed(jnp.array([[0.5, 0.5], [1.0, 0.0]]), parts)
    np.testing.assert_array_equal(per_example.astype(float)[:, 0, 0], [1.5, 1])
    assert per_example.dtype == jnp.bfloat16
    np.testing.assert_array_equal(kept, mask)
    np.testing.assert_allclose(mixed(jnp.array([0.25, 0.75]), [jnp.ones(2), jnp.zeros(2)]), 0.25)


# DSelect-k


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_smooth_step_is_the_cubic(gamma):
    t = np.linspace(-1, 1, 201)
    cubic = -2 / gamma**3 * t**3 + 3 / (2 * gamma) * t + 0.5
    expected = np.where(t <= -gamma / 2, 0, np.where(t >= gamma / 2, 1, cubic))
    np.testing.assert_allclose(smooth_step(jnp.asarray(t), gamma), expected, atol=1e-6)


@pytest.mark.parametrize("experts", [1, 2, 3, 4, 5, 8])
def test_selectors_choose_among_the_codes(experts):
    m = int(np.ceil(np.log2(experts)))
    z = np.random.default_rng(0).uniform(-0.6, 0.6, (4, 2, m))
    digits = np.asarray(smooth_step(jnp.asarray(z), 1.0), float)
    expected = np.ones((4, 2, experts))
    for i in range(experts):
        for j in range(m):
            expected[..., i] *= digits[..., j] if (i >> j) & 1 else 1 - digits[..., j]
    r = selected(jnp.asarray(z, jnp.float32), experts, 1.0)
    np.testing.assert_allclose(r, expected, rtol=1e-5, atol=1e-6)
    whole = 2**m == experts
    assert (np.abs(r.sum(-1) - 1) < 1e-5).all() == whole


def test_entropy_of_selectors_is_finite_where_a_choice_is_certain():
    z = jnp.array([[0.7, 0.1], [-0.2, -0.9]])
    value = lambda z: entropy(selected(z, 4, 1.0))
    r = np.asarray(selected(z, 4, 1.0), float)
    logs = np.log(r, where=r > 0, out=np.zeros_like(r))
    np.testing.assert_allclose(value(z), -(r * logs).sum(), rtol=1e-5)
    gradient = jax.grad(value)(z)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(np.asarray(gradient) == 0, [[True, False], [False, True]])
    np.testing.assert_allclose(unreachable(jnp.array([[0.5, 0], [0, 0]])), 2 + 1000, rtol=1e-6)


def trained(model, method=PCGRAD):
    """The state before and after a step, and its metrics."""
    state = fresh_state(KEY, *initial(model, spread=0.1), method, SGD)
    new, metrics = jax.jit(make_step(model, TASKS, method, SGD))(state, BATCH)
    return state, new, metrics


def penalty_by_hand(z, experts, weight):
    """Weighted entropy of k selectors, and 1 over what they give to experts, in float64."""
    t = np.clip(z, -0.5, 0.5)
    digits = -2 * t**3 + 1.5 * t + 0.5
    code = lambda i: [(i >> j) & 1 for j in range(z.shape[1])]
    r = [np.prod(np.where(code(i), digits, 1 - digits), axis=1) for i in range(experts)]
    missing = 2 ** z.shape[1] > experts
    return weight * -np.sum(r * np.log(r)) + missing * np.sum(1 / np.sum(r, axis=0))


@pytest.mark.parametrize("experts", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_the_penalty_reaches_losses_and_gradients(experts):
    # z of selectors without inputs: what λ adds to loss and step is λ Ω and its slope, all else
    # being equal.
    model = lambda weight: sharing(
        "dselect_k", nn.MLP((2,)), experts=experts, entropy=weight, per_example=False
    )
    (state, *without), (_, *within) = trained(model(0.0)), trained(model(0.5))
    for i, task in enumerate(("kind", "size")):
        z = np.asarray(state.params["tasks"][task]["z"], float)
        added = lambda z: penalty_by_hand(z, experts, 0.5) - penalty_by_hand(z, experts, 0.0)
        eye = np.eye(z.size).reshape(-1, *z.shape) * 1e-5
        slope = np.array([(added(z + e) - added(z - e)) / 2e-5 for e in eye])
        losses = within[1].losses[i] - without[1].losses[i]
        np.testing.assert_allclose(losses, added(z), rtol=1e-5)
        moved = within[0].params["tasks"][task]["z"] - without[0].params["tasks"][task]["z"]
        np.testing.assert_allclose(moved.reshape(-1), -0.1 * slope, rtol=1e-3, atol=1e-6)
        penalty = nn.penalties(within[0].model_state)[task]
        np.testing.assert_allclose(penalty, penalty_by_hand(z, experts, 0.5), rtol=1e-5)
    assert nn.penalties(initial(HARD)[1]) == {}


# Branching


def test_edges_are_drawn_in_training_and_the_likeliest_in_evaluation():
    edge = Edge(3, (4.0, 0.01), 10)
    variables = edge.init(KEY, False)
    variables["params"]["logits"] = jnp.log(jnp.array([0.2, 0.5, 0.3]))
    np.testing.assert_array_equal(edge.apply(variables, False), [0, 1, 0])

    @jax.jit
    @jax.vmap
    def draw(key, step):
        given = {**variables, "branching": {"step": step}}
        return edge.apply(given, True, rngs={"dropout": key}, mutable=["branching"])

    keys = jax.random.split(KEY, 4000)
    first, moved = draw(keys, jnp.zeros(4000, int))
    last, _ = draw(keys, jnp.full(4000, 99))
    assert (moved["branching"]["step"] == 1).all()
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(first.argmax(1), last.argmax(1))
    assert first.max(1).mean() < 0.7  # at τ = 4 a mixture, in the end a choice
    assert last.max(1).mean() > 0.98
    shares = np.bincount(last.argmax(1), minlength=3) / 4000  # Gumbel's maximum is a draw of π
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=5 * (0.25 / 4000) ** 0.5)


# What is shared


@pytest.mark.parametrize("name", sorted(nn.SHARINGS))
def test_shared_is_what_more_than_one_task_reaches(name):
    model = sharing(name)
    params, state = initial(model, spread=0.2)  # selectors that are far from certain

    @jax.jit
    def gradients(params):
        def losses(params):
            values, _ = model.apply(params, state, X, True, KEY)
            return tasks.task_losses(TASKS, values, BATCH)

        return jmtl.value_and_task_grads(losses)(params)[1]

    rows = gradients(params)
    reached = lambda tree: [
        np.abs(leaf).reshape(2, -1).max(1) > 0 for leaf in map(np.asarray, jax.tree.leaves(tree))
    ]
    assert all(both.all() for both in reached(rows["shared"]))
    for i, task in enumerate(("kind", "size")):
        for own in reached(rows["tasks"][task]):
            assert own[i]
            assert not own[1 - i]


def test_gradients_at_the_representation_need_one():
    make_step(HARD, TASKS, PCGRAD, SGD, at="representation")
    for name in set(nn.SHARINGS) - {"hard"}:
        model = sharing(name)
        with pytest.raises(ValueError, match="needs one representation that all tasks read"):
            make_step(model, TASKS, PCGRAD, SGD, at="representation")


def test_nothing_shared_leaves_surgery_nothing_to_do():
    state, new, metrics = trained(sharing("none"))
    np.testing.assert_array_equal(metrics.cosine, 0)
    _, equal, _ = trained(sharing("none"), jmtl.equal(2))
    for one, other in zip(*map(jax.tree.leaves, (new.params, equal.params)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert new.params["shared"] == {} == state.params["shared"]


@pytest.mark.parametrize("method", [jmtl.nash(2), jmtl.moco(2), jmtl.modo(2)])
def test_methods_that_act_on_shared_gradients_refuse_independent_networks(method):
    rows = jax.tree.map(lambda x: jnp.repeat(x, method.batches, 0), BATCH)
    model = sharing("none")
    state = fresh_state(KEY, *initial(model), method, SGD)
    step = make_step(model, TASKS, method, SGD)
    with pytest.raises(ValueError, match=f"{method.name} acts on the gradients of shared"):
        jax.eval_shape(step, state, rows)


# Encoders of one's own


def test_the_encoder_that_the_documentation_shows():
    text = inspect.getdoc(nn.Staged)
    start = text.index("class Twice")
    block = textwrap.dedent("    " + text[start : text.index("Dropout is", start)])
    namespace = {"nn": flax.linen, "Staged": nn.Staged}
    exec(block, namespace)
    encoder = namespace["Twice"](width=3)
    stages, neck = spans(encoder)
    assert (stages, neck) == ([range(1), range(1, 2)], range(2, 3))
    model = sharing("cross_stitch", encoder)
    params, _ = jax.eval_shape(model.init, KEY, X)
    assert params["shared"]["network_size"].keys() == {"first"}
    assert params["tasks"]["size"]["network"].keys() == {"second"}


class Whole(flax.linen.Module):
    """An encoder without stages."""

    @flax.linen.compact
    def __call__(self, x, train):
        return flax.linen.Dense(3)(x)


def test_an_encoder_without_stages_is_refused_where_they_are_needed():
    for name in ("branching", "cross_stitch", "mtan", "ple"):
        with pytest.raises(ValueError, match=f"{name} exchanges .* Whole has none"):
            sharing(name, Whole())
    for name in ("cgc", "dselect_k", "hard", "mmoe", "none"):
        jax.eval_shape(sharing(name, Whole()).init, KEY, X)


class Reads(flax.linen.Module):
    """A head that says how many dimensions its part has."""

    reads: str

    @flax.linen.compact
    def __call__(self, x, train):
        return jnp.full((len(x),), x.ndim)


class Parts(flax.linen.Module):
    """An encoder whose representation has two parts."""

    @flax.linen.compact
    def __call__(self, x, train):
        x = flax.linen.Dense(3)(x)
        return {"sequence": x[:, None], "vector": x}


def test_heads_read_their_part_of_a_representation():
    heads = {"tags": Reads("sequence"), "kind": Reads("vector"), "own": nn.DenseHead(2)}
    for name in ("hard", "mmoe", "none"):
        model = nn.make_sharing(name, Parts(), heads)
        given, _ = model.apply(*initial(model), X)
        assert (given["tags"] == 3).all()
        assert (given["kind"] == 2).all()
        assert given["own"].shape == (B, 2)
    assert "Parts" in nn.summary(nn.model(Parts(), heads), X)
    with pytest.raises(ValueError, match=r"Reads reads the part 'map' .* has sequence, vector"):
        jax.eval_shape(nn.model(Parts(), {"a": Reads("map")}).init, KEY, X)


@pytest.mark.parametrize("name", ["cross_stitch", "mtan", "none"])
def test_a_summary_counts_what_is_shared(name):
    model = sharing(name)
    params, _ = jax.eval_shape(model.init, KEY, X)
    count = sum(leaf.size for leaf in jax.tree.leaves(params["shared"]))
    assert nn.summary(model, X).splitlines()[0].split() == ["encoder", str(count), "parameters"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("crossstitch", {}, "unknown sharing 'crossstitch'; did you mean 'cross_stitch'"),
        ("mmoe", {"expert": 2}, "mmoe has no option 'expert'; did you mean 'experts'"),
        ("hard", {"experts": 2}, "hard has no options, got 'experts'"),
        ("mmoe", {"experts": 0}, "experts must be a whole number >= 1, got 0"),
        ("dselect_k", {"entropy": -1}, "entropy must be a finite number >= 0, got -1"),
        ("ple", {"shared_experts": 0}, "shared_experts must be a whole number >= 1, got 0"),
        ("branching", {"temperature": (1, 0)}, "temperature must be a finite number > 0, got 0"),
    ],
)
def test_errors_name_what_was_meant(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        sharing(name, **options)
    assert "\n" not in str(error.value)


def test_branching_draws_with_a_key_and_says_so():
    model = sharing("branching")
    with pytest.raises(ValueError, match="branching draws a tree in training: pass a key"):
        jax.eval_shape(lambda key: model.apply(*model.init(key, X), X, True), KEY)
