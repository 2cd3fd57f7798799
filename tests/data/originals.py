"""Few examples of known data sets in the files that these are published in, for TFDS to read."""

import gzip
import io
import struct
import tarfile
import zipfile
from typing import NamedTuple

import numpy as np
import requests
import tensorflow_datasets as tfds
from PIL import Image
from scipy.io import savemat
from tensorflow_datasets.core.download import checksums


def refuse(*args, **kwargs):
    raise requests.ConnectionError("no network in the tests")


def put(monkeypatch, data_dir, name, files):
    """Files of a data set by hand, whose checksums TFDS is told.

    Args:
        monkeypatch: pytest's; undoes what is told, and refuses the network.
        data_dir: the folder of all data sets.
        name: TFDS's, or a class of ours.
        files: bytes by name; those that TFDS does not know are an error.
    """
    monkeypatch.setattr(requests.Session, "get", refuse)
    builder = tfds.builder_cls(name) if isinstance(name, str) else name
    manual = data_dir / "downloads" / "manual" / builder.name
    manual.mkdir(parents=True)
    known = builder.url_infos
    urls = {info.filename: url for url, info in known.items()}
    for file, content in files.items():
        (manual / file).write_bytes(content)
        info = checksums.compute_url_info(manual / file)
        for told in (known, checksums.get_all_url_infos()):
            monkeypatch.setitem(told, urls[file], info)


def pictures(count, *shape, seed=0):
    """Random pixels `[count, *shape]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def idx(values):
    """The IDX format: magic number, sizes (big-endian), bytes; by gzip."""
    header = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape)
    return gzip.compress(header + values.tobytes(), mtime=0)


def norb(values):
    """smallNORB's format: magic number, at least three sizes (little-endian), values; by gzip."""
    magic = {np.dtype(np.uint8): 0x1E3D4C55, np.dtype(np.int32): 0x1E3D4C54}[values.dtype]
    sizes = (*values.shape, *(1,) * (3 - values.ndim))
    header = struct.pack(f"<{2 + len(sizes)}i", magic, values.ndim, *sizes)
    return gzip.compress(header + values.astype(values.dtype.newbyteorder("<")).tobytes(), mtime=0)


def tar(files, kind="gz"):
    """A tape archive of bytes by path, compressed by `kind`: "gz", "bz2" or "" for not at all."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{kind}") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def mat(**arrays):
    """A MATLAB file of arrays by name."""
    buffer = io.BytesIO()
    savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


class Cifar(NamedTuple):
    """Pictures `[n, 32, 32, 3]` and classes `[n]`."""

    image: np.ndarray
    coarse: np.ndarray
    fine: np.ndarray


def cifar(count, seed):
    random = np.random.default_rng(seed)
    coarse, fine = random.integers(0, 20, count), random.integers(0, 100, count)
    return Cifar(pictures(count, 32, 32, 3, seed=seed), coarse, fine)


def cifar100(train, test):
    """`cifar-100-binary.tar.gz`: a row is both classes and the planes of red, green and blue."""

    def rows(given):
        planes = given.image.transpose(0, 3, 1, 2).reshape(len(given.image), -1)
        labels = np.stack([given.coarse, given.fine], axis=1).astype(np.uint8)
        return np.concatenate([labels, planes], axis=1).tobytes()

    def names(count):
        return "".join(f"class {i}\n" for i in range(count)).encode()

    files = {
        "train.bin": rows(train),
        "test.bin": rows(test),
        "coarse_label_names.txt": names(20),
        "fine_label_names.txt": names(100),
    }
    return {
        "cifar-100-binary.tar.gz": tar(
            {f"cifar-100-binary/{name}": content for name, content in files.items()}
        )
    }


def mnist(monkeypatch, train, test):
    """MNIST's four files of images `[n, 28, 28]` and digits `[n]`; TFDS is told how many."""
    from tensorflow_datasets.image_classification import mnist as module

    monkeypatch.setattr(module, "_TRAIN_EXAMPLES", len(train[1]))
    monkeypatch.setattr(module, "_TEST_EXAMPLES", len(test[1]))
    return {
        f"{part}-{kind}-ubyte.gz": idx(values)
        for part, given in (("train", train), ("t10k", test))
        for kind, values in zip(("images-idx3", "labels-idx1"), given, strict=True)
    }


def svhn(**splits):
    """SVHN's three files of images `[n, 32, 32, 3]` and digits `[n]`: 0 is written as 10."""
    return {
        f"{split}_32x32.mat": mat(
            X=images.transpose(1, 2, 3, 0), y=np.where(digits == 0, 10, digits)[:, None]
        )
        for split, (images, digits) in splits.items()
    }


class Norb(NamedTuple):
    """Stereo pairs `[n, 2, 96, 96]`, categories `[n]`, and `[n, 4]` toy, elevation, azimuth, light.

    Azimuths are even, 0 to 34.
    """

    images: np.ndarray
    category: np.ndarray
    info: np.ndarray


def smallnorb(train, test):
    """smallNORB's six files."""
    files = {}
    for part, given in (
        ("46789x9x18x6x2x96x96-training", train),
        ("01235x9x18x6x2x96x96-testing", test),
    ):
        for kind, values in (("dat", given.images), ("cat", given.category), ("info", given.info)):
            files[f"smallnorb-5x{part}-{kind}.mat.gz"] = norb(values)
    return files


class Faces(NamedTuple):
    """Pictures `[n, 218, 178, 3]`, attributes `[n, 40]` booleans, parts `[n]`: 0, 1, 2."""

    image: np.ndarray
    attributes: np.ndarray
    part: np.ndarray


def celeb_a(faces, attributes, landmarks):
    """CelebA's archive and lists.

    Args:
        faces: what is in them.
        attributes: names of its 40 columns.
        landmarks: names of ten columns.
    """
    buffer = io.BytesIO()
    names = [f"{i + 1:06d}.jpg" for i in range(len(faces.image))]
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.mkdir("img_align_celeba")
        for name, image in zip(names, faces.image, strict=True):
            file = io.BytesIO()
            Image.fromarray(image).save(file, format="JPEG", quality=95)
            archive.writestr(f"img_align_celeba/{name}", file.getvalue())

    def table(columns, rows):
        head = [str(len(names)), " ".join(columns)] if columns else []
        body = [f"{name} {' '.join(map(str, row))}" for name, row in zip(names, rows, strict=True)]
        return "".join(f"{line}\n" for line in [*head, *body]).encode()

    n = len(names)
    signs = np.where(faces.attributes, 1, -1)
    return {
        "img_align_celeba.zip": buffer.getvalue(),
        "list_attr_celeba.txt": table(attributes, signs),
        "list_landmarks_align_celeba.txt": table(landmarks, np.arange(10 * n).reshape(n, 10)),
        "list_eval_partition.txt": table(None, faces.part[:, None]),
        "identity_CelebA.txt": table(None, np.arange(n)[:, None]),
    }
