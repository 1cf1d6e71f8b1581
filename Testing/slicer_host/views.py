"""Pictures of the scene: Slicer's own displayable managers, drawn into an off-screen OpenGL window."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from . import can_render
from .mrml import Mrml

SLICE_MANAGERS = (
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
)
VIEW_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)
# Where the camera looks from in the 3D view, and what is up there (RAS).
DIRECTIONS = {
    "anterior": ((0, 1, 0), (0, 0, 1)),
    "posterior": ((0, -1, 0), (0, 0, 1)),
    "left": ((-1, 0, 0), (0, 0, 1)),
    "right": ((1, 0, 0), (0, 0, 1)),
    "superior": ((0, 0, 1), (0, 1, 0)),
}


@contextmanager
def _window(factory, managers: tuple[str, ...], mrml: Mrml, size: tuple[int, int], node) -> Iterator:
    """An off-screen window with the displayable managers of a view; yields it and its renderer."""
    if not can_render():
        raise RuntimeError("drawing needs EGL and OpenGL libraries (Debian: libegl1 libgl1 libegl-mesa0)")
    os.environ["VTK_DEFAULT_OPENGL_WINDOW"] = "vtkEGLRenderWindow"
    renderer, window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
    window.OffScreenRenderingOn()
    window.SetMultiSamples(0)
    window.SetSize(*size)
    window.AddRenderer(renderer)
    interactor = vtk.vtkGenericRenderWindowInteractor()
    interactor.SetRenderWindow(window)
    interactor.Initialize()
    factory.SetMRMLApplicationLogic(mrml.application)
    for manager in managers:
        if not factory.IsDisplayableManagerRegistered(manager):
            factory.RegisterDisplayableManager(manager)
    group = slicer.vtkMRMLDisplayableManagerGroup()
    group.SetRenderer(renderer)
    group.Initialize(factory, renderer)
    group.SetMRMLDisplayableNode(node)
    try:
        yield window, renderer
    finally:
        group.SetMRMLDisplayableNode(None)
        window.Finalize()


def _picture(window) -> np.ndarray:
    window.Render()
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    grab.Update()
    image = grab.GetOutput()
    width, height, _ = image.GetDimensions()
    return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[::-1, :, :3].copy()


def slice_view(
    mrml: Mrml,
    background=None,
    *,
    name: str = "Red",
    orientation: str = "Axial",
    center: tuple[float, float, float] | None = None,
    size: tuple[int, int] = (400, 400),
) -> np.ndarray:
    """Picture of a slice view: volumes and, on top, segmentations and models.

    Parameters
    ----------
    background
        Volume node to show; None: what the view shows already.
    name
        The view: "Red", "Yellow" or "Green".
    orientation
        "Axial", "Sagittal" or "Coronal".
    center
        RAS point in mm that the slice goes through; None: the middle of the volume. The volume stays in the middle.
    size
        Width and height in pixels.

    Returns
    -------
    uint8 array [height, width, 3], RGB, first row on top.
    """
    logic = mrml.slices[name]
    node = logic.GetSliceNode()
    with _window(slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), SLICE_MANAGERS, mrml, size, node) as (
        window,
        renderer,
    ):
        renderer.GetActiveCamera().ParallelProjectionOn()
        if background:
            logic.GetSliceCompositeNode().SetBackgroundVolumeID(background.GetID())
        node.SetOrientation(orientation)
        logic.ResizeSliceNode(*size)
        logic.FitSliceToBackground()
        if center is not None:
            node.JumpSliceByOffsetting(*center)
        mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        mapper.SetInputConnection(logic.GetImageDataConnection())
        actor.SetMapper(mapper)
        # A layer of its own below, drawn before: translucent structures blend with the scan, not with black.
        scan = vtk.vtkRenderer()
        scan.AddViewProp(actor)
        window.SetNumberOfLayers(3)  # the managers use one more
        renderer.SetLayer(1)
        window.AddRenderer(scan)
        return _picture(window)


def view_3d(
    mrml: Mrml, *, look_from: str = "anterior", size: tuple[int, int] = (400, 400), zoom: float = 1.3
) -> np.ndarray:
    """Picture of the 3D view with everything in sight.

    Parameters
    ----------
    look_from
        "anterior", "posterior", "left", "right" or "superior".
    size
        Width and height in pixels.
    zoom
        Magnification; at 1 the sphere around everything fits in.

    Returns
    -------
    uint8 array [height, width, 3], RGB, first row on top.
    """
    node = mrml.scene.GetSingletonNode("1", "vtkMRMLViewNode")
    with _window(slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), VIEW_MANAGERS, mrml, size, node) as (
        window,
        renderer,
    ):
        node.SetBoxVisible(False)
        node.SetAxisLabelsVisible(False)
        window.Render()  # the managers add what they show
        camera = renderer.GetActiveCamera()
        direction, up = DIRECTIONS[look_from]
        camera.SetFocalPoint(0, 0, 0)
        camera.SetPosition(*direction)
        camera.SetViewUp(*up)
        renderer.ResetCamera()
        camera.Zoom(zoom)
        renderer.ResetCameraClippingRange()
        return _picture(window)
