"""Refusal of options that are no whole number."""

import numbers
from typing import Any


def check_count(name: str, option: str, value: Any, least: int) -> int:
    """`value` itself, refused unless it is a whole number of at least `least`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"{name}: {option} must be a whole number >= {least}, got {value!r}")
    return int(value)
