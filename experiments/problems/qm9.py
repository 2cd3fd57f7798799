"""QM9: eleven properties of small molecules, from their atoms and where these are.

    python -m experiments train qm9 --method pcgrad

Needs `pip install 'jmtl[molecules]'`. 87 MB are downloaded once from figshare by TFDS, whose
builder takes some minutes to read the 130,831 molecules; without a network the error says which
files to put where. Targets are in standard deviations, so `mae` is too: times `std` in the
metadata.json of the data it is in QM9's units, times 27,211 in meV where these are hartree.

Tasks, split and recipe are close to those of Nash-MTL's study of QM9 (11 targets, energies less
those of the atoms, batches of 120, squared errors of standardised targets, 300 epochs), which the
papers after it repeat, as FAMO and FairGrad. Their network sends messages over all pairs of
atoms in a GRU; this one is SchNet. It was not trained here, as the data cannot be had here.

References:
    Navon et al., *Multi-task learning as a bargaining game* (Nash-MTL), ICML 2022, section 6.1.
    Gilmer et al., *Neural message passing for quantum chemistry*, ICML 2017.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments.problem import Problem, Recipe
from jmtl.data.molecules import TARGETS
from jmtl.tasks import Batch, batch, regression


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Charges `[B, 29]`, positions `[B, 29, 3]` in ångström, and each target `[B]`."""
    inputs = {"charges": raw["charges"].astype(jnp.int32), "positions": raw["positions"]}
    return batch(inputs, {name: raw["targets"][:, i] for i, name in enumerate(TARGETS)})


PROBLEM = Problem(
    name="qm9",
    summary="eleven properties of molecules of up to 29 atoms, 110,000 to train",
    tasks=tuple(regression(name) for name in TARGETS),
    data="molecules",
    to_batch=to_batch,
    recipe=Recipe(
        encoder="schnet",
        steps=275_000,
        batch_size=120,
        schedule=((150_000, 0.3), (225_000, 0.3)),
        steps_per_dispatch=500,
        checkpoint_every=5_000,
        measure_every=500,
    ),
    offline=False,
    source="TFDS's qm9 from figshare, 87 MB",
)
