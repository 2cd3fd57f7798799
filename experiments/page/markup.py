"""Pieces of HTML: numbers that carry all their digits, tables that can be sorted, figures."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

NONE = '<span class="none" title="there is none">–</span>'


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        html: what it shows.
        key: what its column is sorted by; None goes last.
        kind: a class of CSS.
    """

    html: str
    key: float | str | None = None
    kind: str = ""


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        name: its head.
        group: the head above it, shared by neighbours of the same; "" for none.
        note: what the head says on hovering.
        text: whether its cells are words.
    """

    name: str
    group: str = ""
    note: str = ""
    text: bool = False


def number(value: float | None, form: str = ".4g") -> str:
    """A number, shown in a format of Python's; with all the digits that the files have."""
    if value is None:
        return NONE
    shown = format(value, form).replace("-", "−")
    return f'<data value="{value!r}">{shown}</data>'


def mean(value: Mapping[str, Any] | None, form: str) -> str:
    """A mean with its interval, where there is one."""
    if value is None or value["mean"] is None:
        return NONE
    found = number(value["mean"], form)
    if value["low"] is None:
        return found
    return f"{found} {interval(value, form)}"


def interval(value: Mapping[str, Any], form: str) -> str:
    """The ends of an interval."""
    low, high = number(value["low"], form), number(value["high"], form)
    return f'<span class="interval">[{low}, {high}]</span>'


def mean_cell(value: Mapping[str, Any] | None, form: str, kind: str = "") -> Cell:
    """A cell with a mean and its interval, sorted by the mean."""
    return Cell(mean(value, form), value["mean"] if value else None, kind)


def number_cell(value: float | None, form: str, kind: str = "") -> Cell:
    """A cell with a number."""
    return Cell(number(value, form), value, kind)


def table(
    name: str,
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[tuple[str, Sequence[Cell]]],
    note: str,
) -> str:
    """A table in a box of its own, which scrolls where the page is narrow.

    Args:
        name: the id of the table.
        caption: of the table.
        columns: its heads; the first is that of the rows' names.
        rows: each a class and its cells, the first the row's name.
        note: how to read it, as HTML, before it.
    """
    body = []
    for kind, cells in rows:
        first, *rest = (_cell(cell, i == 0) for i, cell in enumerate(cells))
        body.append(f'<tr class="{kind}">{first}{"".join(rest)}</tr>')
    return (
        f'<p class="note">{note}</p>\n'
        f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{name}-caption">'
        f'<table id="{name}"><caption id="{name}-caption">{escape(caption)}</caption>'
        f"<thead>{_heads(columns)}</thead><tbody>\n" + "\n".join(body) + "\n</tbody></table></div>"
    )


def _cell(cell: Cell, first: bool) -> str:
    key = "" if cell.key is None else f' data-key="{escape(str(cell.key))}"'
    kind = f' class="{cell.kind}"' if cell.kind else ""
    return (
        f'<th scope="row"{key}{kind}>{cell.html}</th>'
        if first
        else (f"<td{key}{kind}>{cell.html}</td>")
    )


def _heads(columns: Sequence[Column]) -> str:
    def head(i: int, extra: str = "") -> str:
        column = columns[i]
        note = f' title="{escape(column.note)}"' if column.note else ""
        kind = ' class="name"' if i == 0 else ' class="text"' if column.text else ""
        return f'<th scope="col"{kind} data-column="{i}"{extra}{note}>{escape(column.name)}</th>'

    if not any(column.group for column in columns):
        return f"<tr>{''.join(head(i) for i in range(len(columns)))}</tr>"
    above, below, i = [], [], 0
    while i < len(columns):
        group = columns[i].group
        if not group:
            above.append(head(i, ' rowspan="2"'))
            i += 1
            continue
        wide = 0
        while i + wide < len(columns) and columns[i + wide].group == group:
            below.append(head(i + wide))
            wide += 1
        above.append(f'<th scope="colgroup" colspan="{wide}" class="group">{escape(group)}</th>')
        i += wide
    return f"<tr>{''.join(above)}</tr><tr>{''.join(below)}</tr>"


def folded(title: str, html: str) -> str:
    """What is shown only when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>\n{html}\n</details>"


def facts(items: Iterable[tuple[str, str]]) -> str:
    """Names and what they are, as a list of definitions; what they are is HTML."""
    rows = "\n".join(f"<div><dt>{escape(name)}</dt><dd>{html}</dd></div>" for name, html in items)
    return f"<dl>\n{rows}\n</dl>"


def origin(about: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Facts on where numbers come from: the command, and the versions that it ran with."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return [
        ("command", f"<code>{escape(about['command'] or '')}</code>"),
        ("versions", escape(versions)),
    ]


def figure(name: str, svg: str, caption: str) -> str:
    """A figure in a box of its own, with its caption."""
    return (
        f'<figure id="figure-{name}"><div class="scroll" tabindex="0" role="group" '
        f'aria-label="figure: {name}">{svg}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def section(name: str, title: str, parts: Iterable[str]) -> str:
    """A part of the page with a title."""
    inside = "\n".join(part for part in parts if part)
    return f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">' + (
        f"{escape(title)}</h2>\n{inside}\n</section>"
    )


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{f' class={kind!r}' if kind else ''}>{escape(text)}</p>"
