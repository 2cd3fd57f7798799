"""Data for the command line, prepared once; and a run small enough to be made many times over."""

import pytest

from jmtl.data import source


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """A folder that holds MultiDigits."""
    folder = tmp_path_factory.mktemp("data")
    source.prepare("multi_digits", folder)
    return folder
