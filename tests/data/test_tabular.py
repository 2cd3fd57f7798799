import numpy as np
import pytest

from jmtl.data import source, tabular

SPLITS = ("train", "validation", "test")
SHAPES = {"breast_cancer": (569, 30), "wine": (178, 13), "diabetes": (442, 10)}


@pytest.fixture(scope="module", params=tabular.TABLES)
def table(request, tmp_path_factory):
    builder = source.prepare(f"tabular/{request.param}", tmp_path_factory.mktemp("tabular"))
    arrays = {split: source.as_arrays(source.load(builder, split)) for split in SPLITS}
    return request.param, arrays


def test_rows_are_scikit_learns_each_once(table):
    name, arrays = table
    measures, targets = tabular.TABLES[name](return_X_y=True)
    assert measures.shape == SHAPES[name]
    rows = np.concatenate([arrays[split]["row"] for split in SPLITS])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(targets)))
    np.testing.assert_allclose(
        [len(arrays[s]["row"]) / len(rows) for s in SPLITS], [0.6, 0.2, 0.2], atol=0.01
    )
    train = arrays["train"]["row"]
    mean, deviation = measures[train].mean(0), measures[train].std(0)
    for split in SPLITS:
        row = arrays[split]["row"]
        found = arrays[split]["measures"].astype(float) * deviation + mean
        np.testing.assert_allclose(found, measures[row], rtol=1e-5, atol=1e-5 * deviation.max())
        target = arrays[split]["target"]
        if name == "diabetes":
            target = target.astype(float) * targets[train].std() + targets[train].mean()
            np.testing.assert_allclose(target, targets[row], rtol=1e-5)
        else:
            np.testing.assert_array_equal(target, targets[row])
            shares = np.bincount(target) / len(target)
            np.testing.assert_allclose(shares, np.bincount(targets) / len(targets), atol=0.02)


def test_training_rows_are_standard(table):
    _, arrays = table
    x = arrays["train"]["measures"]
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-5)


def test_unknown_table(tmp_path):
    with pytest.raises(ValueError, match="tabular has no 'wines'; did you mean 'wine'"):
        source.prepare("tabular/wines", tmp_path)
