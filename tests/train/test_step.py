"""The step against optax and jacrev by hand; what it measures, refuses and repeats."""

import ast
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jmtl
from jmtl.data.indices import batch_indices
from jmtl.data.loading import stream
from jmtl.method import Answer, Method, stateless
from jmtl.nn import make_encoder, make_heads, model
from jmtl.tasks import classification, regression, task_losses
from jmtl.train.parallel import shell, start_of
from jmtl.train.state import all_finite, init_state
from jmtl.train.step import make_step
from tests.train import toy
from tests.train.toy import ARRAYS, BATCH, MLP, OPTIMIZER, PLAIN, RESNET, SEED, TASKS, N

STEPPED: dict[Any, Any] = {}


def raw_batch(t, rows=BATCH):
    chosen = batch_indices(SEED, t, rows, N)
    return {name: values[chosen] for name, values in ARRAYS.items()}


def batch_of(t, rows=BATCH):
    return toy.to_batch(raw_batch(t, rows))


def compiled(method, encoder=PLAIN, tasks=TASKS, optimizer=OPTIMIZER, **options):
    """The jitted step; equal arguments share one program."""
    key = (id(method), encoder[0], repr(encoder[1]), id(tasks), id(optimizer), repr(options))
    if key not in STEPPED:
        net = model(make_encoder(encoder[0], **encoder[1]), make_heads(tasks))
        step = jax.jit(make_step(net, tasks, method, optimizer, **options))
        STEPPED[key] = (step, method, tasks, optimizer)  # kept, so that no id is used again
    return STEPPED[key][0]


PCGRAD, EQUAL = jmtl.pcgrad(2), jmtl.equal(2)


@functools.partial(jax.jit, static_argnums=0)
def losses_by_hand(encoder, params, model_state, batch, key=None):
    """Means over the labels that are there, written out; and the new model state."""
    net = toy.net(ast.literal_eval(encoder))
    outputs, model_state = net.apply(params, model_state, batch.inputs, True, key)
    logs = jax.nn.log_softmax(outputs["kind"])
    present = jnp.asarray(batch.present["kind"])
    values = -logs[jnp.arange(len(present)), batch.labels["kind"]]
    kind = jnp.where(present, values, 0).sum() / jnp.maximum(present.sum(), 1)
    size = jnp.mean((outputs["size"][:, 0] - batch.labels["size"]) ** 2)
    return jnp.stack([kind, size]), model_state


def close(one, other, rtol=1e-5):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * (np.abs(b).max() + 1e-6))


def bits(tree):
    plain = jax.tree.map(
        lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x,
        tree,
    )
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(plain)]


# Against what is written out by hand


@pytest.mark.parametrize("weights", [(2.0, 0.5), (0.0, 1.0)])
def test_loss_methods_descend_the_weighted_sum(weights):
    adam = optax.adam(1e-2)
    method = jmtl.static(2, weights=weights)
    state = toy.start(PLAIN, method, optimizer=adam)
    batch = batch_of(0)
    new, metrics = compiled(method, optimizer=adam)(state, batch)

    def total(params):
        values, _ = losses_by_hand(repr(PLAIN), params, state.model_state, batch)
        return values @ jnp.asarray(weights), values

    gradient, values = jax.grad(total, has_aux=True)(state.params)
    updates, opt_state = adam.update(gradient, state.opt_state, state.params)
    close(new.params, optax.apply_updates(state.params, updates))
    close(new.opt_state, opt_state)
    close(metrics.losses, values)
    np.testing.assert_allclose(metrics.weights, weights)
    assert int(new.step) == 1
    assert np.isnan(metrics.conflict_rate)


