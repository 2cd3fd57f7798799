"""Words of the sentences that reports are made of."""

from collections.abc import Sequence


def count(n: int, what: str) -> str:
    """A number of things, in the plural where they are not one."""
    return f"{n:,} {what}{'s' * (n != 1)}"


def listed(names: Sequence[str]) -> str:
    """Names joined by commas, and "and" before the last."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
