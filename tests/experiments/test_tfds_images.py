"""TFDS's image problems, from few examples in the files that the data sets are published in."""

import io
import logging
import sys

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from absl import logging as absl_logging
from tensorflow_datasets.core.download import downloader
from tensorflow_datasets.datasets.celeb_a.celeb_a_dataset_builder import (
    ATTR_HEADINGS,
    LANDMARK_HEADINGS,
)

from experiments import initial
from experiments.cli import main
from experiments.errors import UserError
from experiments.parts import example_of, open_splits
from experiments.problems import PROBLEMS, shapes3d
from jmtl.data import source
from jmtl.tasks import check_labels
from tests.data import originals
from tests.experiments.test_problems import config_of, train

SPLITS = ("train", "validation", "test")

PUBLISHED = {
    problem: {
        name: sum(info.size for info in tfds.builder_cls(name).url_infos.values()) for name in names
    }
    for problem, names in {
        "cifar100": ("cifar100",),
        "mnist_svhn": ("mnist", "svhn_cropped"),
        "smallnorb": ("smallnorb",),
        "shapes3d": ("shapes3d",),
        "celeb_a": ("celeb_a",),
        "oxford_iiit_pet": ("oxford_iiit_pet",),
        "qm9": ("qm9",),
    }.items()
}
"""Bytes of the files of each data set, before tests put other files in their place."""

SIZES = {
    "cifar100": (36, 4, 10),
    "mnist_svhn": ({"mnist": 45, "svhn": 36}, {"mnist": 5, "svhn": 4}, {"mnist": 8, "svhn": 10}),
    "smallnorb": (80, 20, 30),
    "shapes3d": (48, 6, 6),
    "celeb_a": (4, 3, 2),
}
"""Of the splits of each problem, as `data` writes it."""


def draw(count, most, seed):
    return np.random.default_rng(seed).integers(0, most, count)


CIFAR = {
    split: originals.cifar(count, seed)
    for split, count, seed in (("train", 40, 0), ("test", 10, 1))
}
MNIST = {
    split: (originals.pictures(count, 28, 28, seed=count), draw(count, 10, 2).astype(np.uint8))
    for split, count in (("train", 50), ("test", 8))
}
SVHN = {
    split: (originals.pictures(count, 32, 32, 3, seed=count), np.arange(count, dtype=np.uint8) % 10)
    for split, count in (("train", 40), ("test", 10), ("extra", 3))
}


def _norb(count, toys, seed):
    i = np.arange(count)
    info = np.stack([np.array(toys)[i % 5], i % 9, i % 18 * 2, i % 6], axis=1).astype(np.int32)
    images = originals.pictures(count, 2, 96, 96, seed=seed)
    return originals.Norb(images, draw(count, 5, seed).astype(np.int32), info)


NORB = {"train": _norb(100, (4, 6, 7, 8, 9), 0), "test": _norb(30, (0, 1, 2, 3, 5), 1)}

FACES = originals.Faces(
    # Four colours a face: JPEG keeps them.
    np.kron(originals.pictures(9, 2, 2, 3), np.ones((1, 109, 89, 1), np.uint8)),
    np.random.default_rng(3).random((9, 40)) < 0.5,
    np.array([0, 1, 2, 0, 1, 2, 0, 1, 0]),
)

SHAPES = originals.pictures(60, 64, 64, 3)
VALUES = {
    "floor_hue": np.arange(10) / 10,
    "wall_hue": np.arange(10) / 10,
    "object_hue": np.arange(10) / 10,
    "scale": np.linspace(0.75, 1.25, 8),
    "shape": np.arange(4),
    "orientation": np.linspace(-30, 30, 15),
}


