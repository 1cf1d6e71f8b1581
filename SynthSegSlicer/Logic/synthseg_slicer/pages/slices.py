"""Slices of a scan in three planes, with outlines of what was found, as figures of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..conform import reorient
from ..planes import PLANES, Plane, labelled_box, spread, window
from .markup import Markup, tag
from .outlines import outlines
from .png import data_uri

SLICES, FEWEST_SLICES = 36, 10
"""Of each plane at most, 4 to 5 mm apart in a brain; at least."""
PIXEL_MM = 0.8
"""Finer voxels are averaged to about this size in the picture, not in the outlines."""
SIZE = 1_700_000
"""Of all slices of a plane at most, in pixels: finer scans have fewer slices, which keeps pages below 5 MB."""
PRINTED = 6
"""Of each plane on paper."""
BRIGHTEST = 0.85
"""Grey of the brightest tissue, so that light outlines can be seen on it."""

_WAYS = ("RL", "AP", "SI")
"""Both ways along each world axis, the positive one first; this one is at the left or on top of a picture."""
_LETTER_MM = 9.0


@dataclass(frozen=True, eq=False)
class Layer:
    """Labels that are drawn together.

    Attributes
    ----------
    name : str
        What they are called in the page and the class of their drawings: ``structures``, ``lesions``.
    ids : int array [x, y, z]
        0 is background.
    names : mapping
        Every id to its name, in the order of drawing: where outlines lie upon each other, the last one is seen.
    """

    name: str
    ids: np.ndarray
    names: Mapping[int, str]

    def key(self, label: int) -> str:
        """Return the class of a label's outlines."""
        return f"{self.name}-{label}"


@dataclass(frozen=True, eq=False)
class Pictures:
    """All slices.

    Attributes
    ----------
    sections : list of Markup
        One a plane, its slices from left, back or bottom.
    best : dict
        Class of a label's outlines to the number of the slice, in each plane, that shows most of it; without labels
        that no slice shows.
    """

    sections: list[Markup]
    best: dict[str, tuple[int, ...]]


