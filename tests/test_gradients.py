"""Task gradients by every strategy, and the cheapest way to each method's update."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Answer, Method, Seen, stateless
from tests.methods.cases import build
from tests.programs import live_equations, making, products, reading, shapes

K = 3
HEADS = {"left": (5, 2), "middle": (5, 6), "right": (5, 7)}
ENCODER = (4, 5)
ROWS = 8

Losses = Callable[..., Any] | jmtl.Encoded


def make_problem(seed: int = 9, rows: int = ROWS) -> tuple[Any, Any, jax.Array]:
    """Shared parameters, task parameters and a batch; the tasks conflict."""
    rng = np.random.default_rng(seed)
    shared = {"w": rng.normal(size=ENCODER), "b": rng.normal(size=ENCODER[1])}
    tasks = {name: rng.normal(size=shape) for name, shape in HEADS.items()}
    batch = rng.normal(size=(rows, ENCODER[0]))
    as_arrays = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)
    return as_arrays(shared), as_arrays(tasks), as_arrays(batch)


def encode(shared: Any, batch: jax.Array) -> tuple[jax.Array, None]:
    return jnp.tanh(batch @ shared["w"] + shared["b"][None]), None


def task_losses(tasks: Any, z: jax.Array, carried: None, batch: jax.Array) -> tuple[jax.Array, ...]:
    del carried
    pairs = zip(tasks.values(), (1.0, -1.0, 3.0), strict=True)
    return tuple(
        jnp.mean(jnp.sum((z @ head - target * batch[:, :1]) ** 2, 1)) for head, target in pairs
    )


as_tuple = jmtl.Encoded(encode, task_losses)


def as_list(*args: Any) -> list[jax.Array]:
    return list(as_tuple(*args))


def as_array(*args: Any) -> jax.Array:
    return jnp.stack(as_tuple(*args))


def with_aux(fun: Losses) -> Losses:
    return lambda *args: (fun(*args), {"mean": jnp.mean(args[0]["w"])})


def with_key_data(tree: Any) -> Any:
    """Keys as the integers that they hold."""
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)


def plain(fun: Losses) -> Losses:
    """Of one pytree of parameters."""
    return lambda params, batch: fun(params["shared"], params["tasks"], batch)


def close(found: Any, expected: Any, tolerance: float = 1e-6) -> None:
    """Equal structure and leaves, to `tolerance` of the largest entry of each leaf."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)  # type: ignore[operator]
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        largest = max(float(np.max(np.abs(other), initial=0.0)), 1e-30)
        np.testing.assert_allclose(one, other, atol=tolerance * largest, rtol=0)


@pytest.fixture(scope="module")
def truth() -> tuple[Any, Any, Any]:
    """Losses, stacked shared gradients and gradients of Σ L_i for the heads, by jax.jacrev."""
    problem = make_problem()
    losses = as_array(*problem)
    rows = jax.jit(jax.jacrev(as_array))(*problem)
    heads = jax.jit(jax.grad(lambda *p: jnp.sum(as_array(*p)), argnums=1))(*problem)
    return losses, rows, heads


@pytest.mark.parametrize("strategy", ["vmap", "unroll", "auto"])
@pytest.mark.parametrize("fun", [as_tuple, as_array, as_list], ids=["tuple", "array", "list"])
def test_strategies_agree_with_jacrev(fun: Losses, strategy: Any, truth: Any) -> None:
    losses, rows, heads = truth
    shared, tasks, batch = make_problem()
    split = jmtl.value_and_task_grads(with_aux(fun), has_aux=True, split=True, strategy=strategy)
    whole = jmtl.value_and_task_grads(plain(fun), strategy=strategy)

    @jax.jit
    def both(shared: Any, tasks: Any, batch: Any) -> Any:
        return split(shared, tasks, batch), whole({"shared": shared, "tasks": tasks}, batch)

    ((values, aux), grads), (again, all_rows) = both(shared, tasks, batch)
    close((values, again), (losses, losses))
    close(grads, (rows, heads))
    close(aux["mean"], jnp.mean(shared["w"]))
    close(all_rows["shared"], rows)
    close(jax.tree.map(lambda x: jnp.sum(x, 0), all_rows["tasks"]), heads)


