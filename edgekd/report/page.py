"""The frame of the report pages and the pieces they are made of: sections, tables, figures, lists of facts.

A page needs nothing else: no network, no font, no script but its own, which a content policy holds it to. Text from
files is escaped here or by the caller: parameters called `text`, `title` or `caption` are text, all others are markup.
Next: html.py (a run), compare_html.py (several); assets.py (style), script.py.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence

from edgekd.report.assets import SHAPES, STYLE
from edgekd.report.scene import Figure
from edgekd.report.script import SCRIPT
from edgekd.report.svg import element, escape


def document(title: str, *body: str) -> str:
    """Return a complete HTML document."""
    main = element("main", *body)
    return "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en">',
            _head(title),
            element("body", SHAPES, main, _tooltip(), f"<script>{SCRIPT}</script>"),
            "</html>\n",
        )
    )


def _head(title: str) -> str:
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    return "\n".join(
        (
            '<head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<link rel="icon" href="data:,">',
            element("title", escape(f"{title} · edgekd")),
            f"<style>{STYLE}</style></head>",
        )
    )


def _tooltip() -> str:
    return '<div id="tip" role="status" aria-live="polite" hidden></div>'


def notes(texts: Sequence[str]) -> str:
    """List remarks; nothing if there are none."""
    return element("ul", *(element("li", escape(text)) for text in texts), class_="notes") if texts else ""


def tile(text: str, figure: str, below: str) -> str:
    """Show one figure large, its name above and markup below."""
    number, _, unit = figure.partition(" ")
    shown = escape(number) + (f" {element('small', escape(unit))}" if unit else "")
    parts = (element("dt", escape(text)), element("dd", shown, class_="figure"), element("dd", below))
    return element("div", *parts, class_="tile card")


def figure(drawn: Figure) -> str:
    """Show a plot with its caption and legend; entries that name one class let the script toggle it."""
    entries = (
        element("li", key(shape, class_), escape(name), **({} if " " in class_ else {"data_series": class_}))
        for shape, class_, name in drawn.legend
    )
    caption = (element("h3", escape(drawn.title)), element("p", prose(drawn.insight)))
    legend = element("ul", *entries, class_="legend")
    return element("figure", element("figcaption", *caption, legend), drawn.drawing, class_="card")


def key(shape: str, class_: str) -> str:
    """Draw a mark as a legend shows it."""
    use = element("use", href=f"#{shape}", class_=f"key {shape} {class_}")
    return element("svg", use, class_="dot-key", viewBox="-8 -7 16 14", aria_hidden="true")


def facts(title: str, items: Mapping[str, str], class_: str = "card") -> str:
    """List names and their values."""
    listed = [element("dt", escape(key)) + element("dd", escape(value)) for key, value in items.items()]
    body = element("dl", *listed) if listed else element("p", "nothing recorded", class_="soft")
    return element("section", element("h3", escape(title)), body, class_=class_)


def prose(sentence: str) -> str:
    """Escape a sentence and keep its numbers and their units on one line."""
    return escape(sentence).replace(" %", "\u00a0%").replace(" ms", "\u00a0ms")


def code(arch: str) -> str:
    """Escape an architecture and let lines break behind its separators."""
    return element("code", re.sub(r"(?<=[|,/])", "<wbr>", escape(arch)))


def section(title: str, *parts: str) -> str:
    """Head a part of the page."""
    return element("section", element("h2", escape(title)), *parts)


def row_head(text: str) -> str:
    """Head a row of a table."""
    return element("th", escape(text), scope="row", class_="w")


def table(caption: str, heads: Iterable[tuple[str, str]], rows: Sequence[str], class_: str = "scroll card") -> str:
    """Show a table that scrolls by itself where it is too wide; `heads` are (text, class), rows are markup."""
    cells = (element("th", escape(name), scope="col", class_=class_) for name, class_ in heads)
    shown = element(
        "table",
        element("caption", escape(caption)) if caption else "",
        element("thead", element("tr", *cells)),
        element("tbody", *rows),
    )
    name = caption or "Comparison"
    return element("div", shown, class_=class_, tabindex="0", role="region", aria_label=name)
