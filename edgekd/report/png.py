"""Draws charts as PNG pictures with matplotlib (extra `plots`), all in one style.

It draws what a chart's table holds and nothing else; no window, no global state. Next: charts.py.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure

from edgekd.report.charts import FRONT, Chart, Row

COLOURS = ("#0069a6", "#b94a00", "#007a5a", "#8d3f8f", "#7a6000", "#555d66")  # those of the page
_MARKERS = ("o", "^", "s", "D", "v", "P")
_INK, _SOFT, _GRID, _FAILED = "#1b2126", "#59636d", "#e0e4e8", "#a3224f"
_DPI = 150
_WIDTH, _HEIGHT = 6.4, 4.2  # inches
_ROW = 0.17  # inches a row of a matrix needs for its label
_SHADES = LinearSegmentedColormap.from_list("shades", ["#f5f6f7", "#0069a6"])
_MOST_LABELLED = 20  # columns of a matrix whose cells have room for their numbers


def picture(chart: Chart) -> bytes:
    """Draw a chart and return the bytes of a PNG file."""
    rows = len(set(_row_labels(chart))) if chart.kind == "matrix" else 0
    figure = Figure(figsize=(_WIDTH, max(_HEIGHT, 1.6 + _ROW * rows)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    _style(axes)
    axes.set_title(_plain(chart.title), loc="left", color=_INK, fontsize=12, fontweight="bold")
    _DRAWERS[chart.kind](axes, chart)
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    return data.getvalue()


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_SOFT)
    axes.tick_params(colors=_SOFT, labelsize=8)
    axes.grid(axis="y", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _points(axes: Axes, chart: Chart) -> None:
    for place, (name, rows) in enumerate(_by_series(chart).items()):
        failed, rated = _failed(rows, chart)
        colour, marker = COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]
        known = [row for row in rated if row[chart.table.columns.index(chart.y)] is not None]
        shades = _numbers(known, chart, chart.shade) if chart.shade else [0.5] * len(known)
        colours = [to_rgba(colour, 0.15 + 0.75 * shade) for shade in shades]
        xs, ys = _pairs(known, chart, chart.y)
        axes.scatter(xs, ys, s=14, c=colours, marker=marker, linewidths=0)
        axes.scatter([], [], s=14, color=colour, marker=marker, linewidths=0, label=_plain(name))
        if failed:
            label = f"{_plain(name)}, failed ({len(failed)})"
            axes.scatter(*_pairs(failed, chart, chart.y), s=18, color=_FAILED, marker="x", linewidths=1, label=label)
        if chart.line and chart.line != FRONT:
            axes.plot(*_pairs(rows, chart, chart.line), color=colour, linewidth=2)
    if chart.line == FRONT:
        front = sorted(zip(*_pairs(chart.table.rows, chart, FRONT), strict=True))
        axes.step([x for x, _ in front], [y for _, y in front], where="post", color=COLOURS[2], label="Pareto front")
    _finish(axes, chart)


def _failed(rows: Sequence[Row], chart: Chart) -> tuple[list[Row], list[Row]]:
    """Part the rows into those of failed samples and the others."""
    place = chart.table.columns.index("failure") if "failure" in chart.table.columns else None
    if place is None:
        return [], list(rows)
    return [row for row in rows if row[place]], [row for row in rows if not row[place]]


def _bars(axes: Axes, chart: Chart) -> None:
    after = chart.table.columns[chart.table.columns.index(chart.x) + 1]
    for place, (name, rows) in enumerate(_by_series(chart).items()):
        lows, highs, shares = (_numbers(rows, chart, column) for column in (chart.x, after, chart.y))
        colour = COLOURS[place % len(COLOURS)]
        edges = [*lows, highs[-1]]
        axes.stairs(shares, edges, fill=place == 0, color=colour, alpha=0.45 if place == 0 else 1, label=_plain(name))
    _finish(axes, chart)


def _matrix(axes: Axes, chart: Chart) -> None:
    across, down = list(map(str, chart.table.column(chart.x))), _row_labels(chart)
    columns, rows = list(dict.fromkeys(across)), list(dict.fromkeys(down))
    cells = zip(down, across, chart.table.column(chart.shade), strict=True)
    values = {(row, column): value for row, column, value in cells if value is not None}
    grid = [[float(values.get((row, column), "nan")) for column in columns] for row in rows]
    axes.grid(visible=False)
    axes.imshow(grid, cmap=_SHADES, aspect="auto")
    axes.set_xticks(range(len(columns)), [_plain(c) for c in columns], rotation=30, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), [_plain(r) for r in rows], fontsize=6)
    if len(columns) <= _MOST_LABELLED:
        _label_cells(axes, grid)
    axes.set_xlabel(_plain(chart.label(chart.shade)), color=_SOFT, fontsize=9, loc="right")


def _row_labels(chart: Chart) -> list[str]:
    """Name the rows of a matrix by all columns between that of its columns and that of its values."""
    first, last = (chart.table.columns.index(name) for name in (chart.x, chart.shade))
    return [" ".join(map(str, row[first + 1 : last])) for row in chart.table.rows]


def _label_cells(axes: Axes, grid: Sequence[Sequence[float]]) -> None:
    known = [value for row in grid for value in row if value == value]  # noqa: PLR0124 - NaN differs from itself
    middle = (min(known) + max(known)) / 2 if known else 0.0
    whole = bool(known) and max(known) > 1
    for y, row in enumerate(grid):
        for x, value in enumerate(row):
            text = "" if value != value else f"{value:.0f}" if whole else f"{value:.3f}"  # noqa: PLR0124 - as above
            axes.text(x, y, text, ha="center", va="center", fontsize=6, color="white" if value > middle else _INK)


_DRAWERS: dict[str, Callable[[Axes, Chart], None]] = {"points": _points, "bars": _bars, "matrix": _matrix}


def _finish(axes: Axes, chart: Chart) -> None:
    for value in chart.rules_x:
        axes.axvline(value, color=_INK, linestyle="--", linewidth=1, label=f"target {value:.3g} ms")
    for value in chart.rules_y:
        axes.axhline(value, color=_INK, linestyle="--", linewidth=1, label=f"target {value:.3g} ms")
    axes.set_xlabel(_plain(chart.label(chart.x)), color=_SOFT, fontsize=9, loc="right")
    axes.set_ylabel(_plain(chart.label(chart.y)), color=_SOFT, fontsize=9, loc="top")
    figure = axes.get_figure(root=True)
    if figure is not None and axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8, labelcolor=_INK)


def _by_series(chart: Chart) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for name, row in zip(chart.table.column(chart.series), chart.table.rows, strict=True):
        found.setdefault(str(name), []).append(row)
    return found


def _numbers(rows: Sequence[Row], chart: Chart, column: str) -> list[float]:
    place = chart.table.columns.index(column)
    return [float(value) for row in rows if (value := row[place]) is not None]


def _pairs(rows: Sequence[Row], chart: Chart, column: str) -> tuple[list[float], list[float]]:
    """Give the places of those rows that have a value in the column."""
    known = [row for row in rows if row[chart.table.columns.index(column)] is not None]
    return _numbers(known, chart, chart.x), _numbers(known, chart, column)


def _plain(text: str) -> str:
    """Keep matplotlib from reading mathematics into text, and a legend from hiding it."""
    return text.replace("$", r"\$").lstrip("_") or "-"
