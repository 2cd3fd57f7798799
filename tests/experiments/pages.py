"""Pages of reports, parsed: what is wrong with their form, and numbers that no file has."""

import csv
import html.parser
import io
import re

import pytest


class Page(html.parser.HTMLParser):
    """A page's elements, and what is wrong with its nesting."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.elements = [], [], []
        self.data, self.cells, self.rows, self.text = [], [], [], []
        self.feed(text)
        self.close()
        self.wrong += self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "data":
            self.data.append([dict(attributes)["value"], ""])
        if tag == "table":
            self.rows.append([])
        if tag == "th" and dict(attributes).get("scope") == "row":
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, text):
        if "data" in self.open:
            self.data[-1][1] += text
        elif "td" in self.open:
            self.cells.append(text)
        elif "th" in self.open and "tbody" in self.open and "span" not in self.open:
            self.rows[-1][-1] += text
        if not {"style", "script"} & set(self.open):
            self.text.append(text)

    def of(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


def check_form(text):
    """A page is well formed, needs nothing else, and shows no words for missing numbers."""
    page = Page(text)
    assert page.wrong == []
    assert not re.findall(r"https?:|//[a-z]|@import|<link|<img|\bsrc=", text)
    assert set(re.findall(r"url\((.)", text)) <= {"#"}
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"] for a in page.of("a", "use")} | set(re.findall(r"url\((#[^)]*)\)", text))
    assert targets <= {f"#{name}" for name in ids}
    assert page.elements[0] == ("html", {"lang": "en"})
    assert [tag for tag, _ in page.elements if tag in ("h1", "h2", "h3")][:2] == ["h1", "h2"]
    assert "viewport" in {a.get("name") for a in page.of("meta")}
    assert not re.search(r"\b(nan|None|inf)\b", "".join(page.text))


def check_numbers(page, found, tables, counts=()):
    """Every number of a page is in its JSON and in its CSV, and is shown as it is there.

    Args:
        page: parsed.
        found: what the JSON files hold.
        tables: the texts of the CSV files.
        counts: numbers that the JSON need not have.
    """

    def leaves(x):
        children = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
        return {x} if isinstance(x, int | float) else set().union(*map(leaves, children))

    in_json = leaves(found)
    in_csv = {
        float(cell)
        for text in tables
        for row in csv.reader(io.StringIO(text))
        for cell in row
        if re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?", cell)
    }
    for value, shown in page.data:
        assert float(value) in in_csv
        assert float(value) in in_json or float(value) in counts
        digits = shown.replace("−", "-").replace(",", "")
        shown = float(digits.rstrip("%")) / (100 if digits.endswith("%") else 1)
        assert shown == pytest.approx(float(value), rel=0.06, abs=6e-3)
    # What is not marked as a number has no digits.
    assert not [text for text in page.cells if re.search(r"\d", text)]
