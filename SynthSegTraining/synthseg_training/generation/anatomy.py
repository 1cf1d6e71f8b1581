"""What the generative model must know about labels: sides, shared classes, what may be dropped, what is segmented."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from synthseg_slicer.labels import BRAIN, BRAIN_IDS

_NAMES = {
    72: "5th-Ventricle",
    85: "Optic-Chiasm",
    502: "Artery",
    506: "Eye",
    507: "Other-Soft-Tissue",
    508: "Rectus-Muscle",
    509: "Mucosa",
    511: "Skin",
    512: "Spinal-Cord",
    514: "Vein",
    515: "Cortical-Bone",
    516: "Cancellous-Bone",
    530: "Optic-Nerve",
}
_SIDED_NAMES = {25: "Lesion", 30: "Vessel", 136: "Choroid-Plexus", 137: "Inferior-Choroid-Plexus"}

BRAIN_PAIRS: dict[int, int] = {
    2: 41, 3: 42, 4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 25: 57, 26: 58, 28: 60,
    30: 62, 136: 163, 137: 164,
}  # fmt: skip
"""Left label to right label of the whole-head label maps."""

EXTRACEREBRAL: tuple[int, ...] = (502, 506, 507, 508, 509, 511, 512, 514, 515, 516, 530)


def _brain_output() -> dict[int, int]:
    lesions_and_plexus = {25: 2, 57: 41, 136: 4, 137: 5, 163: 43, 164: 44}
    return {**{label: label for label in BRAIN_IDS}, **lesions_and_plexus}


@dataclass(frozen=True)
class Anatomy:
    """Roles of the labels: by default those of the whole-head brain maps, from a recipe those of any other anatomy.

    Attributes
    ----------
    output : dict
        Label of the maps to label of the segmentation. Labels that are absent become background in the target.
    pairs : dict
        Left label to right label, swapped when a sample is mirrored.
    shared : list of tuple
        Labels that share one Gaussian of the mixture.
    removable : tuple of int
        Labels that random skull-stripping turns into background.
    fluid : tuple of int
        Labels around the brain that may vanish together with the skull (CSF).
    lesions : dict
        Lesion label to the tissue that it replaces.
    """

    output: dict[int, int] = field(default_factory=_brain_output)
    pairs: dict[int, int] = field(default_factory=BRAIN_PAIRS.copy)
    shared: tuple[tuple[int, ...], ...] = ((4, 5), (43, 44), (17, 18), (53, 54), (136, 137), (163, 164))
    removable: tuple[int, ...] = EXTRACEREBRAL
    fluid: tuple[int, ...] = (24,)
    lesions: dict[int, int] = field(default_factory=lambda: {25: 2, 57: 41})

    @property
    def output_ids(self) -> tuple[int, ...]:
        """Labels of the segmentation in ascending order, background first; the order of the network's channels."""
        return tuple(sorted({0, *self.output.values()}))

    @property
    def output_partners(self) -> dict[int, int]:
        """Each label of the segmentation to its mirror structure, its own label for a midline structure."""
        mirror = {**self.pairs, **{right: left for left, right in self.pairs.items()}}
        ids = self.output_ids
        return {label: mirror[label] if mirror.get(label) in ids else label for label in ids}

    def substitution(self, labels: tuple[int, ...], changes: dict[int, int]) -> Tensor:
        """Return the lookup table that replaces labels by others: int32 ``[len(labels)]``, indices into ``labels``."""
        index = {label: i for i, label in enumerate(labels)}
        new = [index[changes[label]] if changes.get(label) in index else i for i, label in enumerate(labels)]
        return torch.tensor(new, dtype=torch.int32)

    def target_table(self, labels: tuple[int, ...]) -> Tensor:
        """Return uint8 ``[len(labels)]``: for each label of the maps the index into :attr:`output_ids`."""
        channel = {label: i for i, label in enumerate(self.output_ids)}
        return torch.tensor([channel[self.output.get(label, 0)] for label in labels], dtype=torch.uint8)


def brain_label_names() -> dict[int, str]:
    """Return the names of the 54 labels of the whole-head maps (extra-cerebral names as in charm/SAMSEG)."""
    names = {label.id: label.name for label in BRAIN} | _NAMES
    for left, name in _SIDED_NAMES.items():
        names |= {left: f"Left-{name}", BRAIN_PAIRS[left]: f"Right-{name}"}
    return dict(sorted(names.items()))
