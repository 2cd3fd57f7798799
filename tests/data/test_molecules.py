import sys
from importlib import metadata

import numpy as np
import pytest
import requests

from experiments.problems.qm9 import PROBLEM, to_batch
from jmtl.data import source
from jmtl.data.errors import DataUnavailable
from jmtl.data.molecules import MAX_ATOMS, TARGETS
from jmtl.tasks import check_labels
from tests.data import originals

COUNT = 14
UNCHARACTERIZED = (3, 8)
SIZES = {"train": 7, "validation": 3, "test": 2}
SYMBOLS = {1: "H", 6: "C", 7: "N", 8: "O", 9: "F"}
LABELS = ["A", "B", "C", "mu", "alpha", "homo", "lumo", "gap", "r2", "zpve"]
LABELS += ["U0", "U", "H", "G", "Cv"]
ATOMS = {"U0": 1, "U": 2, "H": 3, "G": 4}
"""Columns of the table of atoms' energies, after that of zpve."""


def drawn(seed):
    """A molecule: charges, positions, properties."""
    rng = np.random.default_rng(seed)
    atoms = 5 + seed if seed < 10 else MAX_ATOMS
    charges = rng.choice(list(SYMBOLS), atoms)
    positions = rng.uniform(-9, 9, (atoms, 3)).round(6)
    if seed % 2:
        positions[1, 2] = -6.8e-6  # written as QM9 does
    return charges, positions, dict(zip(LABELS, rng.uniform(-9, 9, 15).round(5), strict=True))


MOLECULES = {i: drawn(i) for i in range(1, COUNT + 1)}
ENERGIES = {z: np.random.default_rng(z).uniform(-99, 0, 6).round(4) for z in SYMBOLS}


def xyz(index):
    charges, positions, labels = MOLECULES[index]
    number = lambda x: "-6.8*^-6" if x == -6.8e-6 else f"{x:.6f}"
    lines = [str(len(charges)), "\t".join([f"gdb {index}", *map(str, labels.values()), ""])]
    for charge, where in zip(charges, positions, strict=True):
        lines.append("\t".join([SYMBOLS[charge], *map(number, where), "0.25"]))
    frequencies = [f"{100.5 + i}" for i in range(3 * len(charges) - 6)]
    lines += ["\t".join(frequencies), "C\tC\t", "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4"]
    return "\n".join(lines).encode() + b"\n"


def table(header, rows):
    return "\n".join([*["="] * header, *rows, "="]).encode() + b"\n"


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    from tensorflow_datasets.datasets.qm9 import qm9_dataset_builder as qm9

    monkeypatch.setattr(qm9, "_SIZE", COUNT)
    monkeypatch.setattr(qm9, "_CHARACTERIZED_SIZE", COUNT - len(UNCHARACTERIZED))
    (config,) = (config for config in qm9.Builder.BUILDER_CONFIGS if config.name == "dimenet")
    monkeypatch.setattr(config, "train_size", SIZES["train"])
    monkeypatch.setattr(config, "validation_size", SIZES["validation"])
    atoms = [f"  {SYMBOLS[z]}  {'  '.join(map(str, row))}" for z, row in ENERGIES.items()]
    uncharacterized = [f"  {i}  C#N  x  y" for i in UNCHARACTERIZED]
    molecules = {f"dsgdb9nsd_{i:06d}.xyz": xyz(i) for i in MOLECULES}
    contents = {
        "atomref.txt": table(5, atoms),
        "uncharacterized.txt": table(9, uncharacterized),
        "dsgdb9nsd.xyz.tar.bz2": originals.tar(molecules, "bz2"),
    }
    originals.put(monkeypatch, tmp_path, "qm9", contents)
    return tmp_path


def values_of(charges, labels):
    """The targets in QM9's units, energies of atoms taken off by hand."""
    return [
        labels[name] - sum(ENERGIES[z][ATOMS[name]] for z in charges)
        if name in ATOMS
        else labels[name]
        for name in TARGETS
    ]


def test_molecules_and_their_targets(tiny):
    builder = source.prepare("molecules", tiny)
    known = source.prepare("molecules", tiny).info.metadata
    mean, std = ([known[key][name] for name in TARGETS] for key in ("mean", "std"))
    read = set()
    for split, size in SIZES.items():
        arrays = source.as_arrays(source.load(builder, split))
        assert len(arrays["targets"]) == size
        for charges, where, targets in zip(*arrays.values(), strict=True):
            atoms = int((charges > 0).sum())
            (index,) = (
                i
                for i, each in MOLECULES.items()
                if np.array_equal(each[0], charges[:atoms])
                and np.allclose(each[1], where[:atoms], atol=1e-7)
            )
            read.add(index)
            assert not charges[atoms:].any()
            assert not where[atoms:].any()
            expected = values_of(MOLECULES[index][0], MOLECULES[index][2])
            np.testing.assert_allclose(targets * std + mean, expected, rtol=1e-5, atol=1e-4)
        if split == "train":
            np.testing.assert_allclose(arrays["targets"].mean(axis=0), 0, atol=1e-5)
            np.testing.assert_allclose(arrays["targets"].std(axis=0), 1, rtol=1e-5)
        check_labels(PROBLEM.tasks, to_batch(arrays))
    assert read == MOLECULES.keys() - set(UNCHARACTERIZED)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("found", ["none", "3.1.1"])
def test_another_pandas_is_named(tmp_path, monkeypatch, found):
    def version(package):
        if found == "none":
            raise metadata.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(DataUnavailable) as caught:
        source.prepare("molecules", tmp_path)
    assert f"pandas 2, and {found} is installed: pip install 'pandas>=2.2,<3'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_network_says_what_to_download_and_under_which_name(tmp_path, monkeypatch):
    monkeypatch.setattr(requests.Session, "get", originals.refuse)
    with pytest.raises(DataUnavailable) as caught:
        source.prepare("molecules", tmp_path)
    message = str(caught.value)
    assert "3195389 as dsgdb9nsd.xyz.tar.bz2" in message
    assert "3195395 as atomref.txt" in message
    assert str(tmp_path / "downloads" / "manual" / "qm9") in message
    assert "\n" not in message
