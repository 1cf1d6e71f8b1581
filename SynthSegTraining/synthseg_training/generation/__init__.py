"""The generative model of SynthSeg: random scans of random contrast and resolution from label maps."""

from .anatomy import Anatomy
from .bias import BiasField
from .edits import Flip, Lesions, SkullStripping
from .gmm import ClassPrior, GaussianMixture
from .intensity import Gamma
from .model import Generator, GeneratorConfig, Parameters
from .resolution import Resolution
from .spatial import Spatial

__all__ = [
    "Anatomy",
    "BiasField",
    "ClassPrior",
    "Flip",
    "Gamma",
    "GaussianMixture",
    "Generator",
    "GeneratorConfig",
    "Lesions",
    "Parameters",
    "Resolution",
    "SkullStripping",
    "Spatial",
]
