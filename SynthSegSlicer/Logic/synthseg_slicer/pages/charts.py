"""Distributions as small drawings in Scalable Vector Graphics (SVG)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .markup import Markup, tag

WIDTH, HEIGHT = 288.0, 30.0
"""Of a drawing, in its own units."""
_MARGIN, _BOX, _BOTTOM = 8.0, 9.0, 22.0
MOST_DOTS = 150
"""Values that are drawn one by one; of more, a histogram and the farthest of the outliers."""
_BINS = 48


def distribution(values: np.ndarray, titles: Sequence[str], far: np.ndarray, description: str) -> Markup:
    """Return a box plot (median, middle half, and what lies within 1.5 of its widths) over dots or a histogram.

    Outliers are diamonds, other values circles.

    Parameters
    ----------
    values : float array [n]
        Finite, at least one.
    titles : sequence of str
        Shown when the pointer rests on a value.
    far : bool array [n]
        Which values are outliers.
    description : str
        The drawing in words.
    """
    low, high = float(values.min()), float(values.max())
    scale = (WIDTH - 2 * _MARGIN) / ((high - low) or 1.0)
    place = np.round(_MARGIN + (values - low) * scale if high > low else np.full(len(values), WIDTH / 2), 1)
    drawn = np.arange(len(values))
    bars: list[Markup] = []
    if len(values) > MOST_DOTS:
        bars = _histogram(place)
        drawn = np.flatnonzero(far)
        drawn = np.sort(drawn[np.argsort(-np.abs(values[drawn] - np.median(values)), kind="stable")[:MOST_DOTS]])
    dots = [_dot(float(place[i]), titles[i], bool(far[i]), i) for i in sorted(drawn.tolist(), key=lambda i: far[i])]
    return tag("svg", bars, _box(place), dots, viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}", role="img", aria_label=description)


def _box(place: np.ndarray) -> list[Markup]:
    first, median, third = np.percentile(place, (25, 50, 75)).round(1).tolist()
    reach = 1.5 * (third - first)
    inside = place[(place >= first - reach) & (place <= third + reach)]
    middle = _BOX / 2 + 1
    return [
        tag("line", x1=float(inside.min()), x2=float(inside.max()), y1=middle, y2=middle),
        tag("rect", x=first, y=1, width=round(max(third - first, 0.5), 1), height=_BOX),
        tag("line", x1=median, x2=median, y1=1, y2=1 + _BOX, class_="median"),
    ]


def _histogram(place: np.ndarray) -> list[Markup]:
    counts, edges = np.histogram(place, bins=_BINS, range=(0, WIDTH))
    heights = counts / counts.max() * (HEIGHT - _BOX - 4)
    width = round(WIDTH / _BINS - 0.5, 2)
    return [
        tag("rect", x=round(x, 2), y=round(HEIGHT - h, 2), width=width, height=round(h, 2), class_="bar")
        for x, h in zip(edges.tolist(), heights.tolist())
        if h > 0
    ]


def _dot(x: float, title: str, far: bool, number: int) -> Markup:
    y = _BOTTOM + 3.5 * (number * 7 % 5 - 2) / 2  # apart, and the same in every page
    if far:
        return tag("path", tag("title", title), d=f"M{x - 4:g} {y:g}l4-4l4 4l-4 4z", class_="far")
    return tag("circle", tag("title", title), cx=x, cy=y, r=2.5)
