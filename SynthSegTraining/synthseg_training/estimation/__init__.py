"""qATLAS: a network that estimates quantitative maps from an MPRAGE scan (Chalcroft et al. 2025, section 2.1).

It is trained on simulated scans (:mod:`.simulation`) of maps that qSynth draws from label maps, or of measured ones,
and turns scans into map sets, from which :class:`synthseg_training.stroke.from_maps.MapsGenerator` draws the training
samples of the stroke task. Training runs with torch and numpy alone; :mod:`.predict`
applies what it gives.
"""

from .network import MAPS, EstimatorUNet
from .simulation import GibbsRinging, MprageConfig, MprageSimulator
from .training import EstimatorRecipe, fit_estimator, load_estimator_recipe

__all__ = [
    "MAPS",
    "EstimatorRecipe",
    "EstimatorUNet",
    "GibbsRinging",
    "MprageConfig",
    "MprageSimulator",
    "fit_estimator",
    "load_estimator_recipe",
]
