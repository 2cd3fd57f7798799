"""The summary of the toy problem in long form, for a CSV: a row for each quantity."""

from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = ("method", "quantity", "start_1", "start_2", "seed", "value")
"""Of `table.csv`."""


def rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a summary; those of the whole have no method."""

    def row(quantity: str, value: Any, start: Any = (None, None), **more: Any) -> dict[str, Any]:
        at = dict(zip(COLUMNS[2:4], start, strict=True))
        return {**dict.fromkeys(COLUMNS), "quantity": quantity, "value": value, **at, **more}

    for name, value in found["setting"].items():
        if isinstance(value, int | float):
            yield row(name.replace("_", " "), value)
    for start in found["starts"]:
        for part in ("every", "some", "none"):
            yield row(f"methods that reach with {part} seed", start[part], start["start"])
    for name, value in found["cost"].items():
        if name != "methods":
            yield row(name.replace("_", " "), value)
    for name in found["order"]:
        for made in _method_rows(found, name, row):
            yield {**made, "method": name}


def _method_rows(found: Mapping[str, Any], name: str, row: Any) -> Iterator[dict[str, Any]]:
    method, cost = found["methods"][name], found["cost"]["methods"][name]
    yield row("seeds", method["seeds"])
    yield row("descents", method["descents"])
    yield row("reached", method["reached"])
    yield row("farthest end from the front", method["farthest"])
    yield row("largest residual", method["residual"])
    yield row("compiling seconds", cost["compiling"])
    yield row("running seconds", cost["running"])
    for part in method["from"]:
        yield row("reached", part["reached"], part["start"])
    for end in method["ends"]:
        for quantity, value in (
            ("end x1", end["end"][0]),
            ("end x2", end["end"][1]),
            ("f1", end["losses"][0]),
            ("f2", end["losses"][1]),
            ("distance to the front", end["distance"]),
            ("reached", int(end["reached"])),
            ("residual", end["residual"]),
        ):
            yield row(quantity, value, end["start"], seed=end["seed"])
