"""The module in the Slicer host, and scans for it."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import numpy as np
import pytest

from synthseg_training.phantom import draw_phantom

MODULE = Path(__file__).resolve().parents[2] / "SynthSegSlicer" / "SynthSegSlicer.py"
CLASSES = {
    200: (2, 41, 7, 46, 16, 28, 60),
    150: (10, 49, 11, 50, 12, 51, 13, 52),
    120: (3, 42, 8, 47, 17, 53, 18, 54, 26, 58),
    40: (4, 43, 5, 44, 14, 15, 24, 72),
}
"""T1-like intensity of the phantom's labels; everything else is 80."""


@functools.cache
def phantom_head() -> tuple[np.ndarray, np.ndarray]:
    """Return the middle 96 mm of a phantom's head as T1-weighted scan of 2 mm: int16 [x, y, z] and RAS affine."""
    labels, affine = draw_phantom(3, 2.0)
    start = np.array([18, 26, 38])
    labels = labels[tuple(slice(s, s + 48) for s in start)]
    image = np.where(labels > 0, 80, 0)
    for value, members in CLASSES.items():
        image[np.isin(labels, members)] = value
    image = image + np.random.default_rng(0).normal(0, 4, image.shape)
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    return image.round().astype(np.int16), affine


@pytest.fixture
def head() -> tuple[np.ndarray, np.ndarray]:
    """A scan: int16 [x, y, z] and RAS affine."""
    return phantom_head()


@pytest.fixture
def add_head(host):
    """A function that adds a scan, the phantom's by default, to the scene and returns its node."""

    def add(name: str = "head", array=None, affine=None):
        import slicer

        array = phantom_head()[0] if array is None else array
        affine = phantom_head()[1] if affine is None else affine
        node = slicer.util.addVolumeFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)), affine, name)
        node.CreateDefaultDisplayNodes()
        host.app.processEvents()
        return node

    return add


@pytest.fixture
def loaded(host):
    """The module, opened."""
    sys.modules.pop("SynthSegSlicer", None)
    return host.load_module(MODULE)


@pytest.fixture
def panel(loaded):
    """The module's panel, shown, with passes and surfaces switched off that tests need not wait for."""
    panel = loaded.widget
    panel.parent.resize(420, 560)
    panel.parent.show()
    panel.ui.qualityComboBox.currentIndex = 1
    panel.ui.surfacesCheckBox.checked = False
    return panel


@pytest.fixture
def logic(loaded):
    """The module's logic, without the panel."""
    return loaded.module.SynthSegSlicerLogic()


@pytest.fixture
def click():
    """A function that clicks a button with the mouse."""

    def press(button):
        from PySide6.QtCore import Qt
        from PySide6.QtTest import QTest

        QTest.mouseClick(button, Qt.LeftButton)

    return press


@pytest.fixture
def snapshot(host):
    """A function that describes the scene's nodes and their content, to see whether anything changed."""

    def describe() -> dict[str, tuple]:
        nodes = [host.scene.GetNthNode(index) for index in range(host.scene.GetNumberOfNodes())]
        own = "SynthSegSlicer"  # the panel's settings may change
        return {node.GetID(): (node.GetName(), node.GetMTime()) for node in nodes if node.GetSingletonTag() != own}

    return describe


def label_volume(segmentation) -> tuple[np.ndarray, np.ndarray]:
    """Return a segmentation node's labels [x, y, z] and their affine in world coordinates."""
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    segment = segmentation.GetSegmentation().GetNthSegment(0)
    image = segment.GetRepresentation("Binary labelmap")
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    affine = slicer.util.arrayFromVTKMatrix(matrix)
    extent = image.GetExtent()
    affine[:3, 3] += affine[:3, :3] @ np.array(extent[::2])
    if segmentation.GetParentTransformNode():
        segmentation.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
        affine = slicer.util.arrayFromVTKMatrix(matrix) @ affine
    shape = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape[::-1]).transpose(2, 1, 0), affine


@pytest.fixture(name="label_volume")
def _label_volume():
    return label_volume
