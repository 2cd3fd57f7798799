"""What a study was asked and what it answers, in sentences that claim no more than it shows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.page.words import count, listed


def answer(found: Mapping[str, Any]) -> dict[str, Any]:
    """The sentences of a summary, and the names and counts that they are made of.

    Args:
        found: the summary without its answer.
    """
    arms, setting = found["arms"], found["setting"]
    methods = [name for name, arm in arms.items() if arm["kind"] == "method"]
    sure = {name: _sure(found, name) for name in arms}
    differ = [name for name in found["order"] if sure[name] and arms[name]["kind"] == "method"]
    outside = [name for name in found["order"] if (arms[name]["front"] or {}).get("outside")]
    outside = [name for name in outside if arms[name]["kind"] == "method"]
    tests = [d for arm in arms.values() for d in arm["difference"].values() if d["p"] is not None]
    numbers = {
        "methods": len(methods),
        "tests": len(tests),
        "methods that differ from equal weights": len(differ),
        "methods better on some task": sum("better" in sure[n].values() for n in differ),
        "methods worse on some task": sum("worse" in sure[n].values() for n in differ),
        "methods outside the static front": len(outside),
    }
    told = {
        "seeds": len(setting["seeds"]),
        "methods": methods,
        "differ": differ,
        "outside": outside,
        "tests": len(tests),
    }
    return {
        "question": _question(found, told),
        "text": list(_sentences(found, told, sure)),
        "differ": differ,
        "sure": {name: sure[name] for name in differ},
        "outside_front": outside,
        "resolution": {task: _resolution(found, task) for task in found["tasks"]},
        "numbers": numbers,
    }


def digits(found: Mapping[str, Any], task: str) -> int:
    """Decimals for a task's metric: two digits of the width of equal weights' interval."""
    metric = found["tasks"][task]["metric"]
    value = next(a for a in found["arms"].values() if a["kind"] == "equal")["metrics"][task]
    mean, low, high = (value[metric][part] for part in ("mean", "low", "high"))
    if mean is None or low is None or high is None or high <= low:
        return 4 if mean is None or abs(mean) < 10 else 2
    return int(np.clip(2 - np.ceil(np.log10((high - low) / 2)), 0, 6))


def _question(found: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    setting = found["setting"]
    trials = setting["trials"]
    alike = (
        f"with {count(trials['most'], 'trial')} each"
        if trials["least"] == trials["most"]
        else f"with {trials['least']} to {trials['most']} trials each"
    )
    return (
        f"Is there a method among {len(told['methods'])} that does better on {setting['problem']} "
        f"than equal weights, or than fixed weights at all, when every arm is tuned on the "
        f"validation split {alike} and trained with {count(told['seeds'], 'seed')}?"
    )


def _sentences(
    found: Mapping[str, Any], told: Mapping[str, Any], sure: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    arms, n = found["arms"], len(told["methods"])
    if told["seeds"] == 1:
        yield (
            "There is one seed: no interval and no test exists, and nothing on this page tells a "
            "difference from noise."
        )
    elif n:
        yield _differing(found, told, sure)
        yield from _resolutions(found, told)
        yield from _outside(found, told)
    best = [name for name in found["order"] if arms[name]["kind"] == "method"][:1]
    equal = next(name for name, arm in arms.items() if arm["kind"] == "equal")
    ranked = sum(arm["rank"] is not None for arm in arms.values())
    for name in best:
        if arms[name]["rank"] and not arms[name]["failed"]:
            yield (
                f"The best mean rank of a method is {name}'s, {_rank(arms[name])} of {ranked} "
                f"arms; equal weights have {_rank(arms[equal])}."
            )
    yield from _alone(found, arms[equal])
    yield from _nulls(arms, sure, told)
    yield from _ends(found)
    bad = [name for name, arm in arms.items() if arm["diverged"]]
    if bad:
        names = [f"{name} ({count(arms[name]['diverged'], 'seed')})" for name in bad]
        yield f"Trainings that stopped being finite: {listed(names)}."


def _differing(
    found: Mapping[str, Any], told: Mapping[str, Any], sure: Mapping[str, Mapping[str, str]]
) -> str:
    n, differ = len(told["methods"]), told["differ"]
    family = (
        f"after Holm's correction over {count(told['tests'], 'test')} (methods and nulls, on "
        f"each task) at {found['level']:g}"
    )
    if not differ:
        none = "The method does not differ" if n == 1 else f"None of the {n} methods differs"
        return f"{none} from equal weights {family}."
    said = []
    for name in differ:
        parts = [
            f"{way} on {listed([t for t, w in sure[name].items() if w == way])}"
            for way in ("better", "worse")
            if way in sure[name].values()
        ]
        said.append(f"{name} ({', '.join(parts)})")
    return (
        f"Of {count(n, 'method')}, {len(differ)} differ{'s' * (len(differ) == 1)} from equal "
        f"weights {family}: {listed(said)}."
    )


def _resolutions(found: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    said = []
    for task, about in found["tasks"].items():
        width = _resolution(found, task)
        if width is not None:
            said.append(f"±{width:.{digits(found, task)}f} in {about['metric']} of {task}")
    if said:
        yield (
            f"A difference has, in the median, an interval of {listed(said)}: what is smaller "
            f"cannot be seen with {count(told['seeds'], 'seed')}."
        )


def _outside(found: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[str]:
    points, names = found["front"]["points"], told["outside"]
    if points < 2:
        yield "There is no front of static weights to compare with."
    elif names:
        verb = "lies" if len(names) == 1 else "lie"
        yield (
            f"{listed(names)} {verb} outside the front of {points} static weights: against each "
            f"of them better on some task (Holm over methods, at {found['level']:g})."
        )
    else:
        yield (
            f"No method is shown to lie outside the front of {points} static weights: to each of "
            "them some fixed weights are equal within noise, or better."
        )


def _alone(found: Mapping[str, Any], equal: Mapping[str, Any]) -> Iterator[str]:
    said = []
    for task, about in found["tasks"].items():
        alone, shared = found["single"].get(task), equal["metrics"][task][about["metric"]]
        if alone and alone["mean"] is not None and shared["mean"] is not None:
            d = digits(found, task)
            said.append(
                f"{task} reaches {about['metric']} {alone['mean']:.{d}f} "
                f"(equal weights {shared['mean']:.{d}f})"
            )
    if said and len(said) <= 6:
        yield f"Trained alone, {listed(said)}."


def _nulls(
    arms: Mapping[str, Any], sure: Mapping[str, Mapping[str, str]], told: Mapping[str, Any]
) -> Iterator[str]:
    nulls = [name for name, arm in arms.items() if arm["kind"] == "null"]
    if not nulls or told["seeds"] == 1:
        return
    false = [name for name in nulls if sure[name]]
    what = "equal weights again with other keys"
    if false:
        yield f"A false alarm: {listed(false)} ({what}) is found to differ."
    else:
        verb = "is" if len(nulls) == 1 else "are"
        yield f"{listed(nulls)} ({what}) {verb} not found to differ."


def _ends(found: Mapping[str, Any]) -> Iterator[str]:
    """Warnings: choices at an end of their grid, and grids of two values, which have no inside."""
    so = {"largest": "the grid may end too low", "least": "the grid may begin too high"}
    for key, tried in found["grid"].items():
        what = key if "." in key else key.replace("_", " ")
        for end, warning in so.items():
            names, values = tried[end]["names"], tried[end]["values"]
            if names:
                yield (
                    f"{_part(names, tried['arms'])} chose the {end} {what} tried, "
                    f"{listed([f'{value:g}' for value in values])}: {warning}."
                )
        if tried["either"]:
            yield (
                f"With two values tried, either is an end of the grid: what "
                f"{count(tried['either'], 'arm')} chose as {what} does not say whether the grid is "
                "wide enough."
            )


def _part(names: Sequence[str], of: int) -> str:
    """How many of the arms these are; few of many by name."""
    if of == 1:
        return names[0]
    if len(names) == of:
        return f"All {of} arms"
    named = f" ({listed(names)})" if len(names) <= 3 else ""
    return f"{len(names)} of {of} arms{named}"


def _sure(found: Mapping[str, Any], name: str) -> dict[str, str]:
    """By task where an arm differs from equal weights after correction: better or worse."""
    ways = {}
    for task, value in found["arms"][name]["difference"].items():
        if value["p_holm"] is not None and value["p_holm"] <= found["level"]:
            up = value["mean"] > 0
            good = up == found["tasks"][task]["higher_is_better"]
            ways[task] = "better" if good else "worse"
    return ways


def _resolution(found: Mapping[str, Any], task: str) -> float | None:
    """The median half width of the intervals of methods' differences to equal weights."""
    widths = [
        (value["high"] - value["low"]) / 2
        for arm in found["arms"].values()
        if arm["kind"] in ("method", "null")
        for of, value in arm["difference"].items()
        if of == task and value["low"] is not None
    ]
    return float(np.median(widths)) if widths else None


def _rank(arm: Mapping[str, Any]) -> str:
    rank = arm["rank"]
    if rank["low"] is None:
        return f"{rank['mean']:.1f}"
    return f"{rank['mean']:.1f} [{rank['low']:.1f}, {rank['high']:.1f}]"
