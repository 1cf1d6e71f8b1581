"""A small scripted module, written against Slicer's API alone: what the host's tests load."""

import enum
import shutil
from typing import Annotated, Union

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode, vtkMRMLSequenceNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, Default, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *  # noqa: F403
from slicer.util import VTKObservationMixin


class Sample(ScriptedLoadableModule):  # noqa: F405
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)  # noqa: F405
        parent.title = _("Sample")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]


class Mode(enum.Enum):
    BEST = "best"
    FAST = "fast"

    def label(self):
        return {"best": _("Best quality"), "fast": _("Fast")}[self.value]


@parameterNodeWrapper
class SampleParameterNode:
    inputVolume: Union[vtkMRMLScalarVolumeNode, vtkMRMLSequenceNode]  # noqa: UP007
    segmentation: vtkMRMLSegmentationNode
    mode: Mode = Mode.BEST
    surfaces: bool = True
    threshold: Annotated[float, WithinRange(0, 10), Default(2.5)]
    device: Annotated[str, Choice(["auto", "cpu"])] = "auto"


class SampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):  # noqa: F405
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)  # noqa: F405
        VTKObservationMixin.__init__(self)
        self.parameters = None
        self.events = []

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)  # noqa: F405
        panel = slicer.util.loadUI(self.resourcePath("UI/Sample.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = SampleLogic()
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneChanged)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneChanged)

    def enter(self):
        self.events.append("enter")
        self.bind(SampleParameterNode(self.logic.getParameterNode()))

    def exit(self):
        self.events.append("exit")
        self.bind(None)

    def cleanup(self):
        self.events.append("cleanup")
        self.removeObservers()

    def onStartClose(self, caller, event):
        self.bind(None)

    def onSceneChanged(self, caller, event):
        if self.parent.isEntered:
            self.bind(SampleParameterNode(self.logic.getParameterNode()))

    def bind(self, parameters):
        if self.parameters:
            self.parameters.disconnectGui(self.tag)
            self.removeObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
        self.parameters = parameters
        if parameters:
            widgets = {name: getattr(self.ui, name) for name in parameters.allParameters}
            self.tag = parameters.connectParametersToGui(widgets)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.checkCanApply)
            self.checkCanApply()

    def checkCanApply(self, caller=None, event=None):
        self.ui.applyButton.enabled = self.parameters.inputVolume is not None

    def onApply(self):
        with slicer.util.tryWithErrorDisplay(_("Failed.")):
            self.parameters.segmentation = self.logic.process(self.parameters.inputVolume, self.parameters.threshold)


class SampleLogic(ScriptedLoadableModuleLogic):  # noqa: F405
    def process(self, volume, threshold):
        labels = (slicer.util.arrayFromVolume(volume) > threshold).astype("int16")
        if not labels.any():
            raise ValueError("nothing is brighter than the threshold")
        matrix = vtk.vtkMatrix4x4()
        volume.GetIJKToRASMatrix(matrix)
        labelmap = slicer.util.addVolumeFromArray(labels, matrix, nodeClassName="vtkMRMLLabelMapVolumeNode")
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", volume.GetName() + " segmentation")
        segmentation.CreateDefaultDisplayNodes()
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labelmap, segmentation)
        slicer.mrmlScene.RemoveNode(labelmap)
        return segmentation

    def child(self, code, onOutput, onFinished):
        """Run Python code in a child process."""
        process = qt.QProcess()
        process.connect("readyReadStandardOutput()", lambda: onOutput(process.readAllStandardOutput().data()))
        process.connect("finished(int,QProcess::ExitStatus)", onFinished)
        environment = qt.QProcessEnvironment.systemEnvironment()
        environment.insert("SAMPLE", "yes")
        process.setProcessEnvironment(environment)
        process.start(shutil.which("PythonSlicer"), ["-c", code])
        return process


class SampleTest(ScriptedLoadableModuleTest):  # noqa: F405
    def runTest(self):
        slicer.mrmlScene.Clear()
        volume = slicer.util.addVolumeFromArray(__import__("numpy").full((3, 3, 3), 9.0))
        self.assertIsNotNone(SampleLogic().process(volume, 1))
