"""Tiny archives in the real formats, which TFDS's download manager takes for the real ones."""

import io
import tarfile

import pytest
import requests
from tensorflow_datasets.core.download import checksums


def tar(files, mode="w:gz"):
    """The bytes of an archive of `files`, bytes by path."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def put(monkeypatch, data_dir, builder, contents):
    """Puts files by hand, bytes by URL, under the names that a builder class registers for them.

    Their checksums are registered instead of the published ones'.
    """
    folder = data_dir / "downloads" / "manual" / builder.name
    folder.mkdir(parents=True)
    for url, content in contents.items():
        file = folder / builder.url_infos[url].filename
        file.write_bytes(content)
        for known in (builder.url_infos, checksums.get_all_url_infos()):
            monkeypatch.setitem(known, url, checksums.compute_url_info(file))


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise requests.ConnectionError("no network in the tests")

    monkeypatch.setattr(requests.Session, "get", refuse)