def test_plain_functions_with_aux_and_split_without(truth: Any) -> None:
    losses, rows, heads = truth
    shared, tasks, batch = make_problem()
    values, grads = jmtl.value_and_task_grads(as_tuple, split=True)(shared, tasks, batch)
    close((values, grads), (losses, (rows, heads)))
    fun = lambda shared, batch: with_aux(as_tuple)(shared, tasks, batch)
    (values, aux), grads = jmtl.value_and_task_grads(fun, has_aux=True)(shared, batch)
    close((values, grads, aux["mean"]), (losses, rows, jnp.mean(shared["w"])))


def test_value_and_gramian(truth: Any) -> None:
    losses, rows, _ = truth
    shared, tasks, batch = make_problem()
    fun = lambda shared, batch: with_aux(as_tuple)(shared, tasks, batch)
    (values, aux), gram = jax.jit(jmtl.value_and_gramian(fun, has_aux=True))(shared, batch)
    close((values, gram), (losses, jmtl.gramian(rows)))
    close(aux["mean"], jnp.mean(shared["w"]))
    assert float(jmtl.conflict.conflict_rate(gram)) > 0, "the problem has no conflict to test with"


@pytest.mark.parametrize("strategy", ["vmap", "unroll"])
@pytest.mark.parametrize("fun", [as_tuple, as_array], ids=["tuple", "array"])
def test_heads_never_carry_the_task_axis(fun: Losses, strategy: Any) -> None:
    stacks = {(K, *shape) for shape in HEADS.values()}
    problem = make_problem()
    split = jmtl.value_and_task_grads(fun, split=True, strategy=strategy)
    assert not stacks & shapes(live_equations(split, *problem))
    for method in (build("pcgrad", K), build("mgda", K), gradient_method(K)):
        update = jmtl.value_and_grads(fun, method, split=True, strategy=strategy)
        assert not stacks & shapes(live_equations(update, method.init(problem[0]), *problem))
    # The same look at a program that does stack them finds them.
    stacking = jmtl.value_and_task_grads(lambda both, batch: fun(*both, batch), strategy=strategy)
    assert stacks <= shapes(live_equations(stacking, problem[:2], problem[2]))


def test_the_backward_pass_of_one_scalar_skips_the_other_heads() -> None:
    problem = make_problem()
    for fun, passes in ((as_tuple, 1), (as_array, K)):
        equations = live_equations(jmtl.value_and_task_grads(fun, split=True), *problem)
        for shape in HEADS.values():
            # Once forward; then once for each loss whose backward pass goes through this head.
            assert reading(equations, shape) == 1 + passes
            assert making(equations, shape) == 1
        assert making(equations, ENCODER) == K


@pytest.mark.parametrize("name", ["equal", "static", "uncertainty"])
@pytest.mark.parametrize("split", [True, False])
def test_loss_methods_take_one_backward_pass(name: str, split: bool) -> None:
    problem = make_problem()
    method = build(name, K)
    if split:
        fun, args = as_tuple, problem
    else:
        fun = plain(as_tuple)  # type: ignore[assignment]
        args = ({"shared": problem[0], "tasks": problem[1]}, problem[2])  # type: ignore[assignment]
    found = live_equations(
        jmtl.value_and_grads(fun, method, split=split), method.init(problem[0]), *args
    )
    weighted = lambda *a: jnp.dot(jnp.ones(K), jnp.stack(fun(*a)))
    plainly = live_equations(jax.grad(weighted, argnums=(0, 1) if split else 0), *args)
    # The objective's own weighted sum is one product forward.
    assert len(products(found)) <= len(products(plainly)) - 1
    assert making(found, ENCODER) == 1


def test_recompute_keeps_no_stack_of_the_tree() -> None:
    shared, tasks, batch = make_problem()
    method = build("pcgrad", K)
    update = jmtl.value_and_grads(as_tuple, method, split=True, strategy="recompute")
    equations = live_equations(update, method.init(shared), shared, tasks, batch)
    # K passes for the Gramian and one weighted pass, which alone makes what is returned.
    assert making(equations, ENCODER) == K + 1
    for shape in HEADS.values():
        assert making(equations, shape) == 1


