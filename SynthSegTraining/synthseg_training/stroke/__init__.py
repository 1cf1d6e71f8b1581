"""Training samples of the stroke task: qSynth, the plain random-contrast model it is compared with, real scans."""

from .from_maps import MapsGenerator
from .mixture import Mixture
from .model import StrokeConfig, StrokeGenerator, StrokeParameters

__all__ = ["MapsGenerator", "Mixture", "StrokeConfig", "StrokeGenerator", "StrokeParameters"]
