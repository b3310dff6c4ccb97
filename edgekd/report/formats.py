"""Words numbers for people: three significant digits, units with a space, a dash for what is not known.

One place, so that the page and the terminal say the same. Next: text.py.
"""

from __future__ import annotations

import math

DASH = "\N{EN DASH}"


def ms(value: float | None) -> str:
    """Word a duration given in ms with at least three significant digits: 0.123, 12.3, 1234; without the unit."""
    if value is None:
        return DASH
    rounded = float(f"{value:.3g}")
    decimals = 0 if rounded <= 0 else min(6, max(0, 2 - math.floor(math.log10(rounded))))
    return f"{value:.{decimals}f}"


def percent(fraction: float | None) -> str:
    """Word a fraction from 0 to 1 as percent with one decimal: 87.6 %."""
    return DASH if fraction is None else f"{100 * fraction:.1f} %"


def share(part: int, whole: int) -> str:
    """Word part of whole in whole percent: 42 %; a dash of nothing."""
    return DASH if whole == 0 else f"{100 * part / whole:.0f} %"


def size(size_bytes: int | None) -> str:
    """Word a size with a decimal prefix: 512 B, 123 kB, 4.56 MB."""
    return DASH if size_bytes is None else scaled(size_bytes, ("B", "kB", "MB", "GB", "TB"))


def count(number: int | None) -> str:
    """Word a large count with a prefix: 512, 123 k, 4.56 M."""
    return DASH if number is None else scaled(number, ("", "k", "M", "G", "T")).strip()


def scaled(number: int, units: tuple[str, ...]) -> str:
    """Word a number with the unit, each 1,000 times the last, that leaves it below 1,000 if there is one."""
    value, place = float(number), 0
    while value >= 999.5 and place < len(units) - 1:
        value, place = value / 1000, place + 1
    digits = str(number) if place == 0 else ms(value)
    return f"{digits} {units[place]}"


def seconds(value: float) -> str:
    """Word a duration given in seconds: 0.42 s, 42 s, 12 min 5 s, 3 h 20 min."""
    if value < 10:
        return f"{value:.2g} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def against(value: float, target: float) -> str:
    """Word how far a value is below or above a target: 18 % below, less than 1 % above, exactly at."""
    if value == target:
        return "exactly at"
    change = 100 * abs(value / target - 1)
    amount = f"{change:.0f} %" if change >= 1 else "less than 1 %"
    return f"{amount} {'below' if value < target else 'above'}"
