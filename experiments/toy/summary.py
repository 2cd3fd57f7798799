"""All numbers of the toy problem's report, as one plain dict."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from experiments.commands import Toy, command_line
from experiments.problems import toy
from experiments.toy.answer import answer
from jmtl.train import records


def summary(
    command: Toy,
    done: Mapping[str, toy.Paths],
    refused: Sequence[str],
    seconds: float,
    processor_seconds: float,
) -> dict[str, Any]:
    """What was run, where every descent ended, and what it took.

    Args:
        command: what was asked for.
        done: by method, what `toy.run` returns.
        refused: a line for each method that does not serve K = 2.
        seconds: of all methods, compiling included.
        processor_seconds: likewise, over all cores.
    """
    methods = {name: _method(name, paths) for name, paths in done.items()}
    found: dict[str, Any] = {
        "setting": {
            "command": command_line(command),
            "versions": records.versions(),
            "device": jax.devices()[0].device_kind,
            "scale": command.scale,
            "steps": command.steps,
            "learning_rate": toy.LEARNING_RATE,
            "reached_within": toy.REACHED,
            "starts": [list(start) for start in toy.STARTS],
            "seeds": command.seeds,
            "methods": len(methods),
            "methods_that_draw": sum(method["draws"] for method in methods.values()),
            "descents": sum(method["descents"] for method in methods.values()),
            "reached": sum(method["reached"] for method in methods.values()),
            "not_served": list(refused),
        },
        # By the share of descents that reach the front; of equals in the order of `done`.
        "order": sorted(methods, key=lambda n: -methods[n]["reached"] / methods[n]["descents"]),
        "starts": [_start(methods, i) for i in range(len(toy.STARTS))],
        "methods": methods,
        "cost": {
            "seconds": round(seconds, 1),
            "processor_seconds": round(processor_seconds, 1),
            "compiling_seconds": round(sum(paths.compiling for paths in done.values()), 1),
            "running_seconds": round(sum(paths.running for paths in done.values()), 1),
            "methods": {
                name: {"compiling": round(paths.compiling, 3), "running": round(paths.running, 3)}
                for name, paths in done.items()
            },
        },
    }
    return {**found, "answer": answer(found)}


def _method(name: str, paths: toy.Paths) -> dict[str, Any]:
    ends = toy.ends(paths)
    far = [row["distance"] for row in ends]
    residuals = [row["residual"] for row in ends]
    return {
        "draws": toy.draws(name),
        "seeds": len(paths.points),
        "descents": len(ends),
        "reached": sum(row["reached"] for row in ends),
        "farthest": None if None in far else max(far),
        "residual": None if None in residuals else max(residuals),
        "from": [
            {
                "start": list(start),
                "reached": sum(row["reached"] for row in ends if row["start"] == list(start)),
            }
            for start in toy.STARTS
        ],
        "ends": ends,
    }


def _start(methods: Mapping[str, Mapping[str, Any]], i: int) -> dict[str, Any]:
    """How many methods reach the front from start i with every seed, with some, with none."""
    reached = [(method["from"][i]["reached"], method["seeds"]) for method in methods.values()]
    return {
        "start": list(toy.STARTS[i]),
        "every": sum(n == seeds for n, seeds in reached),
        "some": sum(0 < n < seeds for n, seeds in reached),
        "none": sum(n == 0 for n, _ in reached),
    }


def text(found: Mapping[str, Any]) -> str:
    """JSON with every innermost object on a line of its own."""
    spread = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\{[^{}]*\}", lambda inner: " ".join(inner[0].split()), spread) + "\n"
