"""Stand-ins for `slicer.app`, its layout manager, its module manager and the main window."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import slicer
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import QObject, Signal

from .io_manager import IOManager
from .mrml import Mrml
from .properties import Strict

_PYTHON_SLICER = """#!/bin/sh
if [ "$1 $2" = "-m pip" ]; then echo "no installs in the test host" >&2; exit 1; fi
exec "{python}" "$@"
"""


class ModuleManager(QObject):
    """Which modules there are; told before one goes."""

    moduleAboutToBeUnloaded = Signal(str)

    def module(self, name: str):
        return getattr(slicer.modules, name.lower(), None)


class SliceWidget:
    """What there is of a slice view without drawing it."""

    def __init__(self, logic) -> None:
        self._logic = logic

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()


class LayoutManager(Strict, QObject):
    """Sets the layout of the scene's real layout node; there are no view widgets behind it."""

    layoutChanged = Signal(int)

    def __init__(self, mrml: Mrml) -> None:
        super().__init__()
        self._mrml = mrml

    def layoutLogic(self):
        return self._mrml.layout

    def _get_layout(self) -> int:
        return self._mrml.layout.GetLayoutNode().GetViewArrangement()

    def setLayout(self, layout: int) -> None:
        if layout != self._get_layout():
            self._mrml.layout.GetLayoutNode().SetViewArrangement(layout)
            self.layoutChanged.emit(layout)

    layout = QtCore.Property(int, _get_layout, setLayout)

    def mrmlSliceLogics(self):
        return self._mrml.application.GetSliceLogics()

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._mrml.slices)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        return SliceWidget(self._mrml.slices[name]) if name in self._mrml.slices else None

    def resetThreeDViews(self):
        """Without views of its own there is nothing to fit."""

    def resetSliceViews(self) -> None:
        for logic in self._mrml.slices.values():
            logic.FitSliceToBackground()


class ModuleSelector(QObject):
    """Switches modules: leaves the one, enters the other, and keeps the names in `history`."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[str] = []

    @property
    def selectedModule(self) -> str:
        return self.history[-1] if self.history else ""

    def selectModule(self, name: str) -> None:
        for module, method in ((self.selectedModule, "exit"), (name, "enter")):
            loaded = slicer.app.moduleManager().module(module)
            if loaded and loaded.widgetRepresentation():
                getattr(loaded.widgetRepresentation(), method)()
        self.history.append(name)


class MainWindow(QtWidgets.QMainWindow):
    """The main window: a status bar and a module selector."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self._selector = ModuleSelector()

    def moduleSelector(self) -> ModuleSelector:
        return self._selector


class Application(QtWidgets.QApplication):
    """`slicer.app`: a real QApplication with the part of qSlicerApplication that modules use."""

    startupCompleted = Signal()
    majorVersion, minorVersion, revision, os = 5, 12, "00000", sys.platform
    mainApplicationName = "Slicer"

    def __init__(self, folder: Path) -> None:
        self._startup_environment = QtCore.QProcessEnvironment.systemEnvironment()
        super().__init__(["Slicer"])
        self.applicationName, self.organizationName, self.applicationVersion = "Slicer", "NA-MIC", "5.12.4"
        self.testing = False
        self.pauses = 0  # of pauseRender() without resumeRender()
        self.temporaryPath = str(folder / "temporary")
        self.slicerHome = str(folder / "home")
        Path(self.temporaryPath).mkdir()
        self._add_python_slicer(Path(self.slicerHome) / "bin")
        self._settings = QtCore.QSettings()
        self._modules = ModuleManager()
        self._mrml: Mrml | None = None

    def attach(self, mrml: Mrml) -> None:
        self._mrml = mrml
        self._layout = LayoutManager(mrml)
        self._io = IOManager(mrml)

    @staticmethod
    def _add_python_slicer(folder: Path) -> None:
        """PythonSlicer, which runs this Python; on PATH, as in Slicer, but unable to install anything."""
        folder.mkdir(parents=True)
        script = folder / "PythonSlicer"
        script.write_text(_PYTHON_SLICER.format(python=sys.executable))
        script.chmod(0o755)
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
        if shutil.which("PythonSlicer") != str(script):
            raise RuntimeError(f"cannot put {script} on PATH")

    def mrmlScene(self):
        return self._mrml.scene

    def applicationLogic(self):
        return self._mrml.application

    def layoutManager(self) -> LayoutManager:
        return self._layout

    def moduleManager(self) -> ModuleManager:
        return self._modules

    def ioManager(self) -> IOManager:
        return self._io

    coreIOManager = ioManager

    def settings(self) -> QtCore.QSettings:
        return self._settings

    userSettings = revisionUserSettings = settings

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return self._startup_environment

    def testingEnabled(self) -> bool:
        return self.testing

    def pauseRender(self) -> None:
        self.pauses += 1

    def resumeRender(self) -> None:
        self.pauses -= 1

    def commandOptions(self) -> SimpleNamespace:
        window = slicer.util.mainWindow() is not None
        return SimpleNamespace(noMainWindow=not window, testingEnabled=self.testing, runPythonAndExit=False)

    def translate(self, context: str, text: str) -> str:
        return text

    documentationBaseUrl = "https://slicer.readthedocs.io/en/latest/"

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"{self.documentationBaseUrl}user_guide/modules/{name.lower()}.html"
