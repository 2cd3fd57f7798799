"""A summary in long form, for a CSV: a row for each arm and quantity."""

from collections.abc import Iterator, Mapping
from typing import Any

COLUMNS = (
    "arm", "quantity", "task", "metric", "value", "low", "high", "p", "p_holm", "seeds",
)  # fmt: skip
"""Of `table.csv`."""


def rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a summary; those of the whole study have no arm."""

    def row(quantity: str, value: Any, **more: Any) -> dict[str, Any]:
        if isinstance(value, Mapping):
            value, more = value["mean"], {"low": value["low"], "high": value["high"], **more}
        return {**dict.fromkeys(COLUMNS), "quantity": quantity, "value": value, **more}

    setting = found["setting"]
    for name in ("arms", "trainings", "failed", "steps", "evaluate_every", "batch_size"):
        yield row(name, setting[name])
    yield row("seeds", len(setting["seeds"]))
    yield from (row("examples", n, metric=split) for split, n in setting["examples"].items())
    yield row("trials", setting["trials"]["least"], metric="least")
    yield row("trials", setting["trials"]["most"], metric="most")
    yield row("points of the static front", found["front"]["points"])
    yield row("hypervolume of the static front", found["front"]["hypervolume"])
    for task, value in (found["front"]["reference"] or {}).items():
        yield row("reference of hypervolumes", value, task=task)
    yield from (row(name, v) for name, v in found["answer"]["numbers"].items())
    for name, tried in found["grid"].items():
        yield row("arms that tried three values or more", tried["arms"], metric=name)
        yield row("arms that chose one of two values tried", tried["either"], metric=name)
        for end in ("least", "largest"):
            chose = len(tried[end]["names"])
            yield row(f"arms that chose the {end} value tried", chose, metric=name)
    for name in found["order"]:
        for made in _arm_rows(found, found["arms"][name], row):
            yield {**made, "arm": name}


def _arm_rows(found: Mapping[str, Any], arm: Mapping[str, Any], row: Any) -> Iterator[Any]:
    yield row("seeds", arm["seeds"])
    yield row("seeds lost", arm["lost"])
    yield row("diverged", arm["diverged"])
    yield row("best step", arm["best_step"])
    if arm["rank"]:
        yield row("mean rank", arm["rank"])
    for task, by_name in arm["metrics"].items():
        for metric, value in by_name.items():
            yield row("test metric", value, task=task, metric=metric, seeds=arm["seeds"])
    for task, value in arm["difference"].items():
        more = {key: value[key] for key in ("p", "p_holm", "seeds")}
        metric = found["tasks"][task]["metric"]
        yield row("difference to equal weights", value, task=task, metric=metric, **more)
    for convention, value in arm["delta_m"].items():
        yield row("delta m in percent", value, metric=f"mean over {convention}")
    if arm["improvement"]:
        yield row("probability of improvement over equal weights", arm["improvement"])
    if arm["front"]:
        place = arm["front"]
        yield row("hypervolume gained", place["gain"])
        yield row("outside the static front", int(place["outside"]), p_holm=place["p_holm"])
    for name, value in arm["hyperparameters"].items():
        yield row("hyperparameter", value, metric=name)
    for name, tried in arm["grid"].items():
        yield row("values tried", tried["values"], metric=name)
        for end in ("least", "largest"):
            yield row(f"chose the {end} value tried", int(tried["end"] == end), metric=name)
    yield row("chosen trial", arm["trial"] + 1)
    for h, trial in enumerate(arm["trials"], 1):
        yield row("validation score of a trial", trial, metric=f"{h}: {trial['short']}")
        yield row("loss of a trial", trial["loss"], metric=f"{h}: {trial['short']}")
        for name, value in trial["hyperparameters"].items():
            yield row("hyperparameter of a trial", value, metric=f"{h}: {name}")
    for name in ("conflict_rate", "cosine", "magnitude_similarity"):
        yield row(name.replace("_", " "), arm["along"][name])
    yield row("largest residual", arm["along"]["residual"])
    for task, value in arm["along"]["weights"].items():
        yield row("weight", value, task=task)
