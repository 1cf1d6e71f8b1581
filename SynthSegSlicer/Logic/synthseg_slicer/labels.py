"""Anatomical labels: FreeSurfer ids, names, colours, left/right pairs and topology classes.

The order of :data:`BRAIN` (ascending FreeSurfer id) is the channel order of the network's posteriors.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """One structure.

    Attributes
    ----------
    id : int
        FreeSurfer label id, the voxel value in every output.
    name : str
        Name in FreeSurferColorLUT.txt.
    color : tuple of int
        Red, green, blue in 0-255, from FreeSurferColorLUT.txt.
    side : {"left", "right", "none"}
        Hemisphere.
    partner : int
        Id of the same structure in the other hemisphere; its own id for a midline structure.
    topology : int
        Topology class: after prediction only the largest connected component of the union of the labels of one class is
        kept. 0 means that the label is left as predicted (background and CSF).
    """

    id: int
    name: str
    color: tuple[int, int, int]
    side: str
    partner: int
    topology: int


# id, partner on the right, name without side, colour, topology class of the left (the right one gets its own class)
_PAIRS = (
    (2, 41, "Cerebral-White-Matter", (245, 245, 245), "cerebrum"),
    (3, 42, "Cerebral-Cortex", (205, 62, 78), "cerebrum"),
    (4, 43, "Lateral-Ventricle", (120, 18, 134), "cerebrum"),
    (5, 44, "Inf-Lat-Vent", (196, 58, 250), "cerebrum"),
    (7, 46, "Cerebellum-White-Matter", (220, 248, 164), "cerebellum"),
    (8, 47, "Cerebellum-Cortex", (230, 148, 34), "cerebellum"),
    (10, 49, "Thalamus", (0, 118, 14), "thalamus"),
    (11, 50, "Caudate", (122, 186, 220), "caudate"),
    (12, 51, "Putamen", (236, 13, 176), "putamen"),
    (13, 52, "Pallidum", (12, 48, 255), "pallidum"),
    (17, 53, "Hippocampus", (220, 216, 20), "hippocampus"),
    (18, 54, "Amygdala", (103, 255, 255), "amygdala"),
    (26, 58, "Accumbens-area", (255, 165, 0), "accumbens"),
    (28, 60, "VentralDC", (165, 42, 42), "ventral DC"),
)
_MIDLINE = (
    (0, "Unknown", (0, 0, 0), None),
    (14, "3rd-Ventricle", (204, 182, 142), "3rd ventricle"),
    (15, "4th-Ventricle", (42, 204, 164), "4th ventricle"),
    (16, "Brain-Stem", (119, 159, 176), "brain stem"),
    (24, "CSF", (60, 60, 60), None),
)


def _build() -> tuple[Label, ...]:
    classes: dict[str, int] = {}

    def topology(key: str | None) -> int:
        return 0 if key is None else classes.setdefault(key, len(classes) + 1)

    labels = [Label(i, name, color, "none", i, topology(key)) for i, name, color, key in _MIDLINE]
    for left, right, name, color, key in _PAIRS:
        labels.append(Label(left, f"Left-{name}", color, "left", right, topology(f"left {key}")))
        labels.append(Label(right, f"Right-{name}", color, "right", left, topology(f"right {key}")))
    return tuple(sorted(labels, key=lambda label: label.id))


BRAIN: tuple[Label, ...] = _build()
"""The 33 segmentation labels in posterior channel order."""

BRAIN_IDS: tuple[int, ...] = tuple(label.id for label in BRAIN)


def flip_permutation(ids: tuple[int, ...], partners: dict[int, int]) -> list[int]:
    """Return the channel order that swaps left and right.

    Parameters
    ----------
    ids : tuple of int
        Label ids in channel order.
    partners : dict
        Label id to the id of its mirror structure; ids that are absent are midline.

    Returns
    -------
    list of int
        ``p`` such that channel ``i`` of a mirrored prediction is channel ``p[i]`` of the unmirrored one.
    """
    index = {label: channel for channel, label in enumerate(ids)}
    return [index[partners.get(label, label)] for label in ids]


BRAIN_PARTNERS: dict[int, int] = {label.id: label.partner for label in BRAIN}
BRAIN_TOPOLOGY: dict[int, int] = {label.id: label.topology for label in BRAIN}
BRAIN_FLIP: list[int] = flip_permutation(BRAIN_IDS, BRAIN_PARTNERS)

LESION_ID = 99
"""FreeSurfer's (SAMSEG's) id of a lesion."""

STROKE: tuple[Label, ...] = (
    Label(0, "Unknown", (0, 0, 0), "none", 0, 0),
    Label(2, "White-Matter", (245, 245, 245), "none", 2, 0),
    Label(3, "Gray-Matter", (205, 62, 78), "none", 3, 0),
    Label(24, "CSF", (60, 60, 60), "none", 24, 0),
    Label(LESION_ID, "Lesion", (255, 80, 40), "none", LESION_ID, 0),
    Label(299, "Gray-White-Boundary", (225, 150, 160), "none", 299, 0),
)
"""Classes of the stroke network in channel order: lesion, and healthy tissue of both sides together. The boundary is
the partial volume of grey and white matter, which has a class of its own in Chalcroft et al. 2024."""
