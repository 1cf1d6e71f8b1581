"""Training samples of the stroke-lesion task: qSynth, and the plain random-contrast model that it is compared with."""

from .model import StrokeConfig, StrokeGenerator, StrokeParameters

__all__ = ["StrokeConfig", "StrokeGenerator", "StrokeParameters"]
