"""Paths of Scalable Vector Graphics (SVG), read by its own rules."""

from __future__ import annotations

import re

import numpy as np

SHAPES = {"M": (2, True), "l": (2, False), "h": (1, False), "v": (1, False)}


def loops(path: str) -> list[np.ndarray]:
    """Return the corners [x, y] of each closed loop of a path, by the rules of SVG."""
    found, point = [], np.zeros(2)
    for command, text in re.findall(r"([Mlhvz])([^Mlhvz]*)", path):
        numbers = [float(number) for number in re.findall(r"-?\d+", text)]
        if command == "z":
            assert not numbers
            continue
        count, absolute = SHAPES[command]
        assert len(numbers) == count, path
        step = {"h": lambda n: [n[0], 0], "v": lambda n: [0, n[0]]}.get(command, lambda n: n)(numbers)
        point = np.array(step) if absolute else point + step
        if absolute:
            found.append([])
        found[-1].append(point)
    assert path.count("M") == path.count("z") == len(found)
    return [np.array(loop) for loop in found]


def filled(path: str, shape: tuple[int, int]) -> np.ndarray:
    """Return which voxels' middles lie within a path, by the even-odd rule."""
    y, x = 2.0 * np.indices(shape) + 1
    inside = np.zeros(shape, bool)
    for loop in loops(path):
        for (x0, y0), (x1, y1) in zip(loop, np.roll(loop, -1, axis=0)):
            if y0 != y1:
                crosses = (y0 > y) != (y1 > y)
                inside ^= crosses & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def area(path: str) -> float:
    """Return the area in voxels; holes run the other way round and count negative."""
    total = 0.0
    for loop in loops(path):
        (x0, y0), (x1, y1) = loop.T, np.roll(loop, -1, axis=0).T
        total += float(np.sum(x0 * y1 - x1 * y0)) / 2
    return total / 4