def test_recompute_takes_less_memory_than_the_stack() -> None:
    k, width, depth = 8, 64, 4
    shared = [jnp.ones((width, width))] * depth
    tasks = [jnp.ones((width, 2))] * k

    def deep(shared: Any, tasks: Any, batch: Any) -> tuple[jax.Array, ...]:
        for layer in shared:
            batch = jnp.tanh(batch @ layer)
        return tuple(jnp.mean((batch @ head) ** 2) for head in tasks)

    def temporary(strategy: Any) -> int:
        update = jmtl.value_and_grads(
            deep, jmtl.pcgrad(k, order="fixed"), split=True, strategy=strategy
        )
        program = jax.jit(update).lower((), shared, tasks, jnp.ones((4, width)))
        analysis = program.compile().memory_analysis()
        assert analysis is not None
        return analysis.temp_size_in_bytes

    stack = 4 * k * depth * width**2
    stored = temporary("unroll")
    assert stored > stack
    assert temporary("recompute") < 0.7 * stored


def gradient_method(k: int) -> Method:
    """A method of the third kind: no weights, an answer element by element."""

    def update(seen: Seen, state: Any) -> tuple[Answer, Any]:
        assert seen.gramian is not None
        middle = jax.tree.map(lambda g: jnp.median(g, axis=0), seen.gradients)
        return Answer(jnp.full((k,), jnp.nan), gradient=middle), state

    return Method("median", k, stateless, update, needs="gradients")


METHODS: dict[str, Callable[[], Method]] = {
    "equal": lambda: build("equal", K),
    "static": lambda: build("static", K),
    "uncertainty": lambda: build("uncertainty", K),
    "pcgrad": lambda: build("pcgrad", K),
    "mgda": lambda: build("mgda", K),
    "median": lambda: gradient_method(K),
    "static+pcgrad": lambda: jmtl.chain(build("static", K), build("pcgrad", K)),
    "static+median": lambda: jmtl.chain(build("static", K), gradient_method(K)),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_way_equals_the_aggregator_on_the_stack(name: str, truth: Any) -> None:
    losses, rows, _ = truth
    problem = make_problem()
    method = METHODS[name]()
    transform = jmtl.aggregator(method)
    strategies = {"losses": ["auto"], "gramian": ["vmap", "unroll", "recompute"]}
    ways: Any = strategies.get(method.needs, ["vmap", "unroll"])

    @jax.jit
    def run(*problem: Any) -> Any:
        state = transform.init(problem[0])
        results = [
            jmtl.value_and_grads(
                with_aux(as_tuple), method, has_aux=True, split=True, strategy=way
            )(method.init(problem[0]), *problem)
            for way in ways
        ]
        aggregated = transform.update(rows, state, None, losses=losses)
        return with_key_data((results, aggregated))

    results, (expected, after) = run(*problem)
    for found in results:
        close(found.gradient[0], expected, 3e-6)
        close(found.losses, losses)
        np.testing.assert_allclose(found.residual, after.residual, atol=1e-6)
        np.testing.assert_allclose(found.weights, after.weights, rtol=1e-5, atol=2e-6)
        close(found.state, after.method, 1e-5)
        close(found.aux["mean"], jnp.mean(problem[0]["w"]))
        if method.needs == "gramian":
            close(found.gramian, jmtl.gramian(rows))
        elif method.needs == "losses":
            assert found.gramian is None


@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("equal", [1, 1, 1]),
        ("static", [0.5, 1.0, 1.5]),
        ("pcgrad", [1, 1, 1]),
        ("mgda", "weights"),
        ("mgda alone", [1, 1, 1]),
        ("static+pcgrad", [0.5, 1.0, 1.5]),
        ("static+mgda", "weights"),
        ("median", [1, 1, 1]),
        ("static+median", [0.5, 1.0, 1.5]),
    ],
)
def test_heads_are_weighted_by_the_rule_of_the_method(name: str, heads: Any) -> None:
    more = {
        "mgda alone": lambda: jmtl.mgda(K, scales_heads=False),
        "static+mgda": lambda: jmtl.chain(build("static", K), build("mgda", K)),
    }
    method = {**METHODS, **more}[name]()
    problem = make_problem()
    found = jax.jit(jmtl.value_and_grads(as_tuple, method, split=True))(
        method.init(problem[0]), *problem
    )
    weights = found.weights if heads == "weights" else jnp.asarray(heads, jnp.float32)
    expected = jax.grad(lambda *p: jnp.dot(weights, as_array(*p)), argnums=1)(*problem)
    close(found.gradient[1], expected, 2e-6)


