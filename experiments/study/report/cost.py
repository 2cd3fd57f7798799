"""What a study's trainings cost: the only numbers of a report that differ from run to run."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from experiments.study.config import programs
from experiments.study.report.seeds import plain, span
from experiments.study.results import BESIDE, Results

COLUMNS = ("program", "quantity", "value", "low", "high")
"""Of `cost.csv`."""


def cost(results: Results) -> dict[str, Any]:
    """By compiled program, the milliseconds of a step of one training, and the ratio to `static`.

    `static` trains equal weights and all baselines. Programs were timed in turns: a time is the
    median over rounds, divided by a dispatch's steps and by the trainings that go on at once; a
    ratio is that of two times of one round, its median with the least and the most.
    """
    config = results.config
    plan = {program.name: program for program in programs(config)}
    equal = next(i for i, arm in enumerate(config.arms) if arm.kind == "equal")
    reference = next(
        name for name, program in plan.items() if any(t.arm == equal for t in program.trainings)
    )
    beside = results.timing.get(BESIDE, {})
    base = np.array(beside.get(reference, []))
    found = {}
    for name, program in plan.items():
        times = np.array(beside.get(name, []))
        ratios = times / base if len(times) == len(base) else np.zeros(0)
        found[name] = {
            "milliseconds": 1e3 * np.median(times) / (config.evaluate_every * config.width)
            if len(times)
            else None,
            "ratio": span(np.median(ratios), ratios.min(), ratios.max()) if len(ratios) else None,
            "trainings": len(program.trainings),
            "seconds": sum(call["seconds"] for call in results.timing.get(name, {}).values()),
        }
    total = sum(program["seconds"] for program in found.values())
    whole = {"reference": reference, "seconds": total, "width": config.width, "programs": found}
    return {name: plain(value) for name, value in whole.items()}


def rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The numbers in long form."""
    for name in ("seconds", "width"):
        yield {"quantity": name, "value": found[name]}
    for name, program in found["programs"].items():
        for quantity in ("milliseconds", "trainings", "seconds"):
            yield {"program": name, "quantity": quantity, "value": program[quantity]}
        ratio = program["ratio"] or span(None, None, None)
        ends = {"value": ratio["mean"], "low": ratio["low"], "high": ratio["high"]}
        yield {"program": name, "quantity": "ratio to equal weights", **ends}
