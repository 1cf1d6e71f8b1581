"""Training samples of the stroke task: qSynth, the plain random-contrast model it is compared with, real scans."""

from .mixture import Mixture
from .model import StrokeConfig, StrokeGenerator, StrokeParameters

__all__ = ["Mixture", "StrokeConfig", "StrokeGenerator", "StrokeParameters"]