# --- at the representation


def linear_losses(
    tasks: Any, z: Any, targets: Any, batch: Any
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    del batch
    losses = tuple(
        0.5 * jnp.mean(jnp.sum((z @ tasks[name] - targets[name]) ** 2, 1)) for name in HEADS
    )
    return losses, jnp.sum(z)


def test_at_the_representation_equals_the_closed_form() -> None:
    shared, tasks, _ = make_problem()
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, ENCODER[0]))
    targets = {name: 3 * rng.normal(size=(ROWS, shape[1])) for name, shape in HEADS.items()}
    fun = jmtl.Encoded(
        lambda shared, batch: (batch[0] @ shared["w"] + shared["b"][None], batch[1]), linear_losses
    )
    batch = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (x, targets))
    method = build("mgda", K)
    update = jmtl.value_and_grads(fun, method, has_aux=True, split=True, at="representation")
    found = jax.jit(update)((), shared, tasks, batch)

    w, b = np.asarray(shared["w"], np.float64), np.asarray(shared["b"], np.float64)
    z = x @ w + b
    heads = [np.asarray(tasks[name], np.float64) for name in HEADS]
    errors = [z @ h - t for h, t in zip(heads, targets.values(), strict=True)]
    at_z = np.stack([e @ h.T / ROWS for e, h in zip(errors, heads, strict=True)])
    flat = at_z.reshape(K, -1)
    norms = np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(found.gramian.norms, norms, rtol=1e-5)
    np.testing.assert_allclose(
        found.gramian.cosine, flat @ flat.T / np.outer(norms, norms), atol=2e-6
    )
    weights = np.asarray(found.weights, np.float64)
    direct, _ = method.update(Seen(found.losses, found.gramian), ())
    np.testing.assert_allclose(weights, direct.weights, atol=1e-6)
    assert np.sum(weights > 1e-3) >= 2, "a corner tests little"
    pulled = np.tensordot(weights, at_z, axes=1)
    np.testing.assert_allclose(found.gradient[0]["w"], x.T @ pulled, atol=1e-5)
    np.testing.assert_allclose(found.gradient[0]["b"], pulled.sum(0), atol=1e-5)
    for name, weight, error in zip(HEADS, weights, errors, strict=True):
        np.testing.assert_allclose(
            found.gradient[1][name], weight * z.T @ error / ROWS, rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(found.aux, z.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", ["pcgrad", "mgda"])
def test_at_the_representation_the_encoder_takes_one_backward_pass(name: str) -> None:
    problem = make_problem()
    method = build(name, K)
    update = jmtl.value_and_grads(as_tuple, method, split=True, at="representation")
    equations = live_equations(update, method.init(problem[0]), *problem)
    assert making(equations, ENCODER) == 1


def test_loss_methods_do_not_care_where() -> None:
    problem = make_problem()
    method = build("static", K)
    there, here = (
        jmtl.value_and_grads(as_tuple, method, split=True, at=at)((), *problem)
        for at in ("representation", "parameters")
    )
    close(there.gradient, here.gradient)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"fun": as_tuple}, "split=True and fun=jmtl.Encoded"),
        ({"fun": as_array, "split": True}, "split=True and fun=jmtl.Encoded"),
        ({"method": gradient_method(K)}, "median needs the gradients"),
        ({"method": build("mgda", K)._replace(batches=3)}, "mgda needs 3 batches"),
        ({"at": "logits"}, "at must be one of parameters, representation; got 'logits'"),
        ({"strategy": "fast"}, "strategy must be one of auto, vmap, .*; got 'fast'"),
    ],
)
def test_what_the_representation_cannot_serve_is_refused(arguments: Any, words: str) -> None:
    given: dict[str, Any] = {"fun": as_tuple, "method": build("mgda", K), "at": "representation"}
    if arguments.keys() != {"fun"}:
        given["split"] = True
    with pytest.raises(ValueError, match=words):
        jmtl.value_and_grads(**(given | arguments))


# --- several batches, and observe


