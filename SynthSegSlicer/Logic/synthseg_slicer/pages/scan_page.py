"""The page of one scan: pictures, volumes, what to look at, and how it was made."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..conform import CT_WINDOW_HU, PERCENTILES, conform
from ..files import atomic, check_output
from ..lesions import components
from ..measure import INTRACRANIAL
from ..quality import DOUBTFUL_SCAN
from ..scan import Scan
from ..table import columns, lesion_columns, load_columns
from . import tables
from .colors import visible
from .document import SUFFIXES, document, section
from .markup import Child, Markup, tag
from .slices import Layer, Pictures, pictures

if TYPE_CHECKING:  # both write pages
    from ..pipeline import Segmentation
    from ..stroke import LesionSegmentation

CSF = 24
LESION_COLOR = (100, 255, 40)
"""Unlike that of any structure; lesions are drawn thicker, too."""
MOST_LESIONS = 8
"""So many lesions, from the largest, have slices through their middle."""
HEAD = 0.2
"""Share of the intensity range above which a voxel is shown as head where no anatomy says what to show."""


def write_scan_page(
    path: str | os.PathLike,
    scan: Scan,
    segmentation: Segmentation | LesionSegmentation,
    *,
    image: np.ndarray | None = None,
) -> None:
    """Write the report on a segmented scan: one HTML file that needs nothing else, for any browser, and for paper.

    The page names files, never the folders they lie in.

    Parameters
    ----------
    path : path
        Target, ending in .html.
    scan : Scan
        What was segmented; of several scans of the stroke task the first.
    segmentation : Segmentation or LesionSegmentation
        From :func:`synthseg_slicer.segment` or :func:`synthseg_slicer.stroke.segment_lesions`.
    image : array [x, y, z], optional
        What is pictured, on the grid of the labels; by default the scan itself, conformed where its grid is another
        one.

    Raises
    ------
    OutputError
        The page cannot be written.
    ValueError
        Image and labels differ in shape.
    """
    check_output(path, SUFFIXES)
    image = _pictured(scan, segmentation) if image is None else image
    if image.shape != segmentation.labels.shape:
        raise ValueError(f"image {image.shape} and labels {segmentation.labels.shape} are not on one grid")
    found = getattr(segmentation, "lesions", None)  # a list, empty if there are none, in the stroke task only
    brain = segmentation if found is None else segmentation.anatomy
    layers, colors = [], {}
    if brain is not None:
        # fluid first, so that it hides the outline of neither hemisphere
        names = {label: brain.names[label] for label in sorted(brain.names, key=lambda one: (one != CSF, one))}
        layers.append(Layer("structures", brain.labels, names))
        colors |= {layers[-1].key(label.id): label.color for label in brain.structures}
    if found is not None:
        layers.append(_lesion_layer(segmentation))
        colors |= {layers[-1].key(lesion.number): LESION_COLOR for lesion in found}
    seen = pictures(
        image,
        segmentation.affine,
        layers,
        # fluid reaches far down the neck
        region=_head(image) if brain is None else (brain.labels > 0) & (brain.labels != CSF),
        paper=None if found is None else segmentation.labels > 0,
        always=[lesion.centre for lesion in (found or [])[:MOST_LESIONS]],
    )
    tints = {key: visible(color) for key, color in colors.items()}
    style = "".join(f".{key}{{stroke:{tint};fill:{tint};background-color:{tint}}}" for key, tint in tints.items())
    name = _name(scan)
    record = segmentation.provenance
    text = document(
        f"{name} – segmentation",
        tag("header", tag("h1", "Segmentation of ", tag("bdi", name)), _summary(segmentation, brain, found)),
        _warnings(record),
        _pictures(seen, layers),
        [] if found is None else _lesion_tables(segmentation),
        [] if brain is None else _volumes(brain, layers[0]),
        _provenance(record),
        scripts=("scan.js",),
        style=style,
    )
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _name(scan: Scan) -> str:
    return scan.name if scan.path is None else Path(scan.path).name


def _pictured(scan: Scan, segmentation: Segmentation | LesionSegmentation) -> np.ndarray:
    """Return the scan on the grid of the labels: as it is, or conformed."""
    if scan.shape == segmentation.labels.shape and np.allclose(scan.affine, segmentation.affine, atol=1e-4):
        return scan.data
    options = segmentation.provenance["options"]
    window = tuple(options.get("ct_window_hu", CT_WINDOW_HU))
    return conform(scan, ct=options.get("ct"), voxel_size=options.get("voxel_size_mm", 1.0), ct_window=window).image


def _head(image: np.ndarray) -> np.ndarray:
    low, high = np.percentile(image, PERCENTILES)
    return image > low + HEAD * (high - low)


def _lesion_layer(result: LesionSegmentation) -> Layer:
    """Return the lesions numbered as in their list: components of the map, small ones being gone already."""
    voxel_volume = float(abs(np.linalg.det(result.affine[:3, :3])))
    names = {one.number: f"Lesion {one.number}, {one.volume / 1000:.2f} ml" for one in result.lesions}
    return Layer("lesions", components(result.labels > 0, voxel_volume, fewest=0), names)


def _summary(result: Segmentation | LesionSegmentation, brain: Segmentation | None, found: list | None) -> Markup:
    pairs: list[tuple[str, Child]] = []
    if found is not None:
        count = f"{len(found)} lesion{'' if len(found) == 1 else 's'}"
        pairs.append(("Lesions", f"{count}, together {result.volume / 1000:.1f} ml"))
    if brain is not None:
        pairs.append(("Quality", _quality(brain.verdict.scan)))
        total = "Intracranial volume" if brain.rows[-1].name == INTRACRANIAL else "Total volume"
        pairs.append((total, f"{brain.intracranial / 1000:.0f} ml"))
    record = result.provenance
    pairs.append(("Scan", _grid(record["input"])))
    pairs.append(("Made", _time(record["created"])))
    return tables.facts(pairs)


def _quality(score: float | None) -> str:
    if score is None:
        return "not known: these weights have no calibration"
    verdict = "doubtful" if score < DOUBTFUL_SCAN else "no sign of failure"
    return f"{score:.2f} of 1 (expected overlap with the truth, Dice): {verdict}"


def _grid(record: dict) -> str:
    shape, size = (" × ".join(f"{value:.4g}" for value in record[key]) for key in ("shape", "voxel_size_mm"))
    return f"{shape} voxels of {size} mm"


def _time(created: str) -> str:
    return created.replace("T", " ").replace("+00:00", " UTC")


def _warnings(record: dict) -> Markup:
    """Return the section of warnings; many begin with the name of a scan, which may be its whole path."""
    texts = list(record["warnings"])
    if texts:
        for name in (one["name"] for one in _inputs(record)):
            texts = [text.replace(name, Path(name).name) for text in texts]
        body = tag("ul", (tag("li", tag("strong", "Warning: "), text) for text in texts), class_="warnings")
    else:
        body = tag("p", "No warnings. Look at the outlines all the same: no automatic check sees every mistake.")
    return section("What to look at", body)


def _pictures(seen: Pictures, layers: Sequence[Layer]) -> Markup:
    boxes = [_checkbox(f"show-{layer.name}", layer.name.capitalize(), checked=True) for layer in layers]
    boxes.append(_checkbox("fill", "Fill", checked=False))
    boxes.append(_checkbox("lines", "Lines where the other planes cut", checked=False))
    groups = []
    for layer in reversed(layers):
        keys = ((layer.key(label), name) for label, name in layer.names.items())
        options = [
            tag("option", name, value=key, data_at=" ".join(map(str, seen.best[key])))
            for key, name in keys
            if key in seen.best
        ]
        if options:
            groups.append(tag("optgroup", options, label=layer.name.capitalize()))
    finder = tag("select", tag("option", "everything", value=""), groups, id="find", autocomplete="off")
    controls = tag("div", boxes, tag("span", tag("label", "Find ", for_="find"), finder), class_="scripted controls")
    note = tag(
        "p",
        "Radiological view: the patient’s right is at the left of axial and coronal slices; letters say right, left, "
        "anterior, posterior, superior, inferior. Places are world coordinates of the scan. ",
        tag("span", "A slider moves by the mouse and by the arrow keys.", class_="scripted"),
        class_="note",
    )
    return section("Pictures", note, controls, tag("div", seen.sections, class_="planes"))


def _checkbox(name: str, text: str, *, checked: bool) -> Markup:
    box = tag("input", type="checkbox", id=name, checked=checked, autocomplete="off")
    return tag("span", box, " ", tag("label", text, for_=name))


def _lesion_tables(result: LesionSegmentation) -> list[Markup]:
    if not result.lesions:
        return [section("Lesions", tag("p", "No lesion was found."))]
    listed = lesion_columns(result.lesions)
    sections = [section("Lesions", tables.explained(listed), tables.column_table("Lesions, largest first", listed))]
    if result.loads:
        touched = [row for row in result.loads if row.lesion > 0 or row.label is None]
        loads = load_columns(touched)
        title = "How much of each structure is lesion"
        note = "Structures without lesions are left out; fluid counts for the nearest tissue. "
        text = [tables.explained(loads), tag("p", note, class_="note")]
        sections.append(section("Loads", text, tables.column_table(title, loads)))
    return sections


def _volumes(brain: Segmentation, layer: Layer) -> Markup:
    listed = columns(brain.rows)
    tint = ["" if row.label is None else layer.key(row.label) for row in brain.rows]
    return section(
        "Volumes",
        tables.explained(listed),
        tables.column_table("Volumes of the structures", listed, total=True, tint=tint),
    )


def _provenance(record: dict) -> Markup:
    weights = record["weights"]
    seconds = record["seconds"]
    inputs = _inputs(record)
    pairs: list[tuple[str, Child]] = [
        (
            "Scan" if len(inputs) == 1 else "Scans",
            [tag("p", tag("bdi", Path(one["name"]).name), ", SHA-256 ", _digest(one["sha256"])) for one in inputs],
        ),
        ("Software", f"{record['software']} {record['version']}"),
        (
            "Weights",
            [f"{weights['name'] or 'unnamed'} {weights['version'] or ''}, SHA-256 ", _digest(weights["sha256"])],
        ),
        ("Options", ", ".join(_options(record["options"]))),
        ("Computed on", f"{record['device']}, {record['threads']} threads; {record['platform']}"),
        ("Libraries", f"Python {record['python']}, torch {record['torch']}"),
        ("Seconds", f"{_seconds(seconds.items())}; together {sum(seconds.values()):.1f}"),
        ("Please cite", record["citation"]),
    ]
    return section("How it was made", tables.facts(pairs))


def _inputs(record: dict) -> list[dict]:
    """Return name and SHA-256 of the scan, or of all scans of the stroke task."""
    return record.get("inputs") or [record["input"]]


def _digest(sha256: str | None) -> Child:
    return tag("code", sha256) if sha256 else "not known"


def _options(options: dict) -> Iterable[str]:
    """Yield options in words; what was asked for only where it differs from what was done."""
    words = {True: "yes", False: "no", None: "not asked for"}
    for key, value in options.items():
        if key == "scans":  # they are listed with their SHA-256
            continue
        text = words[value] if value is None or isinstance(value, bool) else str(value)
        yield f"{key.replace('_', ' ')}: {text}"


def _seconds(items: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{stage} {time:.1f}" for stage, time in items)
