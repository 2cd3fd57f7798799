"""The committed property table against what the methods do."""

import pytest

import jmtl
from tests.methods.properties import TABLE, line

COMMITTED = TABLE.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", jmtl.METHODS)
def test_the_table_says_what_the_method_does(name: str) -> None:
    """A property lost or gained: find why; if it is right, `python -m tests.methods.properties`."""
    said = [row for row in COMMITTED if row.startswith(f"| `{name}` |")]
    assert said == [line(name)]


def test_the_table_has_no_other_methods() -> None:
    named = [row.split("`")[1] for row in COMMITTED if row.startswith("| `")]
    assert named == list(jmtl.METHODS)
