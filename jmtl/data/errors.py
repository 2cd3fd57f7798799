"""Errors of the data package."""


class DataUnavailable(Exception):
    """Files that cannot be downloaded here; the message says which, from where and where to put."""


class DataDamaged(Exception):
    """A file of a prepared data set that cannot be read; the message says which, and what to do."""
