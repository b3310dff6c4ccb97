"""A strict reader of the report pages, for tests that look at what a reader sees."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "br", "wbr"}


@dataclass
class Node:
    """One element of the page."""

    tag: str
    attributes: dict[str, str]
    parent: Node | None
    children: list[Node] = field(default_factory=list)
    text: str = ""

    def all(self, tag: str = "", class_: str = "") -> list[Node]:
        """List elements below this one by tag and class."""
        found = [c for c in self.children if tag in {"", c.tag} and (not class_ or class_ in c.classes)]
        return found + [n for c in self.children for n in c.all(tag, class_)]

    def by_id(self, name: str) -> Node:
        """Return the one element of this id."""
        (found,) = [n for n in self.all() if n.attributes.get("id") == name]
        return found

    @property
    def classes(self) -> list[str]:
        """List the classes."""
        return self.attributes.get("class", "").split()

    def number(self, name: str) -> float:
        """Return a numeric attribute."""
        return float(self.attributes[name])


class Page(HTMLParser):
    """A strict reader of the page: every element must be closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.root = self.open = Node("", {}, None)
        self.feed(page)
        self.close()
        assert self.open is self.root, f"<{self.open.tag}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element; a void one is closed at once."""
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        node = Node(tag, {name: value or "" for name, value in attrs}, self.open)
        self.open.children.append(node)
        if tag not in VOID:
            self.open = node

    def handle_endtag(self, tag: str) -> None:
        """Close the open element, which must be this one."""
        assert self.open.tag == tag, f"</{tag}> closes <{self.open.tag}>"
        assert self.open.parent is not None
        self.open = self.open.parent

    def handle_data(self, data: str) -> None:
        """Give text to the open element."""
        self.open.text += data
