"""A page: what was asked, what was found in sentences, then sections of tables and figures."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from experiments.page import markup
from experiments.page.style import Drawing, css_variables, inline_svg


class Section(NamedTuple):
    """A part of a page with a title.

    Attributes:
        name: its id.
        title: of its head and in the contents.
        parts: of HTML; empty ones are left out.
    """

    name: str
    title: str
    parts: Sequence[str]


def document(
    title: str, question: str, answer: Sequence[str], sections: Sequence[Section], files: str
) -> str:
    """A page as one HTML file that needs nothing else.

    Args:
        title: of the page.
        question: what was asked.
        answer: in sentences.
        sections: in their order.
        files: where its numbers are, as HTML.
    """
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
    said = "\n".join(markup.paragraph(text) for text in answer)
    body = "\n".join(markup.section(*section) for section in sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{colours}{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
{markup.paragraph(question, "question")}
<div class="answer">
{said}
</div>
</header>
<nav aria-label="contents"><ol>{contents}</ol></nav>
<main>
{body}
</main>
<footer>
<h2>Files</h2>
<p>{files}</p>
</footer>
<script>
{script}</script>
</body>
</html>
"""


def figure(drawing: Drawing) -> str:
    """A figure with its caption, as HTML."""
    return markup.figure(drawing.name, inline_svg(drawing), drawing.caption)
