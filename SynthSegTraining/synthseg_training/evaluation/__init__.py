"""Scores of segmentations against references, through the same path that users call."""
