"""Every way of sharing over every encoder: two steps of PCGrad on 4 devices are those on one."""

import numpy as np
import pytest

from jmtl import nn
from tests.nn.sharings import DEVICES, start, two_steps

CHEAP = {(n, "mlp") for n in ("branching", "cross_stitch", "dselect_k", "mmoe", "none", "ple")}
# Batch norm in a task's part and in what tasks lend each other, dropout in the neck that they lend.
CHEAP.add(("mtan", "vgg16"))


def _cases():
    """Every pair, under `jit` over a mesh or under pmap; by default one for each idea.

    The letters of its names say which, so that another encoder changes no pair's form.
    """
    for sharing in sorted(nn.SHARINGS):
        for encoder in sorted(nn.ENCODERS):
            form = ("jit", "pmap")[len(sharing + encoder) % 2]
            slow = () if (sharing, encoder) in CHEAP else pytest.mark.slow
            yield pytest.param(sharing, encoder, form, marks=slow)


@pytest.mark.parametrize(("sharing", "encoder", "form"), [*_cases()])
def test_devices_train_as_one(sharing, encoder, form):
    one = two_steps(sharing, encoder, "jit", 1)
    many = two_steps(sharing, encoder, form, DEVICES)
    assert one.keys() == many.keys()
    for path, value in one.items():
        scale = np.abs(value).max(initial=0)
        np.testing.assert_allclose(
            many[path], value, rtol=1e-4, atol=1e-5 * scale + 1e-6, err_msg=path
        )
    before = start(sharing, encoder).params
    assert before.keys() == {"shared", "tasks"}
    assert before["tasks"].keys() == {"kind", "size"}
    assert bool(before["shared"]) == (sharing != "none")
    assert (one["['metrics'].failed"] == -1).all()
