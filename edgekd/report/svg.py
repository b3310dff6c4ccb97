"""A few pieces of inline SVG: linear scales with round ticks, axes, rules, lines and marks.

Every function returns markup as text; colours come from the page's style sheet through class names. It is no plotting
library: one size, linear axes, two dimensions. Zooming is the page's script's (script.py), which reads the scales from
a plot's attributes. Next: plots.py, which composes the plots of the report.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 480, 320  # user units; about the size a plot has on a page of two columns, so text keeps its size
LEFT, RIGHT, TOP, BOTTOM = 46, 466, 30, 276  # of the plot area: tick labels stand left and below, the y title above
SIDE_LABELS = 56  # room at the right of the area that plots with labels at their lines' ends leave free
LABEL_GAP = 16  # least distance of the base lines of two direct labels


@dataclass(frozen=True)
class Scale:
    """A linear map of the data range [low, high] to the pixel range [start, end]; `at` and `invert` are inverse."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Map a value to its place."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def invert(self, place: float) -> float:
        """Map a place back to its value."""
        return self.low + (place - self.start) / (self.end - self.start) * (self.high - self.low)


@dataclass(frozen=True)
class Axis:
    """A scale with its title, unit included."""

    scale: Scale
    title: str


@dataclass(frozen=True)
class Layers:
    """What a plot draws: the axes, the data inside their area, and labels above all.

    The script of the page lets a user zoom into a plot with `zooms`.
    """

    x: Axis
    y: Axis
    area: str
    labels: str = ""
    zooms: bool = True


def horizontal(low: float, high: float, title: str, room: float = 0) -> Axis:
    """Make the x axis of a plot for data in [low, high], with room for labels at its right."""
    return Axis(Scale(low, high, LEFT, RIGHT - room), title)


def vertical(low: float, high: float, title: str) -> Axis:
    """Make the y axis of a plot for data in [low, high]; larger values stand higher."""
    return Axis(Scale(low, high, BOTTOM, TOP), title)


def padded(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """Return a range that holds all values with some air; it has a width even for one value or none."""
    known = list(values) or [0.0]
    low, high = min(known), max(known)
    if low == high == 0:
        return 0.0, 1.0
    air = max((high - low) * share, abs(high) * 0.02, abs(low) * 0.02)
    # data that are nowhere negative get no negative axis
    return (low - air if low < 0 else max(0.0, low - air)), high + air


def nice_step(span: float, count: int) -> float:
    """Return the smallest of 1, 2, 5 times 10^k that divides a span into at most `count` parts."""
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power >= raw * (1 - 1e-9))


def ticks(low: float, high: float, count: int = 6) -> tuple[float, ...]:
    """Return the round values in [low, high], evenly apart, `count` + 1 at most."""
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(place * step for place in range(first, last + 1))


def tick_labels(values: Sequence[float]) -> tuple[str, ...]:
    """Word ticks with the same number of decimals: as few as tell them apart and show them exactly."""
    step = min((b - a for a, b in itertools.pairwise(values)), default=abs(values[0]) if values else 1.0)
    decimals = min(15, max(0, -math.floor(math.log10(step) + 1e-9))) if step > 0 else 0
    return tuple(f"{value + 0.0:.{decimals}f}" for value in values)


def element(name: str, *children: str, **attributes: str | float) -> str:
    """Write one element; attribute `class_` is class and `data_s` is data-s, numbers get one decimal.

    Attributes are escaped here; children are markup, so escape their text with `escape`.
    """
    written = "".join(f' {_attribute_name(key)}="{_attribute(value)}"' for key, value in attributes.items())
    return f"<{name}{written}>{''.join(children)}</{name}>"


def escape(text: str) -> str:
    """Escape text for HTML content and quoted attributes."""
    return html.escape(text, quote=True)


def label(x: float, y: float, text: str, class_: str = "label", anchor: str = "start") -> str:
    """Write text at a place."""
    return element("text", escape(text), x=x, y=y, class_=class_, text_anchor=anchor)


