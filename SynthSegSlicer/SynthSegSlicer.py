"""SynthSeg in 3D Slicer: anatomy and stroke lesions from head scans of any contrast and resolution.

The module is the side that Slicer sees. Everything that works without Slicer lives in ``Logic/synthseg_slicer``.
Inference runs in a child process (:mod:`synthseg_slicer.worker`): the application stays alive and can cancel it.
"""

import enum
import importlib.util
import inspect
import json
import logging
import os
import re
import shutil
import sys
import time
import warnings
from typing import Union

import qt
import slicer
import vtk
from slicer import (
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLSequenceNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

MODULE_DIR = os.path.dirname(os.path.abspath(__file__))
LOGIC_DIR = os.path.join(MODULE_DIR, "Logic")
if LOGIC_DIR not in sys.path:
    sys.path.append(LOGIC_DIR)

TORCH_REQUIREMENT = ">=2.4"
TABLE_ROLE = "SynthSegSlicer.Table"
"""Reference from a segmentation to its table."""

STROKE_WIDGETS = ("secondSelector", "thirdSelector", "fourthSelector", "registerCheckBox", "anatomyCheckBox")
"""What the panel shows for the stroke task only, with its label."""


class SynthSegSlicer(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SynthSeg")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = "Segmentations Sequences SubjectHierarchy Tables Terminologies Volumes".split()
        self.parent.contributors = ["The SynthSegSlicer developers"]
        self.parent.helpText = _(
            "Segments head scans of any MR contrast, CT, and any resolution into 32 brain structures and measures "
            "their volumes; segments stroke lesions from one or several MR scans of a head. "
            'See the <a href="https://github.com/SynthSegSlicer/SynthSegSlicer">documentation</a>. '
            "For research only."
        )
        self.parent.acknowledgementText = _(
            "Re-implements SynthSeg: Billot B. et al. Segmentation of brain MRI scans of any contrast and resolution "
            "without retraining. Medical Image Analysis 86 (2023) 102789. Stroke lesions: Chalcroft L. et al. "
            "Domain-Agnostic Stroke Lesion Segmentation Using Physics-Constrained Synthetic Data. MICCAI 2025, 163-173."
        )
        slicer.app.connect("startupCompleted()", onStartupCompleted)


def onStartupCompleted():
    """Register what needs the other modules: sample data and the terms that Slicer's own lists lack."""
    registerSampleData()
    loadTerminology()


def registerSampleData():
    """Offer public head scans in the Sample Data module."""
    try:
        from SampleData import SampleDataLogic
    except ImportError:  # a Slicer without its Sample Data module
        return
    from synthseg_slicer.samples import SAMPLES

    for sample in SAMPLES:
        SampleDataLogic.registerCustomSampleDataSource(
            category="SynthSeg",
            sampleName=sample.name,
            thumbnailFileName=os.path.join(MODULE_DIR, "Resources", "Icons", "SynthSegSlicer.png"),
            uris=sample.uri,
            fileNames=sample.fileName,
            checksums=sample.checksum,
            nodeNames=sample.nodeName,
        )


def loadTerminology():
    """Load the terms of structures that Slicer's own terminologies lack."""
    path = os.path.join(MODULE_DIR, "Resources", "Terminologies", "SynthSegSlicer.term.json")
    slicer.modules.terminologies.logic().LoadTerminologyFromFile(path)


#
# Parameters
#


class Task(enum.Enum):
    """What is segmented."""

    BRAIN = "brain"
    STROKE = "stroke"

    def label(self):
        """Return the text of the choice."""
        return {"brain": _("Brain anatomy"), "stroke": _("Stroke lesion")}[self.value]


class ScanType(enum.Enum):
    """Kind of scan; intensities of CT have a meaning that those of MR lack."""

    AUTO = "auto"
    MR = "mr"
    CT = "ct"

    def label(self):
        """Return the text of the choice."""
        return {"auto": _("Automatic"), "mr": _("MR"), "ct": _("CT")}[self.value]

    def isCT(self):
        """Return the ``ct`` option: None, False or True."""
        return {"auto": None, "mr": False, "ct": True}[self.value]


class Quality(enum.Enum):
    """Passes of the network."""

    BEST = "best"
    FAST = "fast"

    def label(self):
        """Return the text of the choice."""
        return {"best": _("Best (with mirror image)"), "fast": _("Fast")}[self.value]


class Grid(enum.Enum):
    """Voxels of the result."""

    ONE_MM = "1mm"
    SCAN = "scan"

    def label(self):
        """Return the text of the choice."""
        return {"1mm": _("1 mm"), "scan": _("The scan's")}[self.value]


@parameterNodeWrapper
class SynthSegSlicerParameterNode:
    """The module's settings, saved with the scene.

    ``device`` is a name that :func:`synthseg_slicer.segment` takes; second to fourth volume, ``registerScans`` and
    ``anatomy`` belong to the stroke task; the others say what they are.
    """

    inputVolume: Union[vtkMRMLScalarVolumeNode, vtkMRMLSequenceNode]  # noqa: UP007, not every Slicer knows A | B here
    secondVolume: vtkMRMLScalarVolumeNode
    thirdVolume: vtkMRMLScalarVolumeNode
    fourthVolume: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    outputTable: vtkMRMLTableNode
    task: Task = Task.BRAIN
    scanType: ScanType = ScanType.AUTO
    quality: Quality = Quality.BEST
    grid: Grid = Grid.ONE_MM
    device: str = "auto"
    registerScans: bool = True
    anatomy: bool = True
    keepPrevious: bool = False
    surfaces: bool = True


_typedParameters = {}
"""The typed parameters of each node, kept for ever: the wrapper never stops observing its node, and VTK 9.6 crashes
when a node calls an observer that nobody else holds."""


#
# Widget
#


class SynthSegSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.run = None
        self.log = ""
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._outputsOf = None
        self._deviceQuery = None

    def setup(self):
        """Build the panel; called once, when the module is opened first."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/SynthSegSlicer.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SynthSegSlicerLogic()
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.detailsButton.connect("clicked(bool)", self.onDetailsButton)
        self.ui.deviceComboBox.connect("currentIndexChanged(int)", self.onDeviceChosen)
        self.ui.detailsButton.visible = self.ui.progressBar.visible = False
        self._listDevices([])
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStart)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStart)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEnd)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEnd)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
        self.initializeParameterNode()

    def cleanup(self):
        """End what runs and let go of everything; called when the application exits or the module is reloaded."""
        if self.run:
            self.run.silence()  # there is no panel to show its end
            self.run.cancel()
        if self._deviceQuery:
            self._deviceQuery.kill()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        """Bring the panel up to date; called each time the module is opened."""
        self.initializeParameterNode()
        if self._deviceQuery is None and torchInstalled():
            self._queryDevices()

    def exit(self):
        """Stop following the scene; called each time another module is opened, runs go on."""
        if not self.run:
            self.setParameterNode(None)

    def onSceneStart(self, caller=None, event=None):
        """Let go before nodes vanish or arrive: half a scene must not be taken for the user's choice."""
        self.setParameterNode(None)

    def onSceneEnd(self, caller=None, event=None):
        """Follow the new content of the scene."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onNodeAdded(self, caller=None, event=None):
        """Choose a scan that was just loaded if none is chosen yet, once it is complete."""
        qt.QTimer.singleShot(0, self._chooseInput)

    def initializeParameterNode(self):
        """Connect the panel to the scene's parameters and choose the first scan if none is chosen."""
        self.setParameterNode(self.logic.getParameterNode())
        self._chooseInput()

    def setParameterNode(self, parameterNode):
        """Connect the panel to other parameters, or to none."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self._parameterNode = parameterNode
        if parameterNode:
            self._outputsOf = self._inputAndTask(parameterNode)
            # Not connectGui(): up to Slicer 5.12 it returns no tag, and nothing could be disconnected (issue 7547).
            bound = {widget.property("SlicerParameterName"): widget for widget in self.ui.__dict__.values()}
            bound.pop(None, None)
            self._parameterNodeGuiTag = parameterNode.connectParametersToGui(bound)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.onParametersChanged()

    def _chooseInput(self):
        if not self._parameterNode:
            return
        if not self._parameterNode.inputVolume:
            first = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
            if first and first.GetImageData():
                self._parameterNode.inputVolume = first
        self._updateButtons()

    def onParametersChanged(self, caller=None, event=None):
        """Follow the parameters: outputs belong to one scan and task, and Apply needs a scan."""
        parameters = self._parameterNode
        if not parameters or slicer.mrmlScene.IsImporting():
            return
        wanted = self._inputAndTask(parameters)
        if wanted != self._outputsOf:
            # Another scan or task must not overwrite the result of the one before.
            self._outputsOf = wanted
            with slicer.util.NodeModify(parameters):
                parameters.outputSegmentation = self.logic.resultOf(parameters.inputVolume, parameters.task.value)
                parameters.outputTable = _tableOf(parameters.outputSegmentation)
        self._showTask(parameters.task)
        self._showDevice(parameters.device)
        self._updateButtons()

    @staticmethod
    def _inputAndTask(parameters):
        return _idOf(parameters.inputVolume), parameters.task

    def _showTask(self, task):
        for name in STROKE_WIDGETS:
            for widget in (getattr(self.ui, name), getattr(self.ui, name + "Label", None)):
                if widget:
                    widget.visible = task == Task.STROKE

    def _updateButtons(self):
        ready = self._parameterNode is not None and self._parameterNode.inputVolume is not None
        running = self.run is not None
        self.ui.applyButton.text = _("Cancel") if running else _("Apply")
        self.ui.applyButton.enabled = running or ready
        if running:
            self.ui.applyButton.toolTip = _("Stop. The scene stays as it is.")
        else:
            self.ui.applyButton.toolTip = _("Segment the scan") if ready else _("Load or select a scan first")
        self.ui.progressBar.visible = running
        for name in ("inputsCollapsibleButton", "outputsCollapsibleButton", "settingsCollapsibleButton"):
            getattr(self.ui, name).enabled = not running
        self.ui.memoryLabel.text = self._memoryText() if ready else ""

    def _memoryText(self):
        from synthseg_slicer import memory

        volume = self._parameterNode.inputVolume
        if volume.IsA("vtkMRMLSequenceNode"):
            volume = volume.GetNthDataNode(0)
        if not volume or not volume.GetImageData():
            return ""
        native = self._parameterNode.grid == Grid.SCAN
        both = self._parameterNode.task == Task.STROKE and self._parameterNode.anatomy
        shape, spacing = volume.GetImageData().GetDimensions(), volume.GetSpacing()
        need = memory.estimate(shape, spacing, native, lesions=both) / 2**30
        free = memory.available()
        if free is None:
            return _("Needs about {need:.1f} GB of memory.").format(need=need)
        text = _("Needs about {need:.1f} GB of memory; {free:.1f} GB are free.")
        if need > free / 2**30:
            text = _("Needs about {need:.1f} GB of memory, but only {free:.1f} GB are free: close other programs.")
        return text.format(need=need, free=free / 2**30)

    # -- devices -------------------------------------------------------------------------------------------------------

    def _queryDevices(self):
        """Ask a child process, because importing torch would hold up the application for seconds."""
        self._deviceQuery = startPython(["-m", "synthseg_slicer.devices"])
        self._deviceQuery.connect("finished(int,QProcess::ExitStatus)", self._onDevicesKnown)

    def _onDevicesKnown(self, exitCode, exitStatus):
        if exitCode == 0:
            self._listDevices(json.loads(_text(self._deviceQuery.readAllStandardOutput())))
        else:
            logging.debug("devices unknown: %s", _text(self._deviceQuery.readAllStandardError()))

    def _listDevices(self, found):
        combo = self.ui.deviceComboBox
        wasBlocked = combo.blockSignals(True)
        combo.clear()
        combo.addItem(_("Automatic"), "auto")
        for device in found or [{"name": "cpu", "title": _("CPU")}]:
            combo.addItem(device["title"], device["name"])
        combo.blockSignals(wasBlocked)
        if self._parameterNode:
            self._showDevice(self._parameterNode.device)

    def _showDevice(self, name):
        combo = self.ui.deviceComboBox
        if combo.itemData(combo.currentIndex) == name:
            return
        index = combo.findData(name)
        wasBlocked = combo.blockSignals(True)
        if index < 0:  # saved on another computer; a run will say that this one lacks it
            combo.addItem(name, name)
            index = combo.count - 1
        combo.currentIndex = index
        combo.blockSignals(wasBlocked)

    def onDeviceChosen(self, index):
        """Store the chosen device."""
        if self._parameterNode and index >= 0:
            self._parameterNode.device = self.ui.deviceComboBox.itemData(index)

    # -- running -------------------------------------------------------------------------------------------------------

    def onApplyButton(self, checked=False):
        """Start, or cancel what runs."""
        from synthseg_slicer.errors import SynthSegError

        if self.run:
            self.run.cancel()
            return
        parameters = self._parameterNode
        self.log = ""
        self.ui.detailsButton.visible = False
        self.ui.statusLabel.text = ""
        try:
            if not ensureTorch():
                return
            self.ui.progressBar.value = 0
            self.run = self._startRun(parameters)
        except SynthSegError as error:
            self._showError(str(error), getattr(error, "details", ""))
        finally:
            self._updateButtons()

    def _startRun(self, parameters):
        outputs = parameters.outputSegmentation, parameters.outputTable
        outputs = (None, None) if parameters.keepPrevious else outputs
        options = {
            "ct": parameters.scanType.isCT(),
            "fast": parameters.quality == Quality.FAST,
            "device": parameters.device,
            "native": parameters.grid == Grid.SCAN,
            "surfaces": parameters.surfaces,
            "wait": False,
            "progress": self.onProgress,
            "finished": self.onFinished,
        }
        if parameters.task == Task.STROKE:
            others = parameters.secondVolume, parameters.thirdVolume, parameters.fourthVolume
            inputs = [parameters.inputVolume, *filter(None, others)]
            options |= {"anatomy": parameters.anatomy, "register": parameters.registerScans}
            return self.logic.processStroke(inputs, *outputs, **options)
        return self.logic.process(parameters.inputVolume, *outputs, task=parameters.task.value, **options)

    def onProgress(self, stage, fraction, remaining=None):
        """Show how far the run is."""
        self.ui.progressBar.value = int(100 * fraction)
        self.ui.statusLabel.text = progressText(stage, fraction, remaining)

    def onFinished(self, run):
        """Show the result, or why there is none."""
        self.run = None
        self.log = run.log
        self.ui.detailsButton.visible = bool(self.log) or run.error is not None
        if run.cancelled:
            self.ui.statusLabel.text = run.reason or _("Cancelled. The scene is unchanged.")
        elif run.error:
            self._showError(str(run.error), run.log)
        else:
            self._showResult(run)
        self._updateButtons()

    def _showResult(self, run):
        # The scene may be in another module's hands by now: the outputs go to the parameters even so.
        parameters = self.logic.getParameterNode()
        if run.segmentation.IsA("vtkMRMLSegmentationNode"):
            parameters.outputSegmentation = run.segmentation
            parameters.outputTable = run.table
            showInLayout(run.inputNode, run.segmentation, run.table, run.surfaces)
        self.ui.statusLabel.text = "\n".join([run.summary(), *run.warnings()])

    def _showError(self, message, details=""):
        self.log = details
        self.ui.statusLabel.text = message
        self.ui.detailsButton.visible = bool(details)
        slicer.util.errorDisplay(message, windowTitle=_("SynthSeg"), detailedText=details)

    def onDetailsButton(self, checked=False):
        """Show the log of the last run."""
        slicer.util.infoDisplay(self.ui.statusLabel.text, windowTitle=_("SynthSeg"), detailedText=self.log)


def progressText(stage, fraction, remaining):
    """Return one line on a run's progress: stage, percentage and remaining time.

    Parameters
    ----------
    stage : str
        Stage name as :attr:`synthseg_slicer.job.Job.stage` has it.
    fraction : float
        Of the whole run.
    remaining : float or None
        Seconds.
    """
    stages = {
        "start": _("Starting"),
        "weights": _("Loading the network"),
        "read": _("Reading the scan"),
        "conform": _("Preparing the scan"),
        "predict": _("Segmenting"),
        "refine": _("Sharpening borders"),
        "clean up": _("Cleaning up"),
        "register": _("Aligning the scan"),
        "anatomy": _("Segmenting the anatomy"),
    }
    number = re.fullmatch(r"(\w+) (\d+) of (\d+)", stage)
    name = number[1] if number else stage.partition(":")[0]
    shown = stages.get(name, _("Finishing"))
    if number:
        shown = _("{stage} {number} of {count}").format(stage=shown, number=number[2], count=number[3])
    text = _("{stage}, {percent} %").format(stage=shown, percent=int(100 * fraction))
    if remaining is None or fraction >= 1:
        return text
    if remaining >= 90:
        return text + " – " + _("about {minutes} min left").format(minutes=round(remaining / 60))
    return text + " – " + _("about {seconds} s left").format(seconds=max(1, round(remaining)))


def showInLayout(volume, segmentation, table, surfaces):
    """Show the scan in the slices, its structures in slices and 3D, and their volumes in a table."""
    layoutManager = slicer.app.layoutManager()
    if not layoutManager:  # without a main window
        return
    layoutManager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    selection.SetActiveVolumeID(volume.GetID())
    selection.SetActiveTableID(table.GetID())
    slicer.app.applicationLogic().PropagateVolumeSelection()
    slicer.app.applicationLogic().PropagateTableSelection()
    if surfaces:
        slicer.util.resetThreeDViews()


#
# Torch and child processes
#


def torchInstalled():
    """Return whether torch is there, without importing it into the application."""
    return importlib.util.find_spec("torch") is not None


def ensureTorch():
    """Install torch through the PyTorch extension if it is missing and the user agrees.

    Returns
    -------
    bool
        False if the user declined.

    Raises
    ------
    synthseg_slicer.errors.SynthSegError
        The PyTorch extension is missing, or the installation failed.
    """
    from synthseg_slicer.errors import SynthSegError
    from synthseg_slicer.files import reason

    if torchInstalled():
        return True
    try:
        from PyTorchUtils import PyTorchUtilsLogic
    except ImportError:
        message = _(
            "The neural network needs PyTorch, which is not installed. Install the extension 'PyTorch' from the "
            "Extensions Manager (View menu), restart Slicer, and try again."
        )
        raise SynthSegError(message) from None
    question = _(
        "The neural network needs PyTorch, which is not installed yet. Download and install it now? This takes some "
        "minutes and up to several gigabytes, once."
    )
    if not slicer.util.confirmOkCancelDisplay(question, windowTitle=_("SynthSeg")):
        return False
    install = PyTorchUtilsLogic().installTorch
    options = {"askConfirmation": False, "torchVersionRequirement": TORCH_REQUIREMENT}
    known = inspect.signature(install).parameters  # they grew over the extension's versions
    try:
        with slicer.util.WaitCursor():
            torch = install(**{name: value for name, value in options.items() if name in known})
    except Exception as error:
        logging.debug("installing torch failed", exc_info=True)
        message = _("PyTorch could not be installed ({reason}). Install it in the module PyTorch Utils.")
        raise SynthSegError(message.format(reason=reason(error))) from error
    return torch is not None


def pythonExecutable():
    """Return the path of Slicer's Python."""
    return shutil.which("PythonSlicer") or os.path.join(slicer.app.slicerHome, "bin", "PythonSlicer")


def startPython(arguments, environment=None, connect=None):
    """Start Slicer's Python as a child process and return the ``QProcess``.

    Parameters
    ----------
    arguments : list of str
        Its command line.
    environment : dict, optional
        Environment variables to set; by default those that let it import ``synthseg_slicer``.
    connect : callable, optional
        Called with the process before it starts, to connect its signals.
    """
    if environment is None:
        paths = [LOGIC_DIR, os.environ.get("PYTHONPATH", "")]
        environment = {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    whole = qt.QProcessEnvironment.systemEnvironment()
    for name, value in environment.items():
        whole.insert(name, value)
    process = qt.QProcess()
    process.setProcessEnvironment(whole)
    if connect:
        connect(process)
    process.start(pythonExecutable(), arguments)
    return process


def _text(byteArray):
    return bytes(byteArray.data()).decode("utf-8", "replace")


def _idOf(node):
    return node.GetID() if node else None


def _tableOf(segmentation):
    return segmentation.GetNodeReference(TABLE_ROLE) if segmentation else None


def _taskOf(segmentation):
    return json.loads(segmentation.GetAttribute("SynthSegSlicer.Options") or "{}").get("task")


#
# Logic
#


class SegmentationRun(VTKObservationMixin):
    """One segmentation in a child process. The scene changes only at its end, and only if it succeeded.

    Attributes
    ----------
    inputNode : vtkMRMLScalarVolumeNode or vtkMRMLSequenceNode
    segmentation, table : nodes or None
        The results; for a sequence they are sequences.
    error : Exception or None
        Why there are none.
    cancelled : bool
    reason : str
        Why it was cancelled, if not by the user.
    done : bool
    log : str
        What the child process printed.
    """

    def __init__(self, inputNode, segmentation, table, options, surfaces, progress, finished):
        VTKObservationMixin.__init__(self)
        self.inputNode, self.surfaces = inputNode, surfaces
        self.segmentation, self.table = segmentation, table
        self.error, self.cancelled, self.reason, self.done, self.log = None, False, "", False, ""
        self._options, self._progress, self._finished = options, progress, finished
        self._results, self._warnings, self._job, self._process, self._rotation = [], [], None, None, None

    def start(self):
        """Hand the scan to the child process and start it."""
        from synthseg_slicer.job import Job

        self._began = time.monotonic()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            scans = self._readScans()
        self._warnings = [str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)]
        self._job = Job(scans, self._options)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneClose)
        logging.info("SynthSeg: segmenting %s", self.inputNode.GetName())
        self._process = startPython(self._job.arguments, self._job.environment, self._connect)

    def _readScans(self):
        from synthseg_slicer import mrml

        if self.inputNode.IsA("vtkMRMLSequenceNode"):
            return [scan for _index, scan in mrml.frames_of(self.inputNode)]
        # The transform may change while the child process works; its result belongs to that of now.
        self._rotation = mrml.upright(self.inputNode)
        return [mrml.scan_from_node(self.inputNode, rotation=self._rotation)]

    def _connect(self, process):
        self._process = process
        process.connect("readyReadStandardOutput()", self._onOutput)
        process.connect("readyReadStandardError()", self._onLog)
        process.connect("finished(int,QProcess::ExitStatus)", self._onProcessFinished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._onProcessError)

    def cancel(self, reason=""):
        """End the child process; the scene stays as it is."""
        if not self.done:
            self.cancelled, self.reason = True, reason
            self._process.kill()

    def silence(self):
        """Report neither progress nor the end to anybody."""
        self._progress = self._finished = None

    def wait(self):
        """Keep the application alive until the run is done."""
        while not self.done:
            slicer.app.processEvents()
            time.sleep(0.02)

    def summary(self):
        """Return one line about the result."""
        seconds = round(time.monotonic() - self._began)
        if len(self._results) > 1:
            return _("{count} frames segmented in {seconds} s.").format(count=len(self._results), seconds=seconds)
        rows = [row for row in self._results[0].rows if row.label is not None and row.volume > 0]
        total = self._results[0].rows[-1].volume / 1000
        text = _("{count} structures in {seconds} s; intracranial volume {total:.0f} ml.")
        return text.format(count=len(rows), seconds=seconds, total=total)

    def warnings(self):
        """Return what the user should know about the result, each message once."""
        found = [message for result in self._results for message in result.provenance["warnings"]]
        return list(dict.fromkeys(self._warnings + found))

    def _onSceneClose(self, caller=None, event=None):
        self.cancel(_("Cancelled, because the scene was closed."))

    def _onOutput(self):
        self._job.feed(bytes(self._process.readAllStandardOutput().data()))
        if self._progress and self._job.stage and not self.cancelled:
            self._progress(self._job.stage, self._job.fraction, self._job.remaining)

    def _onLog(self):
        self._job.feed_log(bytes(self._process.readAllStandardError().data()))

    def _onProcessError(self, error):
        if error == qt.QProcess.FailedToStart:  # Qt tells no end of what never began
            from synthseg_slicer.errors import SynthSegError

            message = _("Slicer's Python could not be started ({path}). Reinstall Slicer.")
            self.error = SynthSegError(message.format(path=pythonExecutable()))
            self._conclude()

    def _onProcessFinished(self, exitCode, exitStatus):
        try:
            self._onOutput()
            self._onLog()
            if not self.cancelled:
                self._results = self._job.finish(exitCode, exitStatus == qt.QProcess.CrashExit)
                self._writeResults()
        except Exception as error:
            logging.debug("segmentation failed", exc_info=True)
            self.error = error
        self._conclude()

    def _conclude(self):
        self.removeObservers()
        self.log = self._job.log
        self._job.close()
        self.done = True
        if self._finished:
            self._finished(self)

    def _writeResults(self):
        from synthseg_slicer.errors import SynthSegError

        scene = slicer.mrmlScene
        if not scene.IsNodePresent(self.inputNode):
            raise SynthSegError(_("The scan was removed from the scene while it was being segmented."))
        before = {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}
        scene.SaveStateForUndo()
        self.segmentation, self.table = (
            node if node and scene.IsNodePresent(node) else None for node in (self.segmentation, self.table)
        )
        try:
            self._writeNodes()
        except Exception:
            for node in [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]:
                if node.GetID() not in before:
                    scene.RemoveNode(node)
            raise

    def _writeNodes(self):
        from synthseg_slicer import mrml

        if self.inputNode.IsA("vtkMRMLSequenceNode"):
            self.segmentation, self.table, _browser = mrml.write_sequence(
                self._results, self.inputNode, surfaces=self.surfaces
            )
            return
        result = self._results[0]
        self.segmentation = mrml.write_segmentation(
            result, self.inputNode, self.segmentation, surfaces=self.surfaces, rotation=self._rotation
        )
        name = _("{name} volumes").format(name=self.inputNode.GetName())
        self.table = mrml.write_table(result, self.table, name=name)
        self.segmentation.SetNodeReferenceID(TABLE_ROLE, self.table.GetID())
        mrml.file_under_study(self.inputNode, self.segmentation, self.table)


class LesionRun(SegmentationRun):
    """One segmentation of the lesions that several scans of a head show.

    Attributes
    ----------
    nodes : synthseg_slicer.mrml.LesionNodes or None
        The results; ``segmentation`` and ``table`` are among them.
    """

    def __init__(self, inputNodes, *arguments):
        super().__init__(inputNodes[0], *arguments)
        self.nodes, self._inputNodes = None, inputNodes

    def summary(self):
        """Return one line about the result."""
        result, seconds = self._results[0], round(time.monotonic() - self._began)
        text = _("Lesions: {count}, of {volume:.1f} ml in all; segmented in {seconds} s.")
        return text.format(count=len(result.lesions), volume=result.volume / 1000, seconds=seconds)

    def _readScans(self):
        from synthseg_slicer import mrml

        self._rotation = mrml.upright(self.inputNode)
        return mrml.scans_of_head(self._inputNodes)

    def _writeNodes(self):
        from synthseg_slicer import mrml

        options = {"surfaces": self.surfaces, "rotation": self._rotation}
        options["probability"] = self._options["probability"]
        result = self._results[0]
        self.nodes = mrml.write_lesions(result, self.inputNode, self.segmentation, self.table, **options)
        self.segmentation, self.table = self.nodes.segmentation, self.nodes.table
        mrml.file_under_study(self.inputNode, *filter(None, self.nodes))


class SynthSegSlicerLogic(ScriptedLoadableModuleLogic):
    """Segments volumes of the scene; usable without the panel.

    Examples
    --------
    In Slicer's Python console or a script::

        import SampleData
        from SynthSegSlicer import SynthSegSlicerLogic

        volume = SampleData.downloadSample("MRHead")
        segmentation, table = SynthSegSlicerLogic().process(volume)
        print(table.GetCellText(0, 0), table.GetCellText(0, 2), "mm3")
    """

    def getParameterNode(self):
        """Return the scene's parameters, typed."""
        node = super().getParameterNode()
        if node not in _typedParameters:
            _typedParameters[node] = SynthSegSlicerParameterNode(node)
        return _typedParameters[node]

    def process(
        self,
        inputVolume,
        outputSegmentation=None,
        outputTable=None,
        *,
        task="brain",
        fast=False,
        device="auto",
        ct=None,
        native=False,
        surfaces=False,
        model=None,
        wait=True,
        progress=None,
        finished=None,
    ):
        """Segment a volume, or each frame of a sequence, and measure its structures.

        Inference runs in a child process. The scene changes only when it succeeded.

        Parameters
        ----------
        inputVolume : vtkMRMLScalarVolumeNode or vtkMRMLSequenceNode
            Head scan, MR or CT.
        outputSegmentation : vtkMRMLSegmentationNode, optional
            Receives the segments, its old ones are replaced; a new node by default and for sequences.
        outputTable : vtkMRMLTableNode, optional
            Receives the volumes; a new node by default and for sequences.
        task : str
            ``brain``; for stroke lesions see :meth:`processStroke`.
        fast : bool
            One pass of the network instead of two.
        device : str
            ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        ct : bool, optional
            Whether the scan is CT; judged by its intensities by default.
        native : bool
            Segmentation on the scan's own grid instead of 1 mm.
        surfaces : bool
            Create closed surfaces, for 3D views.
        model : path, optional
            Other weights (``NAME.pt`` with ``NAME.json`` beside it) than the installed ones.
        wait : bool
            Return only when done; the application stays alive meanwhile.
        progress : callable, optional
            Called with stage (str), fraction (0 to 1) and remaining seconds (float or None).
        finished : callable, optional
            Called with the :class:`SegmentationRun` when it is done, cancelled or failed.

        Returns
        -------
        tuple of vtkMRMLSegmentationNode and vtkMRMLTableNode
            With ``wait``; for a sequence, a sequence of each.
        SegmentationRun
            Without ``wait``; its ``cancel()`` stops it.

        Raises
        ------
        synthseg_slicer.errors.SynthSegError
            The scan is unusable, torch is missing, memory ran out, the run was cancelled, ...; the message says what to
            do. Without ``wait``, what happens later is the run's ``error``.
        """
        from synthseg_slicer.errors import OptionError

        if not inputVolume:
            raise OptionError(_("No scan was given. Load or select one first."))
        if task == Task.STROKE.value:
            raise OptionError(_("Stroke lesions are segmented by processStroke([first scan, other scans ...])."))
        options = {"task": task, "fast": fast, "device": device, "ct": ct, "native": native, "model": model}
        run = SegmentationRun(inputVolume, outputSegmentation, outputTable, options, surfaces, progress, finished)
        run.start()
        if not wait:
            return run
        self._finish(run)
        return run.segmentation, run.table

    def processStroke(
        self,
        inputVolumes,
        outputSegmentation=None,
        outputTable=None,
        *,
        anatomy=True,
        register=True,
        probability=False,
        fast=False,
        ct=None,
        device="auto",
        native=False,
        surfaces=False,
        model=None,
        wait=True,
        progress=None,
        finished=None,
    ):
        """Segment the stroke lesions that one or several scans of a head show.

        Inference runs in a child process. The scene changes only when it succeeded.

        Parameters
        ----------
        inputVolumes : list of vtkMRMLScalarVolumeNode
            MR scans of one head, of any sequences. The first gives the grid and the anatomy.
        outputSegmentation : vtkMRMLSegmentationNode, optional
            Receives one segment with all lesions; a new node by default. What it refers to is filled anew too.
        outputTable : vtkMRMLTableNode, optional
            Receives a row a lesion; a new node by default.
        anatomy : bool
            Segment the anatomy too: it tells side and structure of each lesion, and how much of each structure is
            lesion.
        register : bool
            Align scans whose grids differ from the first's; else trust where they lie in the scene.
        probability : bool
            Make a volume of the probability of lesion, too.
        fast : bool
            One pass of the network for each scan, and one for the anatomy.
        ct : bool, optional
            False keeps MR scans from being taken for CT. The weights are for MR: True is refused.
        model : path, optional
            Other weights of this task than the installed ones.
        device, native, surfaces, wait, progress, finished
            As in :meth:`process`.

        Returns
        -------
        synthseg_slicer.mrml.LesionNodes
            With ``wait``: the nodes ``segmentation``, ``table``, ``anatomy``, ``loads`` and ``probability``, the last
            three None where they were not asked for.
        LesionRun
            Without ``wait``; its ``cancel()`` stops it.

        Raises
        ------
        synthseg_slicer.errors.SynthSegError
            As in :meth:`process`.

        Examples
        --------
        ::

            nodes = SynthSegSlicerLogic().processStroke([t1Node, flairNode])
            print(nodes.table.GetCellText(0, 1), "mm3")
        """
        from synthseg_slicer.errors import OptionError

        inputVolumes = [inputVolumes] if hasattr(inputVolumes, "IsA") else list(inputVolumes or [])
        if not inputVolumes or None in inputVolumes:
            raise OptionError(_("No scan was given. Load or select one first."))
        for node in inputVolumes:
            if not node.IsA("vtkMRMLScalarVolumeNode"):
                message = _("{name}: is no volume. Choose volumes; sequences belong to the task Brain anatomy.")
                raise OptionError(message.format(name=node.GetName()))
        inputVolumes = list(dict.fromkeys(inputVolumes))  # a scan that was chosen twice counts once
        options = {"task": Task.STROKE.value, "anatomy": anatomy, "register": register, "probability": probability}
        options |= {"fast": fast, "ct": ct, "device": device, "native": native, "model": model}
        run = LesionRun(inputVolumes, outputSegmentation, outputTable, options, surfaces, progress, finished)
        run.start()
        if not wait:
            return run
        self._finish(run)
        return run.nodes

    @staticmethod
    def _finish(run):
        """Wait for a run and raise what it failed of."""
        from synthseg_slicer.errors import Cancelled

        run.wait()
        if run.cancelled:
            raise Cancelled(run.reason or _("Cancelled. The scene is unchanged."))
        if run.error:
            raise run.error
        logging.info("SynthSeg: %s", run.summary())

    @staticmethod
    def resultOf(volume, task="brain"):
        """Return the newest segmentation that this module made of a volume for a task, or None."""
        if not volume:
            return None
        role = vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        own = [node for node in nodes if node.GetNodeReferenceID(role) == volume.GetID() and _tableOf(node)]
        own = [node for node in own if _taskOf(node) == task]
        return own[-1] if own else None


#
# Test
#


class SynthSegSlicerTest(ScriptedLoadableModuleTest):
    """Runs inside Slicer (Reload and Test); the project's own tests in ``Testing`` go further."""

    def setUp(self):
        """Begin with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self):
        """Run all tests."""
        self.setUp()
        self.test_aVolumeBecomesASegmentationAndATable()
        self.setUp()
        self.test_anUnusableVolumeIsRefused()

    def test_aVolumeBecomesASegmentationAndATable(self):
        """A ball with a bright core runs through the whole path."""
        import numpy as np

        if not torchInstalled():
            self.skipTest("torch is not installed")
        z, y, x = np.ogrid[-40:40, -40:40, -40:40]
        radius = np.sqrt(x**2 + y**2 + z**2)
        voxels = np.where(radius < 20, 200, np.where(radius < 35, 100, 5)).astype("int16")
        volume = slicer.util.addVolumeFromArray(voxels)
        seen = []
        segmentation, table = SynthSegSlicerLogic().process(
            volume, fast=True, device="cpu", progress=lambda stage, fraction, remaining: seen.append(fraction)
        )
        self.assertEqual(seen, sorted(seen))
        self.assertEqual(segmentation.GetNodeReference(TABLE_ROLE), table)
        self.assertGreater(table.GetNumberOfRows(), 30)
        self.delayDisplay(_("Segmented"))

    def test_anUnusableVolumeIsRefused(self):
        """A constant volume raises, and nothing is added to the scene."""
        import numpy as np

        from synthseg_slicer.errors import SynthSegError

        volume = slicer.util.addVolumeFromArray(np.zeros((40, 40, 40), "int16"))
        with self.assertRaises(SynthSegError):
            SynthSegSlicerLogic().process(volume)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode"), 0)
        self.delayDisplay(_("Refused"))
