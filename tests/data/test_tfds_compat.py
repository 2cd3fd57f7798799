"""What stands in for TensorFlow's files."""

import gc
import zipfile

from tensorflow_datasets.core.download import extractor, resource
from tensorflow_datasets.image_classification import mnist

from jmtl.data.tfds_compat import without_tensorflow


def test_members_of_an_archive_can_be_read_when_it_has_been_listed(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(3):
            archive.writestr(f"folder/{i}.txt", str(i))
    with without_tensorflow(mnist.MNIST):
        members = dict(extractor.iter_archive(path, resource.ExtractMethod.ZIP))
        found = {name: file.read() for name, file in members.items()}
    assert found == {f"folder/{i}.txt": b"%d" % i for i in range(3)}
    del members
    gc.collect()  # a file that is left open is a warning, and a warning is an error


def test_text_and_what_is_written_are_closed_at_the_end_of_their_block(tmp_path):
    with without_tensorflow(mnist.MNIST):
        with extractor.tf.io.gfile.GFile(tmp_path / "a", "wb") as file:
            file.write(b"one\ntwo\n")
        assert file.closed
        with extractor.tf.io.gfile.GFile(tmp_path / "a") as file:
            assert file.read() == "one\ntwo\n"
        assert file.closed
        with extractor.tf.io.gfile.GFile(tmp_path / "a", "rb") as file:
            assert file.readline() == b"one\n"