def surgery_by_hand(jacobian):
    """Algorithm 1 on explicit vectors `[K, n]`; K = 2 has one order."""
    projected = []
    for i in range(len(jacobian)):
        g = jacobian[i].copy()
        for j in range(len(jacobian)):
            if j != i and g @ jacobian[j] < 0:
                g -= (g @ jacobian[j]) / (jacobian[j] @ jacobian[j]) * jacobian[j]
        projected.append(g)
    return np.sum(projected, axis=0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("conflict", [False, True])
def test_pcgrad_steps_along_the_surgery_of_jacrev(weighted, conflict):
    method = CHAIN if weighted else PCGRAD
    state = toy.start(PLAIN, method)
    factors = np.ones(2)
    if weighted:
        s = jnp.array([0.3, -0.7])
        state = state._replace(method_state=(state.method_state[0]._replace(s=s), ()))
        factors = 0.5 * np.exp(-np.array([0.3, -0.7]))
    encoder = PLAIN

    def at(batch):
        def losses(shared, own):
            params = {"shared": shared, "tasks": own}
            return losses_by_hand(repr(encoder), params, state.model_state, batch)[0]

        shared, own = state.params["shared"], state.params["tasks"]
        rows = jax.jacrev(losses)(shared, own)
        jacobian = np.concatenate([np.reshape(x, (2, -1)) for x in jax.tree.leaves(rows)], 1)
        heads = jax.grad(lambda own: losses(shared, own) @ jnp.asarray(factors, float))(own)
        return jacobian.astype(np.float64) * factors[:, None], heads

    for t in range(20):
        jacobian, heads = at(batch_of(t))
        if (jacobian[0] @ jacobian[1] < 0) == conflict:
            break
    else:
        raise AssertionError("no batch with such gradients")
    new, metrics = compiled(method)(state, batch_of(t))
    moved = jax.tree.map(lambda new, old: (old - new) / 0.05, new.params, state.params)
    shared = np.concatenate([np.ravel(x) for x in jax.tree.leaves(moved["shared"])])
    expected = surgery_by_hand(jacobian)
    np.testing.assert_allclose(shared, expected, atol=1e-5 * np.abs(expected).max())
    assert conflict == (not np.allclose(expected, jacobian.sum(0), rtol=1e-3))
    # Surgery does not scale the heads; weights of losses do.
    close(moved["tasks"], heads, rtol=2e-5)
    norms = np.linalg.norm(jacobian, axis=1)
    cosine = jacobian[0] @ jacobian[1] / norms.prod()
    np.testing.assert_allclose(metrics.cosine[0, 1], cosine, atol=1e-5)
    assert float(metrics.conflict_rate) == conflict


CHAIN = jmtl.chain(jmtl.uncertainty(2), jmtl.pcgrad(2))


# Batch statistics


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"strategy": "recompute"}, id="recompute"),
        pytest.param({"at": "representation"}, id="representation", marks=pytest.mark.slow),
        pytest.param({"measure_every": 1}, id="measured", marks=pytest.mark.slow),
    ],
)
def test_batch_statistics_move_once_whatever_is_computed(options):
    method = EQUAL if "measure_every" in options else PCGRAD
    state = toy.start(RESNET, method)
    batch = batch_of(0)
    new, _ = compiled(method, RESNET, **options)(state, batch)
    _, moved = losses_by_hand(repr(RESNET), state.params, state.model_state, batch)
    close(new.model_state, moved)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(new.model_state)) > 0


def test_batch_statistics_move_once_for_four_tasks():
    four = tuple(regression(name, label="size") for name in "abcd")
    method = jmtl.mgda(4)
    net = model(make_encoder(RESNET[0], **RESNET[1]), make_heads(four))
    batch = batch_of(0)
    start = jax.jit(lambda key: init_state(key, net, method, OPTIMIZER, batch.inputs))
    state = start(jax.random.key(0))
    new, _ = compiled(method, RESNET, four)(state, batch)
    moved = jax.jit(lambda s: net.apply(s.params, s.model_state, batch.inputs, True)[1])(state)
    close(new.model_state, moved)


# Labels that are missing


@pytest.mark.parametrize("method", [PCGRAD, EQUAL, jmtl.geometric(2)], ids=lambda m: m.name)
def test_a_batch_without_a_tasks_labels_does_nothing_to_it(method):
    raw = raw_batch(0)
    raw["has_kind"] = np.zeros_like(raw["has_kind"])
    raw["kind"] = np.full_like(raw["kind"], 99)  # no class: NaN if it were read
    state = toy.start(PLAIN, method)
    new, metrics = compiled(method)(state, toy.to_batch(raw))
    assert float(metrics.losses[0]) == 0
    assert float(metrics.losses[1]) > 0
    assert bits(new.params["tasks"]["kind"]) == bits(state.params["tasks"]["kind"])
    assert bits(new.params["tasks"]["size"]) != bits(state.params["tasks"]["size"])
    assert int(new.step) == 1
    np.testing.assert_array_equal(metrics.failed, [-1, -1])

    def size(params):
        return losses_by_hand(repr(PLAIN), params, state.model_state, batch_of(0))[0][1]

    expected = jax.tree.map(lambda p, g: p - 0.05 * g, state.params, jax.grad(size)(state.params))
    close(new.params["shared"], expected["shared"])
    if method is PCGRAD:
        np.testing.assert_allclose(metrics.cosine, [[0, 0], [0, 1]])
    again, metrics = compiled(method)(new, batch_of(1))
    assert int(again.step) == 2
    assert np.isfinite(metrics.losses).all()


