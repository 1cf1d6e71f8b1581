"""Tissue-ordered contrasts: rough intensities on the 0-255 scale of the Gaussian mixture.

They only order the tissues as a family of sequences does, and are meant to be drawn with generous spread
(:class:`~synthseg_training.generation.gmm.GaussianMixture`): to start a training, or to weigh plausible contrasts
more. The paper's model does not use them. The CT column is the window [0, 80] HU stretched to 0-255.
"""

from __future__ import annotations

# tissue: T1, T2, PD, FLAIR, CT
TISSUES: dict[str, tuple[float, float, float, float, float]] = {
    "white matter": (200, 70, 120, 90, 90),
    "brain stem": (180, 80, 125, 100, 90),
    "cortex": (120, 115, 160, 130, 118),
    "cerebellar cortex": (115, 115, 160, 125, 115),
    "deep grey": (145, 95, 145, 115, 115),
    "thalamus": (155, 95, 145, 115, 112),
    "pallidum": (175, 55, 125, 85, 118),
    "fluid": (30, 235, 190, 20, 30),
    "plexus": (90, 190, 180, 110, 90),
    "lesion": (130, 170, 180, 220, 70),
    "vessel": (80, 30, 60, 60, 140),
    "vein": (70, 60, 80, 70, 150),
    "eye": (30, 230, 170, 40, 45),
    "nerve": (150, 80, 120, 100, 100),
    "muscle": (95, 45, 110, 80, 160),
    "soft tissue": (110, 70, 120, 90, 120),
    "mucosa": (110, 170, 150, 150, 110),
    "skin": (170, 120, 150, 130, 80),
    "compact bone": (20, 15, 25, 15, 255),
    "marrow": (190, 110, 140, 110, 235),
}

CONTRASTS = ("t1", "t2", "pd", "flair", "ct")

BRAIN_TISSUES: dict[int, str] = {
    2: "white matter", 3: "cortex", 4: "fluid", 5: "fluid", 7: "white matter", 8: "cerebellar cortex", 10: "thalamus",
    11: "deep grey", 12: "deep grey", 13: "pallidum", 14: "fluid", 15: "fluid", 16: "brain stem", 17: "cortex",
    18: "cortex", 24: "fluid", 25: "lesion", 26: "deep grey", 28: "brain stem", 30: "vessel", 72: "fluid", 85: "nerve",
    136: "plexus", 137: "plexus", 502: "vessel", 506: "eye", 507: "soft tissue", 508: "muscle", 509: "mucosa",
    511: "skin", 512: "brain stem", 514: "vein", 515: "compact bone", 516: "marrow", 530: "nerve",
}  # fmt: skip
"""Tissue of each midline or left label of the whole-head maps; a right label is of its left partner's tissue."""


def tissue_mean(tissue: str, contrast: str) -> float:
    """Return the typical intensity of a tissue in one of :data:`CONTRASTS`."""
    return TISSUES[tissue][CONTRASTS.index(contrast)]
