"""The real part: a MRML scene with application logic, module logics and views, in the application's boot order."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import slicer
import vtk

LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Models": "vtkSlicerModelsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
}
SLICE_VIEWS = ("Red", "Yellow", "Green")


@dataclass
class Mrml:
    """The scene and the logics that work on it."""

    scene: slicer.vtkMRMLScene
    application: slicer.vtkSlicerApplicationLogic
    layout: slicer.vtkMRMLLayoutLogic
    logics: dict[str, slicer.vtkMRMLAbstractLogic]
    slices: dict[str, slicer.vtkMRMLSliceLogic]
    views: dict[str, slicer.vtkMRMLViewLogic]
    kept: list  # objects that only C++ refers to


def terminology_folder() -> Path | None:
    """Slicer's terminology files, which the trame-slicer package carries; None without it."""
    spec = importlib.util.find_spec("trame_slicer")
    folder = Path(spec.submodule_search_locations[0]) / "resources" / "terminologies" if spec else None
    return folder if folder and folder.is_dir() else None


def boot(home: Path, temporary: Path, terminologies: Path | None) -> Mrml:
    """Make the scene of the application.

    Parameters
    ----------
    home
        The application's folder.
    temporary
        Folder for temporary files.
    terminologies
        Folder of terminology files (.term.json); None: no terminology is loaded.
    """
    scene = slicer.vtkMRMLScene()
    application = slicer.vtkSlicerApplicationLogic()
    application.SetHomeDirectory(str(home))
    application.SetShareDirectory("share")  # for colour files: there are none
    (home / "share" / "ColorFiles").mkdir(parents=True)
    application.SetTemporaryPath(str(temporary))
    application.SetMRMLScene(scene)
    # As in qSlicerCoreApplication. Reading .mrb unpacks into the remote-IO logic's cache.
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.SetMRMLApplicationLogic(application)
    remote.SetMRMLScene(scene)
    remote.GetCacheManager().SetRemoteCacheDirectory(str(temporary))
    remote.AddDataIOToScene()
    data = slicer.vtkDataIOManagerLogic()
    data.SetMRMLApplicationLogic(application)
    data.SetAndObserveDataIOManager(remote.GetDataIOManager())
    application.GetColorLogic().SetMRMLScene(scene)
    application.GetColorLogic().AddDefaultColorNodes()
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    logics = {}
    for name, class_name in LOGICS.items():
        logic = logics[name] = getattr(slicer, class_name)()
        if name == "Terminologies" and terminologies:
            logic.SetModuleShareDirectory(str(terminologies))
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        application.SetModuleLogic(name, logic)
    slices, views = _add_views(scene, application)  # before the layout, which would make view nodes of its own
    layout = slicer.vtkMRMLLayoutLogic()
    layout.SetMRMLApplicationLogic(application)
    layout.SetMRMLScene(scene)
    layout.GetLayoutNode().SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    return Mrml(scene, application, layout, logics, slices, views, kept=[remote, data])


def _add_views(scene, application) -> tuple[dict, dict]:
    """The logics of the standard slice views and of the 3D view; drawing is another matter (`views.py`)."""
    application.SetSliceLogics(vtk.vtkCollection())
    application.SetViewLogics(vtk.vtkCollection())
    slices, views = {}, {}
    for name in SLICE_VIEWS:
        logic = slices[name] = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(application)
        logic.SetMRMLScene(scene)
        logic.AddSliceNode(name)
        application.GetSliceLogics().AddItem(logic)
    logic = views["1"] = slicer.vtkMRMLViewLogic()
    logic.SetMRMLApplicationLogic(application)
    logic.SetMRMLScene(scene)
    logic.AddViewNode("1")
    application.GetViewLogics().AddItem(logic)
    return slices, views
