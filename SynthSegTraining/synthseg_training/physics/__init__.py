"""MR physics: quantitative maps of tissue, what a scanner makes of them, and how both vary.

Quantitative maps become images in the order :mod:`.field` (field strength), :mod:`.draws` and :mod:`.sequences`
(acquisition and signal equation, with the receive field as gain), :mod:`.noise`. :mod:`.priors` tells which maps
tissues have.
"""

from .draws import CLINICAL, Distribution, SequenceDraw, paper_distributions, qatlas_distributions
from .field import FieldStrength, at_field
from .maps import QuantitativeMaps, load_maps, save_maps
from .noise import ReceiveField, RicianNoise, rician
from .priors import CHANGES, LABEL_TISSUES, LEAST_CHANGE, TISSUES, WATER, Prior, Tissue, typical_maps
from .sequences import FLAIR, FSE, GRE, MP2RAGE, MPRAGE, SPGRMT, Sequence

__all__ = [
    "CHANGES",
    "CLINICAL",
    "FLAIR",
    "FSE",
    "GRE",
    "LABEL_TISSUES",
    "LEAST_CHANGE",
    "MP2RAGE",
    "MPRAGE",
    "SPGRMT",
    "TISSUES",
    "WATER",
    "Distribution",
    "FieldStrength",
    "Prior",
    "QuantitativeMaps",
    "ReceiveField",
    "RicianNoise",
    "Sequence",
    "SequenceDraw",
    "Tissue",
    "at_field",
    "load_maps",
    "paper_distributions",
    "qatlas_distributions",
    "rician",
    "save_maps",
    "typical_maps",
]
