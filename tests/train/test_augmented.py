"""Steps that augment: the same on any number of devices, and other pictures at every step."""

from functools import partial

import jax
import numpy as np

import jmtl
from jmtl.data.augment import augmentation, colour, crop
from jmtl.train.parallel import shell
from jmtl.train.step import make_step
from tests.train import toy
from tests.train.test_step import batch_of, bits
from tests.train.toy import PLAIN, TASKS, distance, numbers, train

AUGMENT = augmentation({}, moves=(partial(crop, pad=2),), changes=(colour,))


def test_devices_augment_as_one():
    given = {"method": jmtl.equal(2), "steps": 5, "augment": AUGMENT}
    one, four = (train(shell(*on), PLAIN, **given) for on in (("jit", 1), ("pmap", 4)))
    assert distance(numbers(four), numbers(one)) < 1e-5
    np.testing.assert_allclose(four.metrics.losses, one.metrics.losses, rtol=1e-5)


def test_a_step_draws_from_the_seed_and_its_number():
    method = jmtl.equal(2)
    state, given = toy.start(PLAIN, method), batch_of(0)
    step = jax.jit(make_step(toy.net(PLAIN), TASKS, method, toy.OPTIMIZER, augment=AUGMENT))
    first, _ = step(state, given)
    assert bits(step(state, given)[0].params) == bits(first.params)
    later, _ = step(state._replace(step=state.step + 1), given)
    seed, _ = step(state._replace(key=jax.random.key(1)), given)
    for other in (later, seed):
        assert bits(other.params) != bits(first.params)