def pictures(
    image: np.ndarray,
    affine: np.ndarray,
    layers: Sequence[Layer],
    *,
    region: np.ndarray,
    paper: np.ndarray | None = None,
    always: Sequence[Sequence[float]] = (),
) -> Pictures:
    """Picture a scan in three planes, in radiological orientation.

    Parameters
    ----------
    image : array [x, y, z]
    affine : array [4, 4]
        Voxel index to RAS+ world in mm, in any axis order.
    layers : sequence of Layer
        On the same grid, from bottom to top.
    region : bool array [x, y, z]
        What is to be seen: slices are spread evenly through it, and a little is shown around it. All if it is empty.
    paper : bool array [x, y, z], optional
        What those slices are spread through that are printed; by default, and if it is empty, the region.
    always : sequence of points
        World mm; slices through them are among the slices, and those through the first one are shown first.
    """
    image, ras = reorient(image, affine)
    layers = [Layer(layer.name, reorient(layer.ids, affine)[0], layer.names) for layer in layers]
    region, _ = reorient(region, affine)
    paper = reorient(paper, affine)[0] if paper is not None and paper.any() else region
    spacing = np.linalg.norm(ras[:3, :3], axis=0)
    box = labelled_box(region, spacing)
    extent, focus = (labelled_box(one, spacing, margin=0.0) for one in (region, paper))
    inside = [Layer(layer.name, layer.ids[box], layer.names) for layer in layers]
    view = _View(_grey(image[box], region[box]), inside, spacing)
    points = [np.linalg.inv(ras) @ [*point, 1] for point in always]
    sections, best, numbers = [], [], []
    for plane in PLANES:
        axis = plane.normal
        start, stop = box[axis].start, box[axis].stop
        most = int(np.clip(SIZE // view.size(plane), FEWEST_SLICES, SLICES))
        chosen = {int(np.clip(round(point[axis]), start, stop - 1)) for point in points}
        chosen = sorted(chosen.union(spread(extent[axis], most)))
        printed = {_nearest(chosen, index) for index in spread(focus[axis], PRINTED)}
        figures, areas = [], []
        for number, index in enumerate(chosen):
            place = _place(ras, image.shape, axis, index)
            picture, found = view.slice(plane, index - start, place)
            # where the other planes' pictures show this slice: mm from their left edge or their top
            distance = round(float((stop - index - 0.5) * spacing[axis]), 2)
            shape = {"class_": "printed" if number in printed else None, "data_mm": distance}
            figures.append(tag("figure", picture, tag("figcaption", place), **shape))
            areas.append(found)
        middle = points[0][axis] if points else (focus[axis].start + focus[axis].stop) / 2
        sections.append(_section(plane, figures, _nearest(chosen, middle)))
        best.append({key: max(range(len(areas)), key=lambda n: areas[n].get(key, 0)) for key in set().union(*areas)})
        numbers.append(chosen)
    return Pictures(sections, _best(best, numbers, layers))


@dataclass(frozen=True, eq=False)
class _View:
    """What is to be seen: the box around the region.

    Attributes
    ----------
    grey : uint8 array [x, y, z]
    layers : sequence of Layer
        In the box.
    spacing : array [3]
        mm.
    """

    grey: np.ndarray
    layers: Sequence[Layer]
    spacing: np.ndarray

    def size(self, plane: Plane) -> float:
        """Return the size of a slice as :data:`SIZE` counts it: the geometric mean of its voxels and its pixels.

        Outlines grow with the number of voxels along an edge, the picture with that of its pixels.
        """
        voxels = self.grey.size / self.grey.shape[plane.normal]
        return voxels / math.sqrt(math.prod(self._merged(plane)))

    def slice(self, plane: Plane, index: int, place: str) -> tuple[Markup, dict[str, int]]:
        """Return a slice in mm (picture, outlines, letters at the edges), and the voxels of each label by its class."""
        grey = _slice(self.grey, plane, index)
        pixel = float(self.spacing[plane.across]), float(self.spacing[plane.down])
        width, height = (round(count * size, 3) for count, size in zip(grey.shape[::-1], pixel))
        merged = self._merged(plane)
        picture = _averaged(grey, merged)
        wide, high = (
            round(count * many * size, 3) for count, many, size in zip(picture.shape[::-1], merged[::-1], pixel)
        )
        scale = "scale({:.6g} {:.6g})".format(*(size / 2 for size in pixel))
        groups, contents, areas = [], [], {}
        for layer in self.layers:
            ids = _slice(layer.ids, plane, index)
            found = outlines(ids)
            areas |= {layer.key(label): int(np.count_nonzero(ids == label)) for label in found}
            contents.append(f"{len(found)} {layer.name if len(found) != 1 else layer.name.removesuffix('s')}")
            paths = (
                tag("path", tag("title", name), class_=layer.key(label), d=found[label])
                for label, name in layer.names.items()
                if label in found
            )
            groups.append(tag("g", paths, class_=layer.name, transform=scale))
        svg = tag(
            "svg",
            tag("image", href=data_uri(picture), width=wide, height=high, preserveAspectRatio="none"),
            groups,
            _letters(plane, width, height),
            viewBox=f"0 0 {width} {height}",
            role="img",
            aria_label=f"{plane.name.capitalize()} slice at {place} with outlines of {' and '.join(contents)}",
        )
        return svg, areas

    def _merged(self, plane: Plane) -> tuple[int, int]:
        """Return how many voxels down and across become one pixel of the picture; outlines keep every voxel."""
        return tuple(max(1, round(PIXEL_MM / float(self.spacing[axis]))) for axis in (plane.down, plane.across))


def _best(
    most: Sequence[Mapping[str, int]], numbers: Sequence[Sequence[int]], layers: Sequence[Layer]
) -> dict[str, tuple[int, ...]]:
    """Return where to find each label; in planes whose slices all miss it, the slice next to its middle."""
    best = {}
    for layer in layers:
        for label in layer.names:
            key = layer.key(label)
            if not any(key in one for one in most):
                continue
            where = [one.get(key) for one in most]
            if None in where:
                box = labelled_box(layer.ids == label, np.ones(3), 0.0)
                for number, plane in enumerate(PLANES):
                    if where[number] is None:
                        extent = box[plane.normal]
                        where[number] = _nearest(numbers[number], (extent.start + extent.stop - 1) / 2)
            best[key] = tuple(where)
    return best


def _grey(image: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """Return intensities as uint8."""
    low, high = window(image, tissue)
    scale = np.float32(255 * BRIGHTEST / (high - low))
    return np.clip((image.astype(np.float32) - np.float32(low)) * scale, 0, 255).astype(np.uint8)


def _nearest(chosen: Sequence[int], index: float) -> int:
    """Return the number of the chosen slice nearest to a voxel index."""
    return min(range(len(chosen)), key=lambda number: abs(chosen[number] - index))


def _slice(array: np.ndarray, plane: Plane, index: int) -> np.ndarray:
    """Return a slice as it lies in the picture, [rows, columns]; both axes run backwards."""
    one = np.take(array, index, axis=plane.normal)  # the other axes in ascending order: across, then down
    return one.T[::-1, ::-1]


def _place(affine: np.ndarray, shape: Sequence[int], axis: int, index: int) -> str:
    """Return where a slice lies: the world coordinate of its middle along the axis, such as ``S 12 mm``."""
    middle = [(n - 1) / 2 for n in shape]
    middle[axis] = index
    coordinate = round(float((affine @ [*middle, 1])[axis]))
    return f"{_WAYS[axis][coordinate < 0]} {abs(coordinate)} mm"


def _averaged(picture: np.ndarray, merged: tuple[int, int]) -> np.ndarray:
    """Return the mean of each block of pixels; at the lower and the right end the last ones repeat to fill it."""
    if merged == (1, 1):
        return picture
    beyond = [(0, -count % many) for count, many in zip(picture.shape, merged)]
    padded = np.pad(picture, beyond, mode="edge")
    blocks = padded.reshape(padded.shape[0] // merged[0], merged[0], padded.shape[1] // merged[1], merged[1])
    return np.rint(blocks.mean((1, 3))).astype(np.uint8)


def _letters(plane: Plane, width: float, height: float) -> list[Markup]:
    """Return the letters at the four edges."""
    left, right = _WAYS[plane.across]
    top, bottom = _WAYS[plane.down]
    places = (
        (left, 2, height / 2, "start"),
        (right, width - 2, height / 2, "end"),
        (top, width / 2, _LETTER_MM, "middle"),
        (bottom, width / 2, height - 2, "middle"),
    )
    return [tag("text", letter, x=round(x, 1), y=round(y, 1), text_anchor=anchor) for letter, x, y, anchor in places]


def _section(plane: Plane, figures: Sequence[Markup], first: int) -> Markup:
    """Return the slices of a plane with the slider that goes through them."""
    slider = tag(
        "input",
        type="range",
        id=f"{plane.name}-slider",
        min=0,
        max=len(figures) - 1,
        step=1,
        value=first,
        autocomplete="off",
    )
    title = tag("h3", plane.name.capitalize(), id=f"{plane.name}-title")
    label = tag("label", f"{plane.name.capitalize()} slice", for_=f"{plane.name}-slider")
    return tag(
        "section",
        title,
        tag("div", figures, class_="figures"),
        tag("p", label, " ", tag("output", for_=f"{plane.name}-slider"), slider, class_="scripted slider"),
        class_="plane",
        data_across=plane.across,
        data_down=plane.down,
        data_normal=plane.normal,
        aria_labelledby=f"{plane.name}-title",
    )
