"""What TFDS's builders reach for when TensorFlow is absent, supplied while they prepare.

TFDS 4.9.10 reads prepared array_record data without TensorFlow, but its extractor, its own
builders and its image encoder call `tf.io.gfile`, `tf.compat` and `tf.image` by a module global
`tf`. Inside `without_tensorflow` that global is a small namespace over the standard library, and
image arrays are encoded by Pillow; on exit all is as before. `sys.modules` is never touched, as
other libraries look there to find out whether TensorFlow is in use.

Covered: the download manager and its extraction (gzip, tar, zip), images encoded as PNG or JPEG,
and what these read: mnist and its kin, cifar100, svhn_cropped, smallnorb, celeb_a, shapes3d,
oxford_iiit_pet (whose builder reads some pictures and writes them as JPEG).
"""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from tensorflow_datasets.core.download import extractor
from tensorflow_datasets.core.features import image_feature


@contextlib.contextmanager
def without_tensorflow(builder_class: type) -> Iterator[None]:
    """Supplies TensorFlow's file and image functions to TFDS and to one builder's module.

    The patches act on modules, so on all threads of the process (TFDS extracts in threads), until
    the context ends.

    Args:
        builder_class: the builder that will prepare inside the context.
    """
    modules: list[Any] = [extractor, sys.modules[builder_class.__module__]]
    with contextlib.ExitStack() as stack:
        for module in modules:
            if "tf" in vars(module):
                stack.enter_context(mock.patch.object(module, "tf", _TENSORFLOW))
        stack.enter_context(
            mock.patch.object(image_feature._ImageEncoder, "_encode_image", _encode_image)
        )
        yield


class _Reader(io.BufferedReader):
    """A file that can be read after its `with` as well, as TensorFlow's, which opens itself again.

    TFDS lists an archive in a `with` of its own, and celeb_a reads the members when that is over.
    The file is closed with the last that refers to it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(io.FileIO(path))

    def __exit__(self, *error: object) -> None:
        pass

    def __del__(self) -> None:
        self.close()


def _open(path: str | os.PathLike[str], mode: str = "r") -> Any:
    return _Reader(path) if mode == "rb" else open(path, mode)


def _as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _encode_image(encoder: Any, image: np.ndarray) -> bytes:
    """Encodes `[height, width, channels]` as PNG or JPEG, after TFDS's check of shape and dtype."""
    image_feature._validate_np_array(image, shape=encoder.shape, dtype=encoder.np_dtype)
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(
        buffer, format=encoder.encoding_format
    )
    return buffer.getvalue()


def _decode_image(content: bytes) -> np.ndarray:
    """The pixels `[height, width, channels]` of a PNG, JPEG, GIF or BMP file: 1, 3 or 4 channels.

    Of several frames it gives the first, where TensorFlow gives all.
    """
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB"))
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _encode_jpeg(pixels: np.ndarray) -> SimpleNamespace:
    """A JPEG file of `[height, width, 1 or 3]`, in TensorFlow's quality, as what has `numpy()`."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(buffer, format="jpeg", quality=95)
    return SimpleNamespace(numpy=buffer.getvalue)


_TENSORFLOW = SimpleNamespace(
    io=SimpleNamespace(gfile=SimpleNamespace(GFile=_open), encode_jpeg=_encode_jpeg),
    compat=SimpleNamespace(as_text=_as_text),
    image=SimpleNamespace(decode_image=_decode_image),
    shape=np.shape,
)
