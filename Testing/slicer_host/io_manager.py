"""Stand-in for qSlicerCoreIOManager: which logic or storage node reads or writes a file; these are real."""

from __future__ import annotations

import os
from pathlib import Path

import slicer

from .mrml import Mrml


class IOManager:
    """Loads and saves the kinds of files that the module under test needs."""

    def __init__(self, mrml: Mrml) -> None:
        self._mrml = mrml

    def fileType(self, filename: str) -> str:
        name = str(filename).lower()
        if name.endswith((".mrb", ".mrml")):
            return "SceneFile"
        if name.endswith((".seg.nrrd", ".seg.nhdr", ".seg.vtm")):
            return "SegmentationFile"
        if name.endswith((".seq.nrrd", ".seq.mrb")):
            return "SequenceFile"
        if name.endswith((".csv", ".tsv")):
            return "TableFile"
        if name.endswith((".h5", ".tfm")):
            return "TransformFile"
        return "VolumeFile"

    def fileWriterFileType(self, node) -> str:
        return node.GetClassName()

    def loadNodes(self, fileType: str, properties: dict, loadedNodes=None, userMessages=None) -> bool:
        """Load a file; False if it cannot be read (the logics say why on VTK's error output)."""
        path, name = str(properties["fileName"]), properties.get("name", "")
        if fileType == "SceneFile":
            return self._load_scene(path, bool(properties.get("clear", False)), userMessages)
        if not os.path.isfile(path):
            return False
        logics = self._mrml.logics
        if fileType == "VolumeFile":
            node = self._load_volume(path, properties)
        elif fileType == "SegmentationFile":
            node = logics["Segmentations"].LoadSegmentationFromFile(path, True, name)
        elif fileType == "SequenceFile":
            node = logics["Sequences"].AddSequence(path, userMessages)
        elif fileType == "TableFile":
            node = logics["Tables"].AddTable(path, name)
        elif fileType == "TransformFile":
            node = logics["Transforms"].AddTransform(path, self._mrml.scene)
        else:
            raise NotImplementedError(f"no stand-in for reading a {fileType}")
        if node and loadedNodes is not None:
            loadedNodes.AddItem(node)
        return node is not None

    def _load_scene(self, path: str, clear: bool, messages) -> bool:
        scene = self._mrml.scene
        if path.lower().endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, clear, messages or slicer.vtkMRMLMessageCollection()))
        scene.SetURL(path)
        return bool(scene.Connect() if clear else scene.Import())

    def _load_volume(self, path: str, properties: dict):
        keys = ("labelmap", "center", "singleFile", "autoWindowLevel", "discardOrientation")
        options = sum(bool(properties.get(key, False)) << bit for bit, key in enumerate(keys))
        name = properties.get("name") or Path(path).name.removesuffix(".gz").rsplit(".", 1)[0]
        node = self._mrml.logics["Volumes"].AddArchetypeVolume(path, name, options)
        if node and properties.get("show", True):
            selection = self._mrml.application.GetSelectionNode()
            if node.IsA("vtkMRMLLabelMapVolumeNode"):
                selection.SetActiveLabelVolumeID(node.GetID())
            else:
                selection.SetActiveVolumeID(node.GetID())
            self._mrml.application.PropagateVolumeSelection()
        return node

    def saveNodes(self, fileType: str, properties: dict, userMessages=None) -> bool:
        """Save a node, or (fileType "SceneFile") the scene."""
        path, scene = str(properties["fileName"]), self._mrml.scene
        if fileType == "SceneFile":
            if path.lower().endswith(".mrb"):
                return bool(scene.WriteToMRB(path, None, userMessages))
            if path.lower().endswith(".mrml"):
                return bool(scene.Commit(path))
            raise NotImplementedError("no stand-in for saving a scene to a folder")
        node = scene.GetNodeByID(properties["nodeID"])
        if not node.GetStorageNode():
            node.AddDefaultStorageNode()
        node.GetStorageNode().SetFileName(path)
        return bool(node.GetStorageNode().WriteData(node))
