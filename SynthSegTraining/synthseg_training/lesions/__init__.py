"""Random stroke lesions for synthetic training data: generated shapes or plugged-in masks, and how they are pasted."""

from .field import LesionField
from .masks import LesionMasks, MaskFolder, MaskParameters, MaskWarp
from .paste import CHANNELS, Paste, PasteParameters
from .shapes import Focus, LesionShapes

__all__ = [
    "CHANNELS",
    "Focus",
    "LesionField",
    "LesionMasks",
    "LesionShapes",
    "MaskFolder",
    "MaskParameters",
    "MaskWarp",
    "Paste",
    "PasteParameters",
]