def three_batch_method(k: int) -> Method:
    """Remembers what it saw; its weights are fixed."""

    def update(seen: Seen, state: Any) -> tuple[Answer, Any]:
        del state
        return Answer(jnp.arange(1.0, k + 1)), seen

    return Method("recorder", k, stateless, update, needs="gramian", batches=3)


@pytest.mark.parametrize("strategy", ["vmap", "unroll", "auto"])
def test_three_batches(strategy: Any) -> None:
    shared, tasks, batch = make_problem(rows=3 * ROWS)
    batches = batch.reshape(3, ROWS, -1)
    update = jmtl.value_and_grads(as_tuple, three_batch_method(K), split=True, strategy=strategy)
    found = jax.jit(update)((), shared, tasks, batches)
    seen = found.state

    rows = [jax.jacrev(as_array)(shared, tasks, one) for one in batches[:2]]
    flat = [
        np.concatenate([np.asarray(g, np.float64).reshape(K, -1) for g in jax.tree.leaves(r)], 1)
        for r in rows
    ]
    cross = flat[0] @ flat[1].T
    inner, left, right = map(np.asarray, seen.cross)
    found_cross = inner * left[:, None] * right
    np.testing.assert_allclose(found_cross, cross, atol=2e-6 * np.abs(cross).max())
    assert np.abs(cross - cross.T).max() > 0.03 * np.abs(cross).max(), "J1 J2ᵀ, not J2 J1ᵀ"
    close(seen.gramian, jmtl.gramian(rows[0]))
    close((found.losses, seen.losses), (as_array(shared, tasks, batches[2]),) * 2)

    weighted = lambda shared: jnp.dot(found.weights, as_array(shared, tasks, batches[2]))
    close(found.gradient[0], jax.grad(weighted)(shared), 2e-6)
    summed = lambda tasks: jnp.sum(as_array(shared, tasks, batches[2]))
    close(found.gradient[1], jax.grad(summed)(tasks), 2e-6)


def test_the_number_of_batches_must_fit() -> None:
    shared, tasks, batch = make_problem(rows=2 * ROWS)
    update = jmtl.value_and_grads(as_tuple, three_batch_method(K), split=True)
    with pytest.raises(ValueError, match=r"recorder takes 3 batches.*leading axis of 2"):
        update((), shared, tasks, batch.reshape(2, ROWS, -1))
    with pytest.raises(ValueError, match=r"recorder takes 3 batches"):
        update((), shared, tasks, jnp.ones(()))


# --- devices

DEVICES = 4

WAYS: dict[str, tuple[Callable[[], Method], dict[str, Any]]] = {
    "unroll": (METHODS["pcgrad"], {"strategy": "unroll"}),
    "recompute": (METHODS["pcgrad"], {"strategy": "recompute"}),
    "representation": (METHODS["pcgrad"], {"at": "representation"}),
    "gradients": (
        lambda: jmtl.chain(build("uncertainty", K), gradient_method(K)),
        {"strategy": "vmap"},
    ),
}


def every_way(axis_name: str | None) -> Callable[..., dict[str, Any]]:
    """One program that takes the step in each way: compiled once."""

    def run(*problem: Any) -> dict[str, Any]:
        results = {}
        for name, (make, options) in WAYS.items():
            method = make()
            update = jmtl.value_and_grads(
                as_tuple, method, split=True, axis_name=axis_name, **options
            )
            result = update(method.init(problem[0]), *problem)
            results[name] = with_key_data(result)
        return results

    return run


@pytest.fixture(scope="module")
def on_devices() -> tuple[Any, Any, Any]:
    """The step on one device, on four, and wrongly: surgery on each device, then the mean."""
    shared, tasks, batch = make_problem(rows=16)
    one = jax.jit(every_way(None))(shared, tasks, batch)

    def both(*problem: Any) -> Any:
        wrong = every_way(None)(*problem)["unroll"].gradient
        return every_way("data")(*problem), jax.lax.pmean(wrong, "data")

    spread = batch.reshape(DEVICES, -1, batch.shape[-1])
    many, wrong = jax.pmap(both, axis_name="data", in_axes=(None, None, 0))(shared, tasks, spread)
    return one, many, wrong


@pytest.mark.parametrize("way", WAYS)
def test_devices_together_equal_one_device(way: str, on_devices: Any) -> None:
    one, many, _ = on_devices
    if one[way].gramian is not None:
        assert float(jmtl.conflict.conflict_rate(one[way].gramian)) > 0
    for device in range(DEVICES):
        close(jax.tree.map(lambda x, d=device: x[d], many[way]), one[way], 3e-6)