def shapes():
    """`3dshapes.h5`: picture i has value i mod n of each factor's n."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["images"] = SHAPES
        file["labels"] = np.stack(
            [values[np.arange(len(SHAPES)) % len(values)] for values in VALUES.values()], axis=1
        ).astype(np.float64)
    return {"3dshapes.h5": buffer.getvalue()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the files of all, as by hand."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        for name, files in {
            "cifar100": originals.cifar100(**CIFAR),
            "mnist": originals.mnist(patch, **MNIST),
            "svhn_cropped": originals.svhn(**SVHN),
            "smallnorb": originals.smallnorb(**NORB),
            "shapes3d": shapes(),
            "celeb_a": originals.celeb_a(FACES, ATTR_HEADINGS, LANDMARK_HEADINGS),
        }.items():
            originals.put(patch, folder, name, files)
        yield folder


def read(name, data, split):
    return source.as_arrays(open_splits(PROBLEMS[name], data)(split))


def by_picture(images, *labels):
    """Labels by the bytes of a picture, for TFDS shuffles."""
    keys = [image.tobytes() for image in images]
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, zip(*(x.tolist() for x in labels), strict=True), strict=True))


def divided(parts, whole):
    """Whether parts have nothing in common, and are the whole together."""
    found = {}
    for part in parts:
        assert not set(found) & set(part)
        found |= part
    assert found == whole


def test_cifar100(data):
    def found(split):
        arrays = read("cifar100", data, split)
        assert set(arrays) == {"image", "label", "coarse_label"}  # an id is text
        return by_picture(arrays["image"], arrays["label"], arrays["coarse_label"])

    train, test = (by_picture(x.image, x.fine, x.coarse) for x in CIFAR.values())
    divided([found("train"), found("validation")], train)
    assert found("test") == test


def test_mnist_and_svhn(data):
    def found(split):
        arrays = read("mnist_svhn", data, split)
        return {name: by_picture(part["image"], part["label"]) for name, part in arrays.items()}

    parts = {split: found(split) for split in SPLITS}
    for name, given in (("mnist", MNIST), ("svhn", SVHN)):
        divided(
            [parts[split][name] for split in ("train", "validation")], by_picture(*given["train"])
        )
        assert parts["test"][name] == by_picture(*given["test"])
    digits = {digit for (digit,) in parts["train"]["svhn"].values()}
    assert digits == set(range(10))  # the file's 10 is 0


def test_smallnorb(data):
    def wanted(given, kept):
        views = given.images.astype(float).reshape(-1, 2, 48, 2, 48, 2).mean(axis=(3, 5))
        toy, elevation, azimuth, light = given.info[kept].T
        return by_picture(
            np.rint(views).astype(np.uint8).transpose(0, 2, 3, 1)[kept],
            given.category[kept],
            elevation,
            azimuth // 2,
            light,
            toy,
        )

    def found(split):
        arrays = read("smallnorb", data, split)
        labels = ("category", "elevation", "azimuth", "lighting", "instance")
        return by_picture(arrays["image"], *(arrays[name] for name in labels))

    last = NORB["train"].info[:, 0] == 9
    assert found("train") == wanted(NORB["train"], ~last)
    assert found("validation") == wanted(NORB["train"], last)
    assert found("test") == wanted(NORB["test"], slice(None))


def test_shapes3d(data):
    def found(split):
        arrays = read("shapes3d", data, split)
        return by_picture(arrays["image"], *(arrays[f"label_{name}"] for name in VALUES))

    classes = [np.arange(len(SHAPES)) % len(values) for values in VALUES.values()]
    divided([found(split) for split in SPLITS], by_picture(SHAPES, *classes))
    assert {name: len(values) for name, values in VALUES.items()} == shapes3d.FACTORS


def test_celeb_a(data):
    for part, split in enumerate(SPLITS):
        arrays = read("celeb_a", data, split)
        given = FACES.part == part
        # The files are in the order of their names before TFDS shuffles; a face is its number.
        order = arrays["identity"]
        assert sorted(order) == np.flatnonzero(given).tolist()
        np.testing.assert_array_equal(arrays["attributes"], FACES.attributes[order])
        quarters = arrays["image"][:, 16::32, 16::32].astype(int)
        assert abs(quarters - FACES.image[order][:, 54::109, 44::89]).max() <= 4
        # A triangle of twice the step's width: what is further from an edge has one colour.
        assert np.ptp(arrays["image"][:, 3:28, 3:28].astype(int), axis=(1, 2)).max() <= 8


@pytest.mark.parametrize("name", SIZES)
def test_splits_batches_and_models(name, data):
    problem = PROBLEMS[name]
    splits = open_splits(problem, data)
    assert tuple(source.lengths(splits(split)) for split in SPLITS) == SIZES[name]
    for split in SPLITS:
        check_labels(problem.tasks, problem.to_batch(source.as_arrays(splits(split))))
    batch = problem.to_batch(example_of(splits("train")))
    for x in jax.tree.leaves(batch.inputs):
        assert -1 <= x.min() < x.max() <= 1
    model = initial.model_of(config_of(name), problem)
    outputs = jax.eval_shape(
        lambda key: model.apply(*model.init(key, batch.inputs), batch.inputs)[0],
        jax.random.key(0),
    )
    assert {name: x.shape for name, x in outputs.items()} == {
        task.name: (1, task.head.features) for task in problem.tasks
    }
    for augment in problem.augmentations.values():
        assert jax.eval_shape(augment, jax.random.key(0), batch) == jax.eval_shape(
            lambda: jax.tree.map(jnp.asarray, batch)
        )


def test_two_steps_of_pcgrad(data, tmp_path):
    two = {"steps": 2, "steps_per_dispatch": 2, "checkpoint_every": 2, "batch_size": 8}
    small = {"encoder": "lenet", "encoder_options": {"widths": (4, 4)}}
    summary = train(config_of("mnist_svhn", **two, **small), tmp_path / "run", data)
    assert summary["steps"] == 2
    for task in PROBLEMS["mnist_svhn"].tasks:
        assert 0 <= summary["test"][task.name]["accuracy"] <= 1


FILES = {
    "cifar100": ("cifar100", "cifar-100-binary.tar.gz", "https://www.cs.toronto.edu/~kriz/"),
    "mnist_svhn": ("mnist", "t10k-labels-idx1-ubyte.gz", "https://storage.googleapis.com/"),
    "smallnorb": ("smallnorb", "-testing-info.mat.gz", "https://cs.nyu.edu/~ylclab/"),
    "shapes3d": ("shapes3d", "3dshapes.h5", "https://storage.googleapis.com/3d-shapes/"),
    "celeb_a": ("celeb_a", "img_align_celeba.zip", "http://mmlab.ie.cuhk.edu.hk/"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_missing_is_said_in_a_line(name, tmp_path, monkeypatch):
    monkeypatch.setattr(requests.Session, "get", originals.refuse)
    data_set, file, place = FILES[name]
    with pytest.raises(UserError) as caught:
        open_splits(PROBLEMS[name], tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{data_set} cannot be downloaded here (ConnectionError): download ")
    for info in tfds.builder_cls(data_set).url_infos.values():
        assert info.filename in said
    assert file in said
    assert place in said
    assert str(tmp_path / "downloads" / "manual" / data_set) in said
    assert "\n" not in said
    assert "uc?" not in said


def test_google_drive_that_refuses_a_program(tmp_path, monkeypatch):
    def page(self, url, **kwargs):
        answer = requests.Response()
        answer.status_code, answer._content, answer.url = 200, b"<html>Are you sure?</html>", url
        return answer

    monkeypatch.setattr(requests.Session, "get", page)
    monkeypatch.setitem(sys.modules, "bs4", None)  # what reads the page
    with pytest.raises(UserError, match=r"^celeb_a cannot .*: download list_eval_partition\.txt, "):
        open_splits(PROBLEMS["celeb_a"], tmp_path)

    def no_link(url, text):
        raise ValueError(f"Failed to obtain confirmation link for GDrive URL {url}.")

    monkeypatch.setattr(downloader, "_process_gdrive_confirmation", no_link)
    with pytest.raises(UserError, match=r"^celeb_a cannot .*identity_CelebA\.txt from http"):
        open_splits(PROBLEMS["celeb_a"], tmp_path)


def test_without_h5py_a_line_says_what_to_install(data, tmp_path, monkeypatch, capsys):
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "shapes3d").symlink_to(data / "downloads" / "manual" / "shapes3d")
    monkeypatch.setitem(sys.modules, "h5py", None)
    out = ["--data-dir", str(tmp_path), "--out", str(tmp_path / "run"), "--devices", "1"]
    assert main(["train", "shapes3d", *out]) == 2
    assert capsys.readouterr().err == (
        "error: shapes3d is read with h5py, which is not installed: "
        "pip install h5py, or jmtl's extra hdf5\n"
    )


def test_sizes_that_are_said_are_those_of_the_files():
    for name, data_sets in PUBLISHED.items():
        said = PROBLEMS[name].source
        for data_set, size in data_sets.items():
            assert data_set in said
            assert (f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB") in said


def test_other_downloads_that_fail_later_say_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(requests.Session, "get", originals.refuse)
    with pytest.raises(UserError):
        open_splits(PROBLEMS["celeb_a"], tmp_path)
    connections = logging.getLogger("urllib3.connectionpool")
    connections.warning("Retrying (%r) after connection broken by '%r': %s", 0, "no name", "/uc")
    assert not caplog.records
    connections.warning("Connection pool is full")
    assert len(caplog.records) == 1


def test_list_counts_many_tasks(capsys):
    assert main(["list"]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("  celeb_a ")]
    assert "40 tasks: 5_o_Clock_Shadow, Arched_Eyebrows, Attractive, …; " in line
    assert "Young" not in line


def test_reading_pictures_says_nothing_of_other_libraries(data, monkeypatch, caplog):
    monkeypatch.setattr(absl_logging, "_log_counter_per_token", {})  # as in a new process
    read("cifar100", data, "test")
    assert not caplog.records