def test_with_nine_of_ten_labels_missing_the_expected_gradient_is_that_of_all():
    rows = 20
    b = batch_of(0, rows)
    params, model_state = toy.start(PLAIN, EQUAL)[1:3]
    net = toy.net(PLAIN)

    def task_gradients(here):
        """Of the shared parameters `[K, ...]`, where both labels are in the rows of a mask."""

        def losses(shared):
            outputs, _ = net.apply({**params, "shared": shared}, model_state, b.inputs, True)
            given = b._replace(present={"kind": here, "size": here})
            return jnp.stack(task_losses(TASKS, outputs, given))

        return jmtl.value_and_task_grads(losses)(params["shared"])[1]

    # Every way to keep 2 of 20 labels, each as likely as the others.
    pairs = np.array(list(itertools.combinations(range(rows), 2)))
    masks = (np.arange(rows) == pairs[..., None]).any(1)
    every = jax.device_get(jax.jit(jax.vmap(task_gradients))(masks))
    expected = jax.device_get(jax.jit(task_gradients)(np.ones(rows, bool)))
    for some, whole in zip(jax.tree.leaves(every), jax.tree.leaves(expected), strict=True):
        scale = np.abs(whole).max()
        np.testing.assert_allclose(some.mean(0), whole, atol=1e-5 * scale)
        assert np.abs(some - whole).max() > 0.1 * scale
    none = jax.jit(task_gradients)(np.zeros(rows, bool))
    assert not any(leaf.any() for leaf in jax.tree.leaves(none))


# What a method observes


class Memory(NamedTuple):
    before: Any
    after: Any


def test_observe_sees_the_same_batch_before_and_after():
    encoder = ("resnet", {"widths": (4,), "blocks": (1,), "dropout": 0.2})
    method = Method(
        "watcher",
        2,
        lambda params: Memory(jnp.zeros(2), jnp.zeros(2)),
        lambda seen, state: (Answer(jnp.ones(2)), state),
        needs="losses",
        observe=lambda before, after, state: Memory(before, after),
    )
    state = toy.start(encoder, method)
    batch = batch_of(3)
    new, metrics = compiled(method, encoder)(state, batch)
    key = jax.random.fold_in(state.key, state.step)
    before, _ = losses_by_hand(repr(encoder), state.params, state.model_state, batch, key)
    after, _ = losses_by_hand(repr(encoder), new.params, state.model_state, batch, key)
    close(new.method_state.before, before)
    close(new.method_state.after, after)
    np.testing.assert_array_equal(new.method_state.before, metrics.losses)
    assert np.abs(after - before).max() > 1e-3
    blind = compiled(EQUAL, encoder)
    unobserved, _ = blind(toy.start(encoder, EQUAL), batch)
    close(new.model_state, unobserved.model_state, rtol=1e-6)
    close(new.params, unobserved.params, rtol=1e-6)


def test_conflict_is_measured_where_it_is_asked_for():
    state = toy.start(PLAIN, EQUAL)
    step, never = compiled(EQUAL, measure_every=2), compiled(EQUAL)
    seen = compiled(PCGRAD)
    for t in range(4):
        _, surgical = seen(state._replace(method_state=()), batch_of(t))
        _, unmeasured = never(state, batch_of(t))
        state, metrics = step(state, batch_of(t))
        assert np.isnan(unmeasured.cosine).all()
        assert np.isnan(unmeasured.conflict_rate)
        if t % 2:
            assert np.isnan(metrics.cosine).all()
            assert np.isnan(metrics.conflict_rate)
        else:
            np.testing.assert_allclose(metrics.cosine, surgical.cosine, atol=1e-5)
            assert float(metrics.conflict_rate) == float(surgical.conflict_rate)
        assert np.isfinite(metrics.weights).all()


# What is not finite


def poisoned(t, task):
    raw = raw_batch(t)
    if task == "size":
        raw["size"] = np.where(np.arange(BATCH) == 5, np.nan, raw["size"]).astype(np.float32)
    else:
        raw["kind"] = np.full_like(raw["kind"], 10)
    return toy.to_batch(raw)


