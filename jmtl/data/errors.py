"""Errors of the data package."""


class DataUnavailable(Exception):
    """Files that cannot be downloaded here; the message says which, from where and where to put."""
