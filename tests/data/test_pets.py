import io
import sys

import numpy as np
import pytest
import requests
from PIL import Image

from experiments.problems.oxford_iiit_pet import MEAN, PROBLEM, STD, to_batch
from jmtl.data import source
from jmtl.data.errors import DataUnavailable
from jmtl.data.pets import SIZE
from jmtl.tasks import check_labels
from tests.data import originals

FORMS = {
    "Abyssinian_1": ("jpeg", "RGB"),
    "Bengal_7": ("gif", "P"),
    "Bombay_2": ("jpeg", "CMYK"),
    "Egyptian_Mau_129": ("png", "RGBA"),
    "pug_3": ("jpeg", "L"),
    # What TFDS's builder decodes and writes anew.
    "Abyssinian_34": ("gif", "P"),
    "beagle_116": ("damaged", "RGB"),
    "chihuahua_121": ("png", "RGBA"),
    "Egyptian_Mau_14": ("bmp", "RGB"),
    "Egyptian_Mau_139": ("png", "P"),
    "Egyptian_Mau_145": ("jpeg", "CMYK"),
    "Egyptian_Mau_156": ("jpeg", "L"),
    "saint_bernard_9": ("jpeg", "RGB"),
    "Sphynx_5": ("jpeg", "RGB"),
}
"""Of the files, whose names all end in .jpg."""

NAMES = list(FORMS)
TEST = NAMES[-2:]
RNG = np.random.default_rng(0)
SHAPES = {name: tuple(RNG.integers(40, 200, 2)) for name in NAMES}
COLOURS = {name: RNG.integers(30, 220, (2, 3)) for name in NAMES}
"""Of the left and the right half."""
MASKS = {name: RNG.integers(1, 4, shape).astype(np.uint8) for name, shape in SHAPES.items()}


def picture(name):
    """RGB of two colours, grey ones where the file is grey."""
    height, width = SHAPES[name]
    left, right = COLOURS[name]
    pixels = np.where(np.arange(width)[None, :, None] < width / 2, left, right)
    pixels = np.broadcast_to(pixels, (height, width, 3)).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image.convert("L") if FORMS[name][1] == "L" else image


def content(name):
    form, mode = FORMS[name]
    buffer = io.BytesIO()
    image = picture(name).quantize(2) if mode == "P" else picture(name).convert(mode)
    if form == "gif":
        image.save(buffer, "gif", save_all=True, append_images=[image.rotate(180)])
    else:
        image.save(buffer, "jpeg" if form == "damaged" else form)
    found = buffer.getvalue()
    return found[:-2] + b"extraneous" + found[-2:] if form == "damaged" else found


def png(values):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "png")
    return buffer.getvalue()


def line(name):
    """Of the lists: breeds are told apart by their places here."""
    return f"{name} {NAMES.index(name) + 1} {1 if name[0].isupper() else 2} 1"


XML = (
    b"<annotation><size><width>100</width><height>50</height></size><object><bndbox><xmin>10</xmin>"
    b"<ymin>5</ymin><xmax>90</xmax><ymax>45</ymax></bndbox></object></annotation>"
)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    images = {f"images/{name}.jpg": content(name) for name in NAMES}
    annotations = {f"annotations/trimaps/{name}.png": png(MASKS[name]) for name in NAMES}
    annotations["annotations/trimaps/._pug_3.png"] = b"not a picture"  # as the real archive has
    annotations["annotations/xmls/pug_3.xml"] = XML
    for part, names in {"trainval": NAMES[:-2], "test": TEST}.items():
        annotations[f"annotations/{part}.txt"] = "\n".join(map(line, names)).encode() + b"\n"
    files = {
        "images.tar.gz": originals.tar(images, kind=""),  # as the real one is
        "annotations.tar.gz": originals.tar(annotations),
    }
    originals.put(monkeypatch, tmp_path, "oxford_iiit_pet", files)
    return tmp_path


def check_picture(name, image):
    """Both colours where they were, as far as JPEG keeps them."""
    given = np.asarray(picture(name).convert("RGB")).astype(int)
    for column in (20, 108):
        expected = given[0, 0 if column < 64 else -1]
        off = np.abs(image[8:-8, column].astype(int) - expected).max()
        assert off <= 8, (name, FORMS[name], off)


def test_pets_of_all_forms_and_their_labels(tiny):
    builder = source.prepare("pets", tiny)
    read = {}
    for split in ("train", "validation", "test"):
        arrays = source.as_arrays(source.load(builder, split))
        read[split] = [NAMES[breed] for breed in arrays["breed"]]
        for name, image, mask, species in zip(
            read[split], arrays["image"], arrays["mask"], arrays["species"], strict=True
        ):
            check_picture(name, image)
            rows, columns = (((2 * np.arange(SIZE) + 1) * n) // (2 * SIZE) for n in SHAPES[name])
            np.testing.assert_array_equal(mask, MASKS[name][np.ix_(rows, columns)] - 1)
            assert species == int(name[0].islower())
        batch = to_batch(arrays)
        check_labels(PROBLEM.tasks, batch)
        np.testing.assert_allclose(
            batch.inputs * STD[None, None, None] + MEAN[None, None, None],
            arrays["image"] / np.float32(255),
            atol=1e-5,
        )
    assert len(read["train"]) == 11
    assert sorted(read["train"] + read["validation"]) == sorted(NAMES[:-2])
    assert sorted(read["test"]) == sorted(TEST)
    assert "tensorflow" not in sys.modules


def test_without_network_says_what_to_download(tmp_path, monkeypatch):
    monkeypatch.setattr(requests.Session, "get", originals.refuse)
    with pytest.raises(DataUnavailable) as caught:
        source.prepare("pets", tmp_path)
    message = str(caught.value)
    assert "annotations.tar.gz, images.tar.gz from https://thor.robots.ox.ac.uk/" in message
    assert str(tmp_path / "downloads" / "manual" / "oxford_iiit_pet") in message
    assert "\n" not in message
