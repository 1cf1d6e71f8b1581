"""Colours of outlines that can be seen on a scan."""

from __future__ import annotations

from collections.abc import Sequence

LEAST_LUMINANCE = 0.175
"""Of an outline: a contrast of 4.5 against black (WCAG 2.1), and most of a brain's border lies on dark fluid."""


def visible(color: Sequence[int]) -> str:
    """Return a colour as ``#rrggbb``, mixed with as much white as it needs to be seen on black.

    Parameters
    ----------
    color : sequence of int
        Red, green, blue in 0-255.
    """
    for white in range(0, 101, 5):
        mixed = [round(value + (255 - value) * white / 100) for value in color]
        if luminance(mixed) >= LEAST_LUMINANCE:
            break
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def luminance(color: Sequence[int]) -> float:
    """Return the relative luminance of an sRGB colour, 0 to 1 (WCAG 2.1)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (value / 255 for value in color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
