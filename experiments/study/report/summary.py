"""All numbers of a report but its times, as one plain dict."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from experiments.study import fronts, statistics
from experiments.study.report import grid
from experiments.study.report.answer import answer
from experiments.study.report.curves import RANGES, magnitude_similarity, pairs_mean
from experiments.study.report.seeds import over_seeds, plain, span, spans
from experiments.study.results import RULE, ArmResult, Results, single_task
from experiments.study.statistics import Interval

LEVEL = 0.05
"""Of false alarms in a whole family of tests."""

FAMILY = ("method", "null")
"""The kinds of arms that are tested. Baselines are there to be compared with."""

MOST_VOLUME = 6
"""Tasks up to which a hypervolume is computed: its cost grows exponentially with them."""

POINTS = 48
"""Thresholds of the performance profile."""

Values = Mapping[str, Float[np.ndarray, "K S"]]


def summary(results: Results) -> dict[str, Any]:
    """The numbers of a study, without times: equal studies give equal summaries.

    Numbers have six digits; where there is none (a training that failed, an interval of one seed)
    stands None. All scores are of the test split unless they say otherwise.
    """
    tasks: dict[str, dict[str, Any]] = {
        task: {"metric": name, "higher_is_better": results.higher_is_better[task][name]}
        for task, name in results.config.metrics.items()
    }
    signs = np.array([1 if about["higher_is_better"] else -1 for about in tasks.values()])
    values = {
        name: np.array([_metric(arm, task, about["metric"]) for task, about in tasks.items()])
        for name, arm in results.arms.items()
    }
    ranked = [name for name, arm in results.arms.items() if set(arm.arm.tasks) == set(tasks)]
    ranks = _ranks(values, signs, ranked)
    better = _improvement(results, values, signs, ranked)
    apart = _differences(results, values, list(tasks))
    static = [n for n in ranked if results.arms[n].arm.kind in ("equal", "front")]
    against = _fronts(results, values, signs, static)
    arms = {}
    for name, arm in results.arms.items():
        arms[name] = {
            "kind": arm.arm.kind,
            "method": arm.arm.method,
            "tasks": list(arm.arm.tasks),
            **_trainings(arm, values[name], list(tasks)),
            "rank": ranks.get(name),
            "metrics": _metrics(arm, results.higher_is_better),
            "difference": apart[name],
            "delta_m": _delta_m(results, arm, list(tasks)) if name in ranked else {},
            "improvement": better.get(name),
            "front": against["arms"].get(name),
            "trial": arm.chosen,
            "hyperparameters": dict(arm.arm.trials[arm.chosen]),
            "grid": grid.tuned(arm),
            "trials": _trials(arm),
            "along": _along(arm, list(tasks)),
        }
    found = {
        "level": LEVEL,
        "tasks": tasks,
        "setting": _setting(results),
        "order": _order(results, ranks),
        "single": {
            task: _one(values[name][i])
            for i, task in enumerate(tasks)
            for name, arm in results.arms.items()
            if arm.arm.kind == "single" and task in arm.arm.tasks
        },
        "front": against["front"],
        "profile": _profile(
            values, signs, [n for n in ranked if results.arms[n].arm.kind != "front"]
        ),
        "grid": grid.ends(arms),
        "arms": arms,
    }
    found = plain(found)
    found["answer"] = plain(answer(found))
    return found


def _metric(arm: ArmResult, task: str, metric: str) -> Float[np.ndarray, " S"]:
    """A metric at the kept step; NaN for a task that the arm did not train."""
    nothing = np.full(arm.failed.shape, np.nan)
    return arm.test.get(task, {}).get(metric, nothing) if task in arm.arm.tasks else nothing


def _one(x: Float[np.ndarray, " S"]) -> dict[str, Any]:
    return span(*(float(part) for part in over_seeds(x)))


def _setting(results: Results) -> dict[str, Any]:
    config = results.config
    counts = {len(arm.arm.trials) for arm in results.arms.values()}
    lists = [list(arm.arm.trials) for arm in results.arms.values()]
    shared = 0
    while all(len(x) > shared and x[shared] == lists[0][shared] for x in lists):
        shared += 1
    return {
        "problem": config.problem,
        "command": results.about.get("command"),
        "versions": results.about.get("versions", {}),
        "device": results.about.get("device"),
        "examples": results.about.get("data", {}),
        "not_served": results.about.get("not_served", []),
        "protocol": results.about.get("protocol", ""),
        "rule": results.about.get("rule", RULE),
        "seeds": list(config.seeds),
        "steps": config.steps,
        "evaluate_every": config.evaluate_every,
        "batch_size": config.batch_size,
        "optimizer": config.optimizer,
        "schedule": [list(change) for change in config.schedule],
        "encoder": config.encoder,
        "encoder_options": config.encoder_options,
        "head_options": config.head_options,
        "sharing": config.sharing,
        "sharing_options": config.sharing_options,
        "norm_matched": config.norm_matched,
        "arms": len(results.arms),
        "trainings": sum(arm.scores.size for arm in results.arms.values()),
        "failed": sum(int((arm.failed >= 0).sum()) for arm in results.arms.values()),
        "trials": {"least": min(counts), "most": max(counts), "shared": shared},
    }


def _order(results: Results, ranks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Names by mean rank; what is not ranked, and what failed altogether, after it."""
    names = list(results.arms)

    def key(name: str) -> tuple[float, int]:
        return (ranks[name]["mean"] if name in ranks else math.inf), names.index(name)

    return sorted(names, key=key)