@pytest.mark.parametrize(("task", "blamed"), [("kind", 0), ("size", 1)])
@pytest.mark.parametrize("method", [PCGRAD, EQUAL, CHAIN], ids=lambda m: m.name)
def test_from_the_first_loss_that_is_not_finite_nothing_changes(method, task, blamed):
    step = compiled(method)
    state = toy.start(PLAIN, method)
    for t in range(2):
        state, _ = step(state, batch_of(t))
    stopped, metrics = step(state, poisoned(2, task))
    assert bits(stopped._replace(failed=state.failed)) == bits(state)
    np.testing.assert_array_equal(stopped.failed, [2, blamed])
    np.testing.assert_array_equal(metrics.failed, [2, blamed])
    assert np.isnan(metrics.losses[blamed])
    other = poisoned(3, "kind" if task == "size" else "size")
    for later in (batch_of(3), other):
        after, metrics = step(stopped, later)
        assert bits(after) == bits(stopped)
        np.testing.assert_array_equal(metrics.failed, [2, blamed])


def _zero_with_infinite_slope(output, label):
    return jnp.sqrt(0 * output[:, 0] * label)


@pytest.mark.parametrize(("method", "blamed"), [(PCGRAD, 1), (EQUAL, 2)], ids=["pcgrad", "equal"])
def test_a_gradient_that_is_not_finite_is_refused(method, blamed):
    # A method that sees no task gradients cannot tell whose it was.
    tasks = (TASKS[0], TASKS[1]._replace(loss=_zero_with_infinite_slope))
    state = toy.start(PLAIN, method)
    stopped, metrics = compiled(method, tasks=tasks)(state, batch_of(0))
    assert np.isfinite(metrics.losses).all()
    assert bits(stopped._replace(failed=state.failed)) == bits(state)
    np.testing.assert_array_equal(stopped.failed, [0, blamed])


def test_an_update_that_overflows_is_refused():
    huge = optax.chain(optax.scale(1e10), optax.sgd(3e38))
    state = toy.start(PLAIN, EQUAL, optimizer=huge)
    stopped, _ = compiled(EQUAL, optimizer=huge)(state, batch_of(0))
    assert bits(stopped._replace(failed=state.failed)) == bits(state)
    np.testing.assert_array_equal(stopped.failed, [0, 2])


def test_what_is_finite_is_asked_once_for_all_leaves():
    tree = {name: jnp.ones((3, 2)) for name in "abcdefghijklmnopqrst"}

    def kept(new, old):
        finite = all_finite(new)
        return finite, jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

    run = jax.jit(kept).lower(tree, tree).compile()
    assert run.as_text().count(" and(") < 3 * len(tree)  # and not their number squared
    for value in (jnp.nan, -jnp.inf):
        assert run(tree, tree)[0]
        assert not run({**tree, "t": tree["t"].at[2, 1].set(value)}, tree)[0]
    assert all_finite({"count": jnp.ones((), int)})


# Transformations


def test_seeds_vmapped_are_seeds_one_by_one():
    # measure_every: under vmap both branches run, and only one may show.
    method, net = jmtl.uncertainty(2), toy.net(PLAIN)
    step = make_step(net, TASKS, method, OPTIMIZER, measure_every=2)

    def start(seed):
        inputs = batch_of(0).inputs
        return init_state(jax.random.key(seed), net, method, OPTIMIZER, inputs)

    many = jax.jit(jax.vmap(start))(jnp.arange(3))
    mapped = jax.jit(jax.vmap(step, in_axes=(0, None)))
    alone = jax.jit(step)
    one_by_one = [jax.tree.map(lambda x, i=i: x[i], many) for i in range(3)]
    close(one_by_one[0].params, toy.start(PLAIN, method).params, rtol=1e-6)
    for t in range(3):
        many, reports = mapped(many, batch_of(t))
        pairs = [alone(state, batch_of(t)) for state in one_by_one]
        one_by_one = [state for state, _ in pairs]
        for i, (_, report) in enumerate(pairs):
            np.testing.assert_allclose(reports.losses[i], report.losses, rtol=1e-5)
            np.testing.assert_allclose(reports.cosine[i], report.cosine, atol=1e-5)
    for i, state in enumerate(one_by_one):
        close(jax.tree.map(lambda x, i=i: x[i], many.params), state.params)
    first, second = (jax.tree.leaves(many.params)[0][i] for i in (0, 1))
    assert np.abs(first - second).max() > 1e-3


