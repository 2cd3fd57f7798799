"""Molecules: QM9 with padded atoms and targets in standard deviations.

TFDS's `qm9/dimenet` is prepared beside it: 130,831 molecules of H, C, N, O and F, 110,000 for
training and 10,000 for validation, chosen as DimeNet does. TFDS reads them with pandas; version 3
refuses the numbers that the files write like 6.8*^-6.

References:
    Ramakrishnan et al., *Quantum chemistry structures and properties of 134 kilo molecules*,
    Scientific Data, 2014.
    Gasteiger, Groß, Günnemann, *Directional message passing for molecular graphs* (DimeNet), ICLR
    2020.
"""

import warnings
from collections.abc import Mapping
from importlib import metadata
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from jmtl.data import source
from jmtl.data.derived import Derived
from jmtl.data.errors import DataUnavailable

TARGETS = {
    "mu": "mu",
    "alpha": "alpha",
    "homo": "homo",
    "lumo": "lumo",
    "r2": "r2",
    "zpve": "zpve",
    "U0": "U0_atomization",
    "U": "U_atomization",
    "H": "H_atomization",
    "G": "G_atomization",
    "Cv": "Cv",
}
"""By name, TFDS's: energies of atoms are taken off U0, U, H and G, as the papers do."""

MAX_ATOMS = 29


class Molecules(Derived, skip_registration=True):  # type: ignore[call-arg]
    """TFDS builder of Molecules.

    An example has `charges` `[29]` uint8, the atoms' numbers of protons and then 0; `positions`
    `[29, 3]` float32 in ångström; and `targets` `[11]` float32, in the order of `TARGETS` and in
    standard deviations from their mean. Both are those of the training molecules, and lie beside
    the data as `builder.info.metadata["mean"]` and `["std"]`, by name, in QM9's units: debye (mu),
    bohr³ (alpha), hartree (energies), bohr² (r2), cal/(mol K) (Cv).
    """

    SOURCE = "qm9/dimenet"
    SPLITS: ClassVar = {"train": "train", "validation": "validation", "test": "test"}
    FEATURES: ClassVar = {
        "charges": ((MAX_ATOMS,), np.uint8),
        "positions": ((MAX_ATOMS, 3), np.float32),
        "targets": ((len(TARGETS),), np.float32),
    }

    def convert(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """One molecule, its targets standardised."""
        known = self.info.metadata
        targets = [
            (example[theirs] - known["mean"][ours]) / known["std"][ours]
            for ours, theirs in TARGETS.items()
        ]
        return {
            "charges": example["charges"].astype(np.uint8),
            "positions": example["positions"],
            "targets": np.array(targets, np.float32),
        }

    def _info(self) -> tfds.core.DatasetInfo:
        info = super()._info()
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=info.features,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        _check_pandas()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Falling back to the 'python' engine")
            original = source.prepare(self.SOURCE, self.data_dir_root)
        train: Any = source.load(original, self.SPLITS["train"])
        rows = [[example[name] for name in TARGETS.values()] for example in train]
        values = np.array(rows, np.float64)
        for name, found in {"mean": values.mean(axis=0), "std": values.std(axis=0)}.items():
            self.info.metadata[name] = dict(zip(TARGETS, found.tolist(), strict=True))
        return super()._split_generators(dl_manager)


def _check_pandas() -> None:
    try:
        found = metadata.version("pandas")
    except metadata.PackageNotFoundError:
        found = "none"
    if not found.startswith("2."):
        raise DataUnavailable(
            f"molecules are read with pandas 2, and {found} is installed: pip install "
            "'pandas>=2.2,<3', or jmtl's extra molecules"
        )