def path(points: Sequence[tuple[float, float]], class_: str) -> str:
    """Draw a line through points."""
    if not points:
        return ""
    return element("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), class_=class_)


def staircase(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Insert corners so that each height holds until the next point."""
    corners = [(after[0], before[1]) for before, after in itertools.pairwise(points)]
    return [p for pair in zip(points, [*corners, points[-1]], strict=True) for p in pair] if points else []


def thinned(points: Sequence[tuple[float, float]], step: float = 0.4) -> list[tuple[float, float]]:
    """Leave out points of a line that are less than `step` user units right of the last one kept; ends are kept."""
    kept: list[tuple[float, float]] = []
    for point in points:
        if not kept or point[0] - kept[-1][0] >= step:
            kept.append(point)
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]


def corners(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Leave out points of a staircase that lie between two of the same height."""
    inner = [b for a, b, c in zip(line, line[1:], line[2:], strict=False) if not a[1] == b[1] == c[1]]
    return [*line[:1], *inner, *line[1:][-1:]]


def mark(shape: str, place: tuple[float, float], key: str, title: str) -> str:
    """Draw one sample: a shape of the page's definitions with its tooltip."""
    return element(
        "use", element("title", escape(title)), href=f"#{shape}", x=place[0], y=place[1], class_="mark", data_s=key
    )


def axes(x: Axis, y: Axis) -> str:
    """Draw grid, tick labels and titles: the x title below at the right, the y title above at the left."""
    parts, right = [], x.scale.end
    values = ticks(x.scale.low, x.scale.high)
    for value, text in zip(values, tick_labels(values), strict=True):
        at = x.scale.at(value)
        parts.append(element("line", x1=at, x2=at, y1=BOTTOM, y2=BOTTOM + 4, class_="tick"))
        parts.append(label(at, BOTTOM + 18, text, "x-tick", "middle"))
    values = ticks(y.scale.low, y.scale.high)
    for value, text in zip(values, tick_labels(values), strict=True):
        at = y.scale.at(value)
        parts.append(element("line", x1=LEFT, x2=right, y1=at, y2=at, class_="grid"))
        parts.append(label(LEFT - 7, at + 4, text, "y-tick", "end"))
    parts.append(element("line", x1=LEFT, x2=right, y1=BOTTOM, y2=BOTTOM, class_="axis"))
    parts.append(label(right, HEIGHT - 8, x.title, "axis-title", "end"))
    parts.append(label(2, 14, y.title, "axis-title"))
    return element("g", *parts, class_="axes")


def target_x(x: Axis, value: float) -> str:
    """Draw a vertical target line; what lies right of it, too slow, is shaded."""
    at, right = x.scale.at(value), x.scale.end
    return "".join(
        (
            element("rect", x=at, y=TOP, width=max(0.0, right - at), height=BOTTOM - TOP, class_="over"),
            element("line", x1=at, x2=at, y1=TOP - 4, y2=BOTTOM, class_="target"),
        )
    )


def target_y(x: Axis, y: Axis, value: float) -> str:
    """Draw a horizontal target line; what lies above it, too slow, is shaded."""
    at, right = y.scale.at(value), x.scale.end
    return "".join(
        (
            element("rect", x=LEFT, y=TOP, width=right - LEFT, height=max(0.0, at - TOP), class_="over"),
            element("line", x1=LEFT, x2=right + 4, y1=at, y2=at, class_="target"),
        )
    )


def rule_x(x: Axis, value: float) -> str:
    """Draw a vertical line."""
    at = x.scale.at(value)
    return element("line", x1=at, x2=at, y1=TOP, y2=BOTTOM, class_="rule")


def rule_y(x: Axis, y: Axis, value: float) -> str:
    """Draw a horizontal line."""
    at = y.scale.at(value)
    return element("line", x1=LEFT, x2=x.scale.end, y1=at, y2=at, class_="rule")


def rule_label(x: Axis, value: float, text: str, y: float) -> str:
    """Label a vertical line at a height, on the side that has room."""
    at = x.scale.at(value)
    side, shift = ("end", -6) if at > (LEFT + RIGHT) / 2 else ("start", 6)
    return label(at + shift, y, text, "label", side)


def side_labels(x: Axis, ends: Sequence[tuple[float, str, str]]) -> str:
    """Label lines right of the area, given (y, text, class); labels that would touch are moved apart."""
    parts: list[str] = []
    lowest = -math.inf
    for y, text, class_ in sorted(ends):
        lowest = max(y + 4, lowest + LABEL_GAP)
        parts.append(label(x.scale.end + 8, lowest, text, f"label {class_}".strip()))
    return "".join(parts)


def plot(key: str, title: str, description: str, layers: Layers) -> str:
    """Wrap the layers of a plot; `key` names it on the page, the description is for those who cannot see it."""
    x, y = layers.x.scale, layers.y.scale
    box: dict[str, float] = {"x": x.start, "y": y.end, "width": x.end - x.start, "height": y.start - y.end}
    view = " ".join(f"{value:g}" for value in box.values())  # its own coordinates are those of the plot
    scales = {"data_x": _scale_text(x), "data_y": _scale_text(y)} if layers.zooms else {}
    return element(
        "svg",
        element("title", escape(title), id=f"{key}-title"),
        element("desc", escape(description), id=f"{key}-desc"),
        axes(layers.x, layers.y),
        element("svg", layers.area, class_="area", viewBox=view, **box),
        element("g", layers.labels, class_="labels"),
        element("circle", r=8, class_="halo"),
        id=key,
        class_="plot",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        aria_labelledby=f"{key}-title {key}-desc",
        **scales,
    )


def _scale_text(scale: Scale) -> str:
    return f"{scale.low:.9g} {scale.high:.9g} {scale.start:g} {scale.end:g}"


Place = Callable[[float, float], tuple[float, float]]


def place_of(x: Axis, y: Axis) -> Place:
    """Return the map of a data point to its place in a plot."""
    return lambda first, second: (x.scale.at(first), y.scale.at(second))


def _attribute_name(key: str) -> str:
    if key in ("viewBox", "preserveAspectRatio"):
        return key
    return key.rstrip("_").replace("_", "-")


def _attribute(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