def test_a_seed_that_fails_leaves_the_others_alone():
    state = toy.start(PLAIN, EQUAL)
    states = jax.tree.map(lambda x: jnp.stack([x, x]), state)
    broken = jax.tree.map(lambda x: x.at[0].set(jnp.inf), states.params)
    step = jax.jit(jax.vmap(make_step(toy.net(PLAIN), TASKS, EQUAL, OPTIMIZER), (0, None)))
    new, _ = step(states._replace(params=broken), batch_of(0))
    assert new.failed.tolist() == [[0, 0], [-1, -1]]
    assert new.step.tolist() == [0, 1]


def test_scanned_steps_are_steps_in_a_loop():
    method = CHAIN
    state = toy.start(MLP, method)
    step = make_step(toy.net(MLP), TASKS, method, OPTIMIZER)
    batches = [batch_of(t) for t in range(5)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
    scanned, reports = jax.jit(lambda s, b: jax.lax.scan(step, s, b))(state, stacked)
    alone = jax.jit(step)
    for t, batch in enumerate(batches):
        state, report = alone(state, batch)
        np.testing.assert_allclose(reports.losses[t], report.losses, rtol=1e-6)
    close(scanned.params, state.params, rtol=1e-6)
    assert int(scanned.step) == 5


def test_dropout_differs_from_step_to_step():
    state = toy.start(MLP, EQUAL)
    step = compiled(EQUAL, MLP)
    _, first = step(state, batch_of(0))
    _, again = step(state, batch_of(0))
    _, later = step(state._replace(step=state.step + 1), batch_of(0))
    np.testing.assert_array_equal(first.losses, again.losses)
    assert np.abs(first.losses - later.losses).max() > 1e-3


# Feeds


@pytest.mark.parametrize(("kind", "devices"), [("jit", 4), ("pmap", 1)])
def test_resident_and_streamed_batches_are_the_same_bits(kind, devices):
    on = shell(kind, devices)
    state = toy.start(PLAIN, EQUAL)
    seen = lambda state, batch: (state, batch)
    first, steps = 5, 4  # epochs of 200 are straddled
    feeds = [start_of(on.resident(ARRAYS), SEED, first, BATCH, N, steps)]
    parts = list(stream(ARRAYS, SEED, BATCH, first, first + steps))
    feeds.append(on.streamed({name: np.stack([p[name] for p in parts]) for name in parts[0]}))
    outs = []
    for feed in feeds:
        placed = on.place(state)
        outs.append(on.compile(seen, toy.to_batch, placed, feed, steps, BATCH)(placed, feed)[1])
    assert bits(outs[0]) == bits(outs[1])
    expected = [batch_of(first + i) for i in range(steps)]
    assert bits(outs[0]) == bits(jax.tree.map(lambda *x: np.stack(x), *expected))


def test_resident_and_streamed_losses_agree():
    one = toy.train(shell("jit", 1), PLAIN, steps=10)
    other = toy.train(shell("jit", 1), PLAIN, steps=10, streamed=True)
    np.testing.assert_allclose(one.metrics.losses, other.metrics.losses, rtol=0, atol=1e-6)


# Sizes


def test_a_method_for_another_number_of_tasks_is_refused():
    with pytest.raises(ValueError, match=r"pcgrad has num_tasks=3; there are 2: kind, size"):
        make_step(toy.net(PLAIN), TASKS, jmtl.pcgrad(3, key=jax.random.key(0)), OPTIMIZER)


def test_a_loss_that_is_not_one_value_an_example_is_refused():
    tasks = (classification("kind", 10), regression("size")._replace(loss=lambda o, y: o.mean()))
    with pytest.raises(ValueError, match=r"task 'size': a loss gives one value an example"):
        make_step(toy.net(PLAIN), tasks, EQUAL, OPTIMIZER)(toy.start(PLAIN, EQUAL), batch_of(0))


def test_three_batches_are_every_third_row():
    method = Method(
        "three",
        2,
        stateless,
        lambda seen, state: (Answer(jnp.ones(2)), state),
        needs="gramian",
        batches=3,
    )
    state = toy.start(PLAIN, method)
    batch = batch_of(0, 3 * BATCH)
    new, metrics = compiled(method)(state, batch)
    last = jax.tree.map(lambda x: x[2::3], batch)
    equal, expected = compiled(EQUAL)(toy.start(PLAIN, EQUAL), last)
    close(metrics.losses, expected.losses)
    close(new.params, equal.params)
    first = jax.tree.map(lambda x: x[0::3], batch)
    _, surgical = compiled(PCGRAD)(toy.start(PLAIN, PCGRAD), first)
    np.testing.assert_allclose(metrics.cosine, surgical.cosine, atol=1e-5)
