"""The page of a report: one HTML file that needs nothing else."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from experiments.study.report import markup, tables
from experiments.study.report.style import Drawing, css_variables, inline_svg, looks


def page(summary: Mapping[str, Any], cost: Mapping[str, Any], drawn: Sequence[Drawing]) -> str:
    """The page, as HTML."""
    figures = {
        item.name: markup.figure(item.name, inline_svg(item), item.caption) for item in drawn
    }
    problem = escape(summary["setting"]["problem"])
    sections = list(_sections(summary, cost, figures))
    contents = "".join(
        f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in sections
    )
    here = Path(__file__)
    style, script = (here.with_name(f"page.{kind}").read_text() for kind in ("css", "js"))
    colours = (
        f":root {{ color-scheme: light dark; {css_variables(dark=False)} --link: #0b5cad; "
        "--shade: #f3f5f8; --better: #e0f2ea; --worse: #fbe6dc; }\n"
        "@media (prefers-color-scheme: dark) { :root { "
        f"{css_variables(dark=True)} --link: #7ab8f5; --shade: #1f252c; --better: #173a2e; "
        "--worse: #46281a; } }\n"
    )
    answer = "\n".join(markup.paragraph(text) for text in summary["answer"]["text"])
    body = "\n".join(markup.section(*item) for item in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Study of {problem}</title>
<style>
{colours}{style}</style>
</head>
<body>
<header>
<h1>Study of {problem}</h1>
{markup.paragraph(summary["answer"]["question"], "question")}
<div class="answer">
{answer}
</div>
</header>
<nav aria-label="contents"><ol>{contents}</ol></nav>
<main>
{body}
</main>
<footer>
<h2>Files</h2>
<p>Every number of this page is in <code>summary.json</code> and <code>table.csv</code>, those of
cost in <code>cost.json</code> and <code>cost.csv</code>; what the figures over training draw is in
<code>curves.csv</code>. The figures are in <code>figures/</code>.</p>
</footer>
<script>
{script}</script>
</body>
</html>
"""


def _sections(
    summary: Mapping[str, Any], cost: Mapping[str, Any], figures: Mapping[str, str]
) -> Iterator[tuple[str, str, list[str]]]:
    """Name, title and parts of each section that has something to show."""

    def figure(name: str) -> str:
        return figures.get(name, "")

    kinds = {name: arm["kind"] for name, arm in summary["arms"].items()}
    of_arms = looks(kinds, [name for name in summary["order"] if kinds[name] == "method"])
    yield "setting", "Setting", [_setting(summary)]
    yield "results", "Results", [tables.results(summary, of_arms), figure("differences")]
    front = [figure("front"), tables.front(summary)]
    if any(front):
        yield "front", "The front of static weights", front
    yield "training", "Training", [figure("training")]
    conflict = [figure("conflict"), tables.along(summary, of_arms)]
    yield "conflict", "Conflict along the way", conflict
    if figure("weights") or figure("residuals"):
        yield "weights", "Weights along the way", [figure("weights"), figure("residuals")]
    if figure("profile"):
        yield "profile", "Performance profile", [figure("profile")]
    yield "cost", "Cost", [figure("cost"), tables.cost(cost)]
    tuning = [figure("sensitivity"), tables.trials(summary)]
    yield "sensitivity", "Sensitivity to tuning", tuning


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
    versions = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
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
                + (
                    "; methods' updates have the norm of the equal-weights gradient"
                    if setting["norm_matched"]
                    else ""
                ),
            ),
            ("model", escape(", ".join(x for x in (setting["encoder"], options, heads) if x))),
            ("failed", f"{whole('failed')} of the trainings below stopped being finite"),
            ("not served", "<br>".join(map(escape, setting["not_served"]))),
            ("command", f"<code>{escape(setting['command'] or '')}</code>"),
            ("versions", escape(versions)),
            ("device", escape(setting["device"] or "")),
        )
        if html
    )
