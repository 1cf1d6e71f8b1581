"""Segment brain scans of any contrast and resolution. See :func:`synthseg_slicer.segment`."""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["CancelToken", "Segmentation", "segment"]


def __getattr__(name: str):
    """Import the pipeline, and torch with it, on first use: labels and errors work where torch is not installed yet."""
    if name == "CancelToken":
        from .cancel import CancelToken

        return CancelToken
    if name in __all__:
        from . import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
