"""Tissues of the procedural thorax: labels in the convention of MMWHS, and intensities in three contrasts."""

from __future__ import annotations

from dataclasses import dataclass

STRUCTURES: dict[int, str] = {
    205: "Myocardium",
    420: "Left-Atrium",
    500: "Left-Ventricle",
    550: "Right-Atrium",
    600: "Right-Ventricle",
    820: "Ascending-Aorta",
    850: "Pulmonary-Artery",
}
"""Label ids and names of the MMWHS challenge (Zhuang et al. 2019): myocardium of the left ventricle, blood cavities."""

CONTRASTS = ("mr", "ct", "darkblood")
"""Balanced steady-state free precession, CT angiography (Hounsfield units), black-blood spin echo."""


@dataclass(frozen=True)
class Substance:
    """Intensities of one kind of matter in each of :data:`CONTRASTS`.

    Attributes
    ----------
    means : tuple of float
        Mean of all phantoms.
    jitter : tuple of float
        Standard deviation of a phantom's own mean.
    texture : tuple of float
        Standard deviation of the smooth variation within a phantom.
    """

    means: tuple[float, float, float]
    jitter: tuple[float, float, float]
    texture: tuple[float, float, float]


SUBSTANCES: dict[str, Substance] = {
    "air": Substance((3, -1000, 2), (1, 2, 1), (0, 0, 0)),
    "lung": Substance((16, -820, 18), (4, 40, 5), (6, 60, 6)),
    "fat": Substance((190, -100, 215), (15, 10, 15), (10, 10, 12)),
    "muscle": Substance((65, 55, 95), (8, 8, 10), (5, 6, 6)),
    "myocardium": Substance((75, 110, 115), (10, 15, 12), (6, 10, 8)),
    "left blood": Substance((210, 380, 22), (15, 50, 6), (12, 18, 5)),
    # The bolus is mixed with unenhanced blood on the right side, and between patients it has come more or less far.
    "right blood": Substance((200, 200, 24), (15, 70, 6), (14, 30, 5)),
    "bone": Substance((18, 600, 15), (5, 80, 4), (5, 80, 5)),
    "marrow": Substance((120, 220, 165), (15, 40, 15), (12, 30, 12)),
    "cartilage": Substance((85, 90, 70), (10, 12, 10), (6, 8, 6)),
    "liver": Substance((85, 100, 100), (10, 15, 10), (6, 8, 6)),
    "stomach": Substance((120, 25, 60), (30, 20, 20), (25, 20, 15)),
    "cord": Substance((160, 35, 80), (15, 6, 10), (10, 5, 8)),
}


@dataclass(frozen=True)
class Tissue:
    """A part of the thorax: its name, what it consists of, and its label (0: not drawn in the label maps)."""

    name: str
    substance: str
    label: int = 0


TISSUES: tuple[Tissue, ...] = (
    Tissue("air", "air"),
    Tissue("fat", "fat"),
    Tissue("muscle", "muscle"),
    Tissue("rib", "bone"),
    Tissue("marrow", "marrow"),
    Tissue("cartilage", "cartilage"),
    Tissue("lung", "lung"),
    Tissue("airway", "air"),
    Tissue("liver", "liver"),
    Tissue("stomach", "stomach"),
    Tissue("cord", "cord"),
    Tissue("oesophagus", "muscle"),
    Tissue("arteries", "left blood"),
    Tissue("veins", "right blood"),
    Tissue("wall", "myocardium"),
    Tissue("papillary left", "myocardium", 500),
    Tissue("papillary right", "myocardium", 600),
    Tissue("myocardium", "myocardium", 205),
    Tissue("left atrium", "left blood", 420),
    Tissue("left ventricle", "left blood", 500),
    Tissue("right atrium", "right blood", 550),
    Tissue("right ventricle", "right blood", 600),
    Tissue("ascending aorta", "left blood", 820),
    Tissue("pulmonary artery", "right blood", 850),
)
"""In the order of their indices in :func:`synthseg_training.heart.phantom.draw_thorax`."""

INDEX: dict[str, int] = {tissue.name: index for index, tissue in enumerate(TISSUES)}
"""Name of a tissue to its index."""
