"""Splits of a problem that are slices of another's."""

import numpy as np
import pytest

from experiments.errors import UserError
from experiments.parts import open_splits
from experiments.problems import PROBLEMS
from jmtl.data import source

DIGITS = PROBLEMS["multi_digits"]._replace(
    splits={"train": "validation[:90%]", "validation": "validation[90%:]"}
)


def test_slices_divide_a_split(data_dir):
    whole = source.as_arrays(open_splits(PROBLEMS["multi_digits"], data_dir)("validation"))
    splits = open_splits(DIGITS, data_dir)
    train, validation = (source.as_arrays(splits(name)) for name in ("train", "validation"))
    n = len(whole["image"])
    assert len(train["image"]) == round(0.9 * n)
    for name, values in whole.items():
        np.testing.assert_array_equal(np.concatenate([train[name], validation[name]]), values)
    assert source.lengths(splits("test")) == source.lengths(
        open_splits(PROBLEMS["multi_digits"], data_dir)("test")
    )
    some = source.read(splits("validation"), np.array([2, 0]))
    np.testing.assert_array_equal(some["image"], validation["image"][[2, 0]])
    with pytest.raises(UserError, match="multi_digits has no split 'tests'"):
        splits("tests")


def test_of_several_data_sets_each_has_its_own(data_dir):
    tables = PROBLEMS["tabular"]
    whole = source.lengths(open_splits(tables, data_dir)("train"))
    splits = open_splits(
        tables._replace(splits={"wine": {"train": "train[:50%]", "validation": "train[50%:]"}}),
        data_dir,
    )
    assert source.lengths(splits("train")) == whole | {"wine": 53}
    assert source.lengths(splits("validation"))["wine"] == whole["wine"] - 53