def test_surgery_before_the_mean_is_another_answer(on_devices: Any) -> None:
    one, _, wrong = on_devices
    right = one["unroll"].gradient
    errors = []
    for part in range(2):
        pairs = zip(jax.tree.leaves(wrong[part]), jax.tree.leaves(right[part]), strict=True)
        flat = [(np.ravel(found[0]), np.ravel(exact)) for found, exact in pairs]
        found, exact = (np.concatenate(side) for side in zip(*flat, strict=True))
        errors.append(np.linalg.norm(found - exact) / np.linalg.norm(exact))
    assert errors[0] > 1e-2
    assert errors[1] < 1e-5, "the heads see no surgery: their mean is right either way"


# --- refusals


@pytest.mark.parametrize(
    ("losses", "words"),
    [
        (lambda p: jnp.sum(p), r"losses have shape \(\): expected \[K\]"),
        (lambda p: jnp.outer(p, p), r"losses have shape \(3, 3\): expected \[K\]"),
        (lambda p: p[:0], r"losses have shape \(0,\): expected \[K\]"),
        (lambda p: (), r"expected K scalars.*\[\]"),
        (lambda p: (p[0], p), r"expected K scalars.*\[\(\), \(3,\)\]"),
        (lambda p: (p[0], {"accuracy": p[1]}), "expected K scalars.*has_aux=True"),
        (lambda p: {"left": p[0]}, "losses are a dict: expected an array"),
        (lambda p: None, "losses are a NoneType: expected an array"),
        (lambda p: jnp.asarray([1, 2]), "dtype int32: expected floating point"),
    ],
)
def test_losses_that_are_not_k_scalars_are_refused(losses: Any, words: str) -> None:
    for take in (jmtl.value_and_task_grads, jmtl.value_and_gramian):
        with pytest.raises(ValueError, match=words) as raised:
            take(losses)(jnp.ones(3))
        assert "\n" not in str(raised.value)


def test_a_function_that_returns_no_aux_is_refused() -> None:
    for k in (2, 3):
        with pytest.raises(ValueError, match="has_aux=True"):
            jmtl.value_and_task_grads(lambda p, k=k: p[:k], has_aux=True)(jnp.ones(3))


def test_losses_of_another_number_of_tasks_are_refused() -> None:
    update = jmtl.value_and_grads(lambda p: p, build("pcgrad", K))
    with pytest.raises(ValueError, match=r"\(2,\), but pcgrad was made for num_tasks=3"):
        update(build("pcgrad", K).init(()), jnp.ones(2))


def test_a_stack_is_not_made_by_recompute() -> None:
    with pytest.raises(ValueError, match=r"recompute.*keeps no task gradients"):
        jmtl.value_and_task_grads(as_tuple, strategy="recompute")
    with pytest.raises(ValueError, match=r"recompute.*keeps no task gradients"):
        jmtl.value_and_grads(as_tuple, gradient_method(K), strategy="recompute")


def test_no_shared_parameters_are_refused_where_a_method_acts_on_their_gradients() -> None:
    for name in ("mgda", "nash", "moco", "modo"):
        update = jmtl.value_and_grads(lambda shared, tasks: tasks, build(name, K), split=True)
        with pytest.raises(ValueError, match=f"{name} acts on .* and there are none"):
            update(build(name, K).init({}), {}, jnp.ones(K))


@pytest.mark.parametrize("strategy", ["vmap", "unroll", "recompute"])
def test_without_shared_parameters_surgery_sees_zeros(strategy: Any) -> None:
    method = build("pcgrad", K)
    update = jmtl.value_and_grads(
        lambda shared, tasks: tasks["w"] ** 2, method, split=True, strategy=strategy
    )
    w = jnp.arange(1.0, K + 1)
    result = update(method.init({}), {}, {"w": w})
    assert result.gradient[0] == {}
    np.testing.assert_allclose(result.gradient[1]["w"], 2 * w)
    np.testing.assert_array_equal(result.gramian.cosine, np.zeros((K, K)))
    np.testing.assert_array_equal(result.gramian.norms, 0)
