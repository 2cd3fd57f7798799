"""The page of a study's report: its sections."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from experiments.page import markup
from experiments.page.document import Section, document, figure
from experiments.page.style import Drawing
from experiments.study.report import tables
from experiments.study.report.looks import looks


def page(summary: Mapping[str, Any], cost: Mapping[str, Any], drawn: Sequence[Drawing]) -> str:
    """The page, as HTML."""
    figures = {item.name: figure(item) for item in drawn}
    answer = summary["answer"]
    return document(
        f"Study of {summary['setting']['problem']}",
        answer["question"],
        answer["text"],
        list(_sections(summary, cost, figures)),
        "Every number of this page is in <code>summary.json</code> and <code>table.csv</code>, "
        "those of cost in <code>cost.json</code> and <code>cost.csv</code>; what the figures over "
        "training draw is in <code>curves.csv</code>. The figures are in <code>figures/</code>.",
    )


def _sections(
    summary: Mapping[str, Any], cost: Mapping[str, Any], figures: Mapping[str, str]
) -> Iterator[Section]:
    """Each section that has something to show."""

    def drawn(name: str) -> str:
        return figures.get(name, "")

    kinds = {name: arm["kind"] for name, arm in summary["arms"].items()}
    of_arms = looks(kinds, [name for name in summary["order"] if kinds[name] == "method"])
    yield Section("setting", "Setting", [_setting(summary)])
    yield Section("results", "Results", [tables.results(summary, of_arms), drawn("differences")])
    front = [drawn("front"), tables.front(summary)]
    if any(front):
        yield Section("front", "The front of static weights", front)
    yield Section("training", "Training", [drawn("training")])
    conflict = [drawn("conflict"), tables.along(summary, of_arms)]
    yield Section("conflict", "Conflict along the way", conflict)
    if drawn("weights") or drawn("residuals"):
        yield Section("weights", "Weights along the way", [drawn("weights"), drawn("residuals")])
    if drawn("profile"):
        yield Section("profile", "Performance profile", [drawn("profile")])
    yield Section("cost", "Cost", [drawn("cost"), tables.cost(cost)])
    tuning = [drawn("sensitivity"), tables.trials(summary)]
    yield Section("sensitivity", "Sensitivity to tuning", tuning)


def _setting(summary: Mapping[str, Any]) -> str:
    setting = summary["setting"]
    trials = setting["trials"]
    least, most = (markup.number(trials[key], "d") for key in ("least", "most"))
    budget = (
        f"{most} for every arm"
        if trials["least"] == trials["most"]
        else f"{least} to {most}: the budgets are not equal"
    )
    tasks = "; ".join(
        f"{escape(task)} ({escape(about['metric'])}, "
        f"{'higher' if about['higher_is_better'] else 'lower'} is better)"
        for task, about in summary["tasks"].items()
    )
    options = ", ".join(f"{k} {v}" for k, v in setting["encoder_options"].items())
    heads = ", ".join(f"{k} {v}" for k, v in setting["head_options"].items())
    ways = [f"{k} {v}" for k, v in setting["sharing_options"].items()]
    shared = ", ".join([f"{setting['sharing']} sharing", *ways])
    rates = "".join(
        f"; rates × {markup.number(factor, 'g')} from step {markup.number(step, ',d')} on"
        for step, factor in setting["schedule"]
    )
    examples = ", ".join(
        f"{markup.number(n, ',d')} {escape(split)}" for split, n in setting["examples"].items()
    )
    seeds = ", ".join(map(str, setting["seeds"]))

    def whole(name: str) -> str:
        return markup.number(setting[name], ",d")

    return markup.facts(
        (name, html)
        for name, html in (
            ("problem", escape(setting["problem"])),
            ("protocol", escape(setting["protocol"])),
            ("tasks", tasks),
            ("examples", examples),
            ("arms", f"{whole('arms')}, {whole('trainings')} trainings"),
            ("seeds", f"{markup.number(len(setting['seeds']), 'd')}: {escape(seeds)}"),
            ("trials", budget),
            ("selection", escape(setting["rule"])),
            (
                "training",
                f"{whole('steps')} steps of {escape(setting['optimizer'])} on batches of "
                f"{whole('batch_size')}, a look at the validation split every "
                f"{whole('evaluate_every')}"
                + rates
                + (
                    "; methods' updates have the norm of the equal-weights gradient"
                    if setting["norm_matched"]
                    else ""
                ),
            ),
            (
                "model",
                escape(", ".join(x for x in (setting["encoder"], options, heads, shared) if x)),
            ),
            ("failed", f"{whole('failed')} of the trainings below stopped being finite"),
            ("not served", "<br>".join(map(escape, setting["not_served"]))),
            *markup.origin(setting),
            ("device", escape(setting["device"] or "")),
        )
        if html
    )
