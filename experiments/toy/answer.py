"""What the toy problem was asked and what it answers, in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.page.words import count, listed


def answer(found: Mapping[str, Any]) -> dict[str, Any]:
    """The sentences of a summary, and the names that they are made of.

    Args:
        found: the summary without its answer.
    """
    methods = found["methods"]
    every = [n for n in found["order"] if methods[n]["reached"] == methods[n]["descents"]]
    never = [n for n in found["order"] if not methods[n]["reached"]]
    by_seed = [
        name
        for name in found["order"]
        if any(0 < part["reached"] < methods[name]["seeds"] for part in methods[name]["from"])
    ]
    told = {"every": every, "never": never, "by_seed": by_seed}
    return {"question": _question(found), "text": list(_sentences(found, told)), **told}


def point(start: Sequence[float]) -> str:
    """A start as text."""
    return f"({start[0]:g}, {start[1]:g})".replace("-", "−")


def _question(found: Mapping[str, Any]) -> str:
    setting = found["setting"]
    return (
        f"Of {count(setting['methods'], 'method')}, which end nearer than "
        f"{setting['reached_within']:g} to the Pareto front of two functions of the plane in "
        f"{setting['steps']:,} steps of Adam, from each of {len(setting['starts'])} starts and "
        "with every seed?"
    )


def _sentences(found: Mapping[str, Any], told: Mapping[str, Sequence[str]]) -> Iterator[str]:
    every, never = told["every"], told["never"]
    n = found["setting"]["methods"]
    if every:
        verb = "reaches" if len(every) == 1 else "reach"
        yield (
            f"{len(every)} of {count(n, 'method')} {verb} the front from every start with every "
            f"seed: {listed(every)}."
        )
    else:
        yield "No method reaches the front from every start with every seed."
    if never:
        yield f"From no start and with no seed: {listed(never)}."
    else:
        yield "No method misses the front from every start."
    yield from _seeds(found, told["by_seed"])
    yield _starts(found)
    setting, cost = found["setting"], found["cost"]
    yield (
        f"{count(setting['descents'], 'descent')} of {count(setting['steps'], 'step')} took "
        f"{cost['seconds']:.1f} s ({cost['processor_seconds']:.1f} s of processor), of which "
        f"{cost['compiling_seconds']:.1f} s went into compiling {count(n, 'program')} and "
        f"{cost['running_seconds']:.1f} s into running them."
    )


def _seeds(found: Mapping[str, Any], by_seed: Sequence[str]) -> Iterator[str]:
    """What depends on the seed, of the methods that draw; the others have none."""
    seeds, methods = found["setting"]["seeds"], found["methods"]
    draw = found["setting"]["methods_that_draw"]
    if not draw:
        return
    those = f"{count(draw, 'method')} {'draws' if draw == 1 else 'draw'} at random"
    if seeds == 1:
        yield f"{those} and had one seed: what depends on the seed cannot be seen."
    elif not by_seed:
        yield (
            f"{those} and had {seeds} seeds: from no start does it depend on the seed whether the "
            "front is reached."
        )
    else:
        said = []
        for name in by_seed:
            parts = [
                f"from {point(part['start'])} with {part['reached']} of {seeds}"
                for part in methods[name]["from"]
                if 0 < part["reached"] < seeds
            ]
            said.append(f"{name} ({', '.join(parts)})")
        yield (
            f"{those} and had {seeds} seeds: whether the front is reached depends on the seed for "
            f"{listed(said)}."
        )


def _starts(found: Mapping[str, Any]) -> str:
    """From which starts methods miss the front, the hardest first."""
    n = found["setting"]["methods"]
    starts = sorted(found["starts"], key=lambda start: start["every"])
    missed = [(n - start["every"], point(start["start"])) for start in starts]
    said = [f"{many} from {at}" for many, at in missed if many]
    if not said:
        return "From no start a method misses the front."
    more = [f"{missed[0][0]} of {count(n, 'method')} from {missed[0][1]}", *said[1:]]
    rest = len(missed) - len(said)
    others = f", and by none from the other {count(rest, 'start')}" if rest else ""
    return f"With at least one seed the front is missed by {listed(more)}{others}."