def _ranks(values: Values, signs: Any, ranked: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The mean ranks of the arms that train every task; a training that failed ranks last."""
    scores = np.array([signs[:, None] * values[name] for name in ranked])
    found = statistics.mean_rank(np.where(np.isfinite(scores), scores, -np.inf))
    return spans(found, ranked)


def _improvement(
    results: Results, values: Values, signs: Any, ranked: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """The probability that a training has a better score, as `RULE` has it, than equal weights."""
    scores = {}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in ranked:
            x = np.mean(signs[:, None] * np.log(values[name]), axis=0)
            scores[name] = np.where(np.isnan(x), -np.inf, x)
    others = [name for name in ranked if results.arms[name].arm.kind != "equal"]
    base = next(name for name in ranked if results.arms[name].arm.kind == "equal")
    if not others:
        return {}
    stacked = np.array([scores[name] for name in others])
    against = np.broadcast_to(scores[base], stacked.shape)
    return spans(statistics.probability_of_improvement(stacked, against), others)


def _differences(
    results: Results, values: Values, tasks: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """By arm and task, the paired difference to equal weights, tested where no seed is lost.

    One family of tests: every method (and null) on every task.
    """
    base = next(name for name, arm in results.arms.items() if arm.arm.kind == "equal")
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in results.arms}
    tested = []
    groups: dict[bytes, list[tuple[str, int, Bool[np.ndarray, " S"]]]] = {}
    for name in results.arms:
        for i in range(len(tasks)):
            there = np.isfinite(values[name][i]) & np.isfinite(values[base][i])
            if name != base and there.any():
                groups.setdefault(there.tobytes(), []).append((name, i, there))
    for members in groups.values():
        there = members[0][2]
        a = np.array([values[name][i][there] for name, i, _ in members])
        b = np.array([values[base][i][there] for _, i, _ in members])
        for (name, i, _), mean, low, high, p in zip(members, *statistics.paired(a, b), strict=True):
            row = {**span(mean, low, high), "seeds": int(there.sum()), "p": None, "p_holm": None}
            # A test on the seeds that survived would favour who fails where it is hard.
            whole = np.isfinite(values[base][i]).sum() == there.sum() and np.isfinite(p)
            if results.arms[name].arm.kind in FAMILY and whole:
                row["p"] = float(p)
                tested.append(row)
            found[name][tasks[i]] = row
    adjusted = statistics.holm(np.array([row["p"] for row in tested], float))
    for row, value in zip(tested, adjusted, strict=True):
        row["p_holm"] = float(value)
    return found


def _fronts(results: Results, values: Values, signs: Any, static: Sequence[str]) -> dict[str, Any]:
    """The front of static weights, its volume, and where each method lies."""
    means = {name: signs * over_seeds(x).mean for name, x in values.items()}
    static = [name for name in static if np.isfinite(means[name]).all()]
    methods = [name for name, arm in results.arms.items() if arm.arm.kind in FAMILY]
    points = np.array([means[name] for name in static]).reshape(-1, len(signs))
    on = fronts.pareto(points) if len(points) else np.zeros(0, bool)
    front: dict[str, Any] = {
        "points": len(static),
        "names": [name for name, kept in zip(static, on, strict=True) if kept],
        "reference": None,
        "hypervolume": None,
    }
    reference = None
    if len(static) > 1 and len(signs) <= MOST_VOLUME and np.ptp(points, axis=0).all():
        reference = points.min(axis=0) - 0.1 * np.ptp(points, axis=0)
        front["reference"] = dict(zip(results.config.metrics, signs * reference, strict=True))
        front["hypervolume"] = fronts.hypervolume(points, reference)
    p = _outside(values, signs, methods, static)
    arms: dict[str, Any] = {}
    for name in methods:
        if not np.isfinite(means[name]).all() or len(static) < 2:
            continue
        adjusted = p.get(name)
        beaten = fronts.dominated(means[name], points)
        arms[name] = {
            "p_holm": adjusted,
            "outside": adjusted is not None and adjusted <= LEVEL,
            "place": "inside" if beaten else "on",
            "gain": None
            if reference is None
            else fronts.gain(means[name], points, reference) / front["hypervolume"],
        }
        if arms[name]["outside"]:
            arms[name]["place"] = "outside"
    return {"front": front, "arms": arms}


def _outside(
    values: Values, signs: Any, methods: Sequence[str], static: Sequence[str]
) -> dict[str, float]:
    """By method, p of the claim that no static weights are as good on every task, after Holm.

    Against one point of static weights the method must be better on some task: the smallest of the
    one-sided p values of the paired tests, corrected over tasks. It must be so against every point:
    the largest of these, which needs no correction. Then over methods.
    """
    whole = [
        name
        for name in (*methods, *static)
        if np.isfinite(values[name]).all() and values[name].shape[-1] > 1
    ]
    tried, fixed = ([n for n in whole if n in group] for group in (methods, static))
    if not tried or not fixed:
        return {}
    a = np.array([[signs[:, None] * values[name]] * len(fixed) for name in tried])
    b = np.broadcast_to([signs[:, None] * values[name] for name in fixed], a.shape)
    found = statistics.paired(a, b, resamples=100)  # its intervals are not used
    one_sided = np.where(found.difference > 0, found.p / 2, 1.0)  # [methods, static, tasks]
    over_tasks = np.apply_along_axis(lambda p: statistics.holm(p).min(), 2, one_sided)
    return dict(zip(tried, statistics.holm(over_tasks.max(axis=1)).tolist(), strict=True))


def _profile(values: Values, signs: Any, ranked: Sequence[str]) -> dict[str, Any] | None:
    """How often an arm comes within some percent of the best one of the same task and seed.

    Without the front, whose ends are best on the one task that they give all weight to.
    """
    scores = np.array([signs[:, None] * values[name] for name in ranked])
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    best = scores.max(axis=0)
    if not np.isfinite(best).all() or not best.all():
        return None
    short = 100 * (best - scores) / np.abs(best)
    most = float(np.quantile(short[np.isfinite(short)], 0.9))
    if most == 0:
        return None
    within = most * np.arange(1, POINTS + 1) / POINTS
    found = statistics.performance_profile(-short, -within[::-1], resamples=2_000)
    shares = {
        name: {part: getattr(found, part)[i, ::-1] for part in Interval._fields}
        for i, name in enumerate(ranked)
    }
    return {"within": within, "shares": shares}


def _trainings(
    arm: ArmResult, values: Float[np.ndarray, "K S"], tasks: Sequence[str]
) -> dict[str, Any]:
    """How many seeds there are of the chosen trial, and what became of them."""
    own = values[[task in arm.arm.tasks for task in tasks]]
    there = np.isfinite(own).all(axis=0)
    return {
        "seeds": int(there.sum()),
        "lost": int((~there).sum()),
        "diverged": int((arm.failed >= 0).sum()),
        "failed": not there.any(),
        "best_step": _one(np.where(there, arm.best_step, np.nan)),
    }


def _metrics(
    arm: ArmResult, known: Mapping[str, Mapping[str, bool]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Test metrics by task and name: mean, interval, and every seed's value."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for task in arm.arm.tasks:
        names = [name for name in arm.test.get(task, {}) if name in known[task]]
        rows = np.array([arm.test[task][name] for name in names])
        by_name = spans(over_seeds(rows), names)
        found[task] = {n: {**by_name[n], "by_seed": x} for n, x in zip(names, rows, strict=True)}
    return found


def _delta_m(results: Results, arm: ArmResult, tasks: Sequence[str]) -> dict[str, Any]:
    """Δm against each task trained alone, in both conventions, over the seeds that both have."""
    baseline = single_task(results)
    known = results.higher_is_better
    names = {
        task: [name for name in arm.test[task] if name in known[task]]
        for task in tasks
        if task in arm.test
    }
    if set(baseline) < set(tasks) or set(names) < set(tasks):
        return {}
    both = [scores[t][n] for scores in (arm.test, baseline) for t in tasks for n in names[t]]
    there = np.isfinite(both).all(axis=0)
    if not there.any():
        return {}
    values, alone = (
        {t: {n: scores[t][n][there] for n in names[t]} for t in tasks}
        for scores in (arm.test, baseline)
    )
    # What is 0 alone cannot be divided by.
    for task in tasks:
        for name in [n for n, x in alone[task].items() if np.mean(x) == 0]:
            del values[task][name], alone[task][name]
        if not alone[task]:
            return {}
    return {
        convention: _one(statistics.delta_m(values, alone, known, convention))  # type: ignore[arg-type]
        for convention in ("metrics", "tasks")
    }


def _trials(arm: ArmResult) -> list[dict[str, Any]]:
    """Every trial's validation score, and what it loses to the best one: a part of the metric."""
    found = []
    best = arm.scores.mean(axis=1).max()
    varied = {key for key in arm.arm.trials[0] if len({trial[key] for trial in arm.arm.trials}) > 1}
    short = {"learning_rate": "lr", "weight_decay": "wd"}
    for trial, scores in zip(arm.arm.trials, arm.scores, strict=True):
        named = {k: v for k, v in trial.items() if k in varied or k == "learning_rate"}
        lost = 1 - math.exp(scores.mean() - best) if np.isfinite(scores).all() else None
        found.append(
            {
                "hyperparameters": dict(trial),
                "short": ", ".join(
                    f"{short.get(k, k.rpartition('.')[2])} {v:g}" for k, v in named.items()
                ),
                **_one(np.where(np.isfinite(scores).all(), scores, np.nan)),
                "loss": lost,
            }
        )
    return found


def _along(arm: ArmResult, tasks: Sequence[str]) -> dict[str, Any]:
    """Means over a training of what was recorded along it; of residuals the largest."""
    c = arm.curves
    each = {
        "conflict_rate": c.conflict_rate,
        "cosine": pairs_mean(c.cosine),
        "magnitude_similarity": pairs_mean(magnitude_similarity(c)),
    }
    found: dict[str, Any] = {}
    for name, x in each.items():
        ends = RANGES[name.removesuffix("_similarity")]
        found[name] = {k: float(np.clip(v, *ends)) for k, v in _one(_mean(x)).items()}
    finite = c.residual[np.isfinite(c.residual)]
    found["residual"] = float(finite.max()) if finite.size else None
    found["weights"] = {task: _one(_mean(c.weights[..., i])) for i, task in enumerate(tasks)}
    return found


def _mean(x: Float[np.ndarray, "S T"]) -> Float[np.ndarray, " S"]:
    """The mean over times that have a number; NaN where none has."""
    there = np.isfinite(x)
    total = np.where(there, x, 0).sum(axis=1)
    return np.where(there.any(axis=1), total / np.maximum(there.sum(axis=1), 1), np.nan)
