"""A segmented head that tests make up, small and quick, for reports on it."""

from __future__ import annotations

import numpy as np

from synthseg_slicer import measure
from synthseg_slicer.labels import BRAIN, LESION_ID
from synthseg_slicer.lesions import components, describe, loads, nearest_labels
from synthseg_slicer.pipeline import Segmentation
from synthseg_slicer.quality import Verdict
from synthseg_slicer.scan import Scan
from synthseg_slicer.stroke import LesionSegmentation

SHAPE = (52, 60, 48)
AFFINE = np.array([[-1.5, 0, 0, 40.0], [0, 1.5, 0, -50.0], [0, 0, 2.0, -30.0], [0, 0, 0, 1]])
"""Array index 0 is the patient's right; slices are thicker than they are wide."""
GREY = {0: 5, 24: 20, 2: 180, 41: 180, 3: 120, 42: 120, 17: 110, 53: 110, 16: 150}
"""Intensity of each label."""


def _ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
    """Return the voxels within an ellipsoid, centre and radii in world mm."""
    index = np.stack([*np.indices(SHAPE), np.ones(SHAPE)], -1)
    world = (index @ AFFINE.T)[..., :3]
    return (((world - centre) / radii) ** 2).sum(-1) < 1


def head_labels() -> np.ndarray:
    """Return fluid around two hemispheres of cortex and white matter, with a hippocampus each, and a brain stem."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[_ball((0, -5, 18), (34, 40, 40))] = 24
    left = np.arange(SHAPE[0])[:, None, None] > (SHAPE[0] - 1) / 2 + np.zeros(SHAPE)
    for inside, ids in ((_ball((0, -5, 18), (31, 37, 37)), (3, 42)), (_ball((0, -5, 18), (25, 31, 31)), (2, 41))):
        labels[inside] = np.where(left, *ids)[inside]
    labels[_ball((-14, -10, 8), (5, 9, 5))] = 17
    labels[_ball((14, -10, 8), (6, 9, 5))] = 53
    labels[_ball((0, -15, -12), (8, 8, 14))] = 16
    return labels


def head_scan(labels: np.ndarray | None = None, **details) -> Scan:
    """Return an image of the labels with some noise."""
    labels = head_labels() if labels is None else labels
    grey = np.zeros(256, np.float32)
    for label, value in GREY.items():
        grey[label] = value
    noise = np.random.default_rng(0).normal(0, 3, SHAPE)
    return Scan((grey[labels] + noise).astype(np.float32), AFFINE, **details)


def record(scan: Scan, task: str = "brain", warnings: tuple[str, ...] = ()) -> dict:
    """Return a provenance such as :func:`synthseg_slicer.provenance.describe` writes."""
    size = [float(size) for size in scan.voxel_size]
    return {
        "software": "synthseg-slicer",
        "version": "9.8.7",
        "created": "2026-01-02T03:04:05+00:00",
        "input": {"name": scan.name, "path": None, "sha256": "a" * 64, "shape": list(SHAPE), "voxel_size_mm": size},
        "weights": {"sha256": "b" * 64, "version": "1.2.3", "name": task},
        "options": {"task": task, "fast": False, "ct": False, "ct_requested": None, "native": True},
        "device": "cpu",
        "threads": 2,
        "torch": "2.0",
        "python": "3.11",
        "platform": "Linux",
        "seconds": {"read": 0.5, "predict": 20.25},
        "warnings": list(warnings),
        "citation": "Somebody et al.",
    }


def head_segmentation(scan: Scan, warnings: tuple[str, ...] = (), scores: bool = True) -> Segmentation:
    """Return the segmentation of :func:`head_scan`, with a calibration's scores or without."""
    labels = head_labels()
    counts = np.bincount(labels.ravel(), minlength=256) * scan.voxel_volume
    volumes = {label.id: float(counts[label.id]) for label in BRAIN if label.id}
    present = [label for label, volume in volumes.items() if volume]
    structures = dict.fromkeys(present, 0.8)
    verdict = Verdict(structures, 0.81, {**dict.fromkeys(present, 1.1), None: 1.05}, list(warnings), True)
    if not scores:
        verdict = Verdict(structures, None, {}, list(warnings), False)
    total = measure.total_intracranial(volumes)
    return Segmentation(labels, AFFINE, volumes, verdict, BRAIN, total, record(scan, warnings=warnings), None)


def head_lesions(scan: Scan, anatomy: bool = True, found: bool = True) -> LesionSegmentation:
    """Return two lesions of the head, a large one on the right and a small one on the left."""
    mask = _ball((12, 5, 30), (9, 9, 9)) | _ball((-16, -15, 24), (4, 4, 4)) if found else np.zeros(SHAPE, bool)
    brain = head_segmentation(scan) if anatomy else None
    numbered = components(mask, scan.voxel_volume)
    soft = mask * np.float32(0.9)
    nearest = nearest_labels(brain.labels, mask) if anatomy else None
    rows = loads(brain.labels, nearest, BRAIN, scan.voxel_volume) if anatomy else []
    lesions = describe(numbered, soft, AFFINE, nearest, BRAIN if anatomy else ())
    labels = np.where(mask, np.uint8(LESION_ID), np.uint8(0))
    details = record(scan, "stroke") | {"inputs": [{"name": scan.name, "sha256": "a" * 64}]}
    return LesionSegmentation(labels, soft, AFFINE, lesions, rows, brain, [np.eye(4)], details)
